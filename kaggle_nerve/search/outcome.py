"""The end of a search: the best trial is trained again with another seed, then told with the table and the plots."""

import dataclasses
import shutil
from collections.abc import Sequence

from optuna.trial import FrozenTrial

from kaggle_nerve.errors import NerveError
from kaggle_nerve.locks import hold_lock
from kaggle_nerve.runs.run import SETTINGS, is_run
from kaggle_nerve.search import claims, page
from kaggle_nerve.search.study import Search, Study
from kaggle_nerve.search.table import Outcome, rows_of
from kaggle_nerve.search.trial import ERROR, Trainer, fault
from kaggle_nerve.settings import Settings, load_settings, save_settings
from kaggle_nerve.storage import write_text

AGAIN = "again"
"""Name of the run of the best trial's settings with another seed."""

BEST = "best.toml"
"""Preset file with the best trial's settings, in the search's folder."""

REPORT = "report.html"


def conclude(study: Study, trainer: Trainer) -> Outcome | None:
    """Train the best trial's settings again, write preset file, plots and page; return the outcome.

    Return None if ``trainer.stop`` ended that training; the next call goes on. Raise NerveError if no trial is
    finished, or if another worker concludes the search.
    """
    search = study.search
    trials = [trial for trial in claims.counted(study.trials()) if trial.state.is_finished()]
    if not claims.ranked(trials):
        raise NerveError(_none_finished(search, trials))
    message = f"Another worker ends search {search.name} already; its results come to {search.folder}."
    with hold_lock(search.folder / ".outcome.lock", message):
        best = claims.ranked(trials)[0]
        settings = search.space.apply(search.settings, best.params)
        figures = _train_again(search, settings, trainer)
        if figures is None:
            return None
        outcome = Outcome(search, rows_of(trials), figures)
        _save_preset(outcome, search.space.apply(search.preset, best.params))
        page.write_plots(outcome, study.optuna)
        text = page.render(outcome, study.optuna, settings, trainer.origin())
        write_text(search.folder / REPORT, text)
        return outcome


def _train_again(search: Search, settings: Settings, trainer: Trainer) -> dict | None:
    """Train ``settings`` with the next seed, which also assigns patients to other folds; return the figures."""
    again = dataclasses.replace(settings, seed=settings.seed + 1)
    folder = search.folder / AGAIN
    if is_run(folder) and load_settings(folder / SETTINGS).digest() != again.digest():
        shutil.rmtree(folder)  # of an earlier best trial
    trainer.reporter.say(f"The best trial is trained again with seed {again.seed}.")
    run, is_finished = trainer.train_run(search.folder, AGAIN, again, trainer.stop)
    return trainer.figures(run) if is_finished else None


def _save_preset(outcome: Outcome, settings: Settings) -> None:
    best, objective = outcome.best, outcome.search.objective
    description = (
        f"Best of {len(outcome.rows)} trials of search {outcome.search.name}: {objective} {best.value:.4f}, with "
        f"another seed {outcome.again[objective]:.4f}"
    )
    save_settings(dataclasses.replace(settings, description=description), outcome.search.folder / BEST)


def _none_finished(search: Search, trials: Sequence[FrozenTrial]) -> str:
    errors = [trial.user_attrs[ERROR] for trial in trials if ERROR in trial.user_attrs]
    why = f" The last one failed: {fault(errors[-1])}." if errors else ""
    return (
        f"None of the {len(trials)} trials of search {search.name} was finished, so there is no best one; more "
        f"--trials go on with other settings.{why}"
    )
