"""Run a search from its first trial to its outcome, or go on with it."""

from kaggle_nerve.search import claims
from kaggle_nerve.search.outcome import conclude
from kaggle_nerve.search.storage import Place
from kaggle_nerve.search.study import PRESET, Search, Study, open_study
from kaggle_nerve.search.table import Outcome
from kaggle_nerve.search.trial import Trainer
from kaggle_nerve.search.worker import Worker


def run_search(
    search: Search, place: Place, count: int, trainer: Trainer, *, keep: int = 1, side_by_side: int = 1
) -> tuple[Outcome | None, int]:
    """Train trials until there are ``count``, then conclude the search; go on with what earlier calls have left.

    ``keep``: of how many of the best trials the runs are kept. ``side_by_side``: how many folds are trained at a time.
    Return the outcome, None if there is none yet, and how many trials other workers still train: without any, the
    worker was stopped, and the same call goes on.
    """
    study = open_study(search, place, side_by_side, trainer.reporter)
    if not any(PRESET in trial.user_attrs for trial in study.trials()):
        trainer.reporter.say("The preset itself lies outside of the space, so it is no trial.")
    if not Worker(study, trainer, keep).run(count):
        return None, 0
    unfinished = _unfinished(study)
    return (None, unfinished) if unfinished else (conclude(study, trainer), 0)


def _unfinished(study: Study) -> int:
    return sum(not trial.state.is_finished() for trial in claims.counted(study.trials()))
