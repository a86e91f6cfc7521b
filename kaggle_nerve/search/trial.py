"""Train and score one trial: an ordinary run in the search's folder, pruned while it is trained."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import optuna
from optuna.trial import Trial, TrialState

from kaggle_nerve import pipeline
from kaggle_nerve.data.frames import locate
from kaggle_nerve.errors import NerveError
from kaggle_nerve.locks import hold_lock
from kaggle_nerve.progress import Prefixed, Reporter
from kaggle_nerve.report.gather import origin
from kaggle_nerve.runs import FoldResult, Run
from kaggle_nerve.runs.run import LOCK, SETTINGS, is_run
from kaggle_nerve.search.claims import BEAT
from kaggle_nerve.search.objectives import OBJECTIVES, shown_figures
from kaggle_nerve.search.pruning import fold_scores
from kaggle_nerve.search.storage import FAULTS, StorageError
from kaggle_nerve.search.study import Study
from kaggle_nerve.settings import Settings, load_settings
from kaggle_nerve.training.run_folds import FoldsError

FIGURES, ERROR = "figures", "error"
"""User attributes of a finished trial: its figures, or why it failed."""

BEAT_SECONDS = 60.0
"""Seconds between two signs of life."""

LOOK_SECONDS = 1.0
"""Seconds between two looks at the histories."""

ORPHAN_SECONDS = 60.0
"""How long the fold processes of a killed worker may take to notice it."""


class Train(Protocol):
    """`training.run_folds.train_folds`, or another function that trains the folds of a run elsewhere."""

    def __call__(
        self,
        data_dir: Path,
        runs_dir: Path,
        name: str,
        settings: Settings,
        *,
        time_budget: float | None = None,
        reporter: Reporter = ...,
        stop: Callable[[], bool] = ...,
        workers: int = 2,
        jobs: int | None = None,
        isolate: bool = False,
    ) -> tuple[Run, list[FoldResult]]:
        """Train the folds of run ``name``."""
        ...


@dataclass(frozen=True)
class Trainer:
    """Trains and scores runs for this worker. Its settings may differ between the workers of a search.

    ``stop`` returns True once the worker is to end; ``time_budget``: seconds for each trial's training, or None.
    ``is_shared``: whether other trials are trained at the same time with the same reporter.
    """

    data_dir: Path
    train: Train
    reporter: Reporter
    stop: Callable[[], bool]
    workers: int = 2
    jobs: int | None = None
    isolate: bool = True
    time_budget: float | None = None
    is_shared: bool = False

    def train_run(
        self, runs_dir: Path, name: str, settings: Settings, stop: Callable[[], bool]
    ) -> tuple[Run, bool]:
        """Train run ``name`` or go on with it; return it, and whether it is finished."""
        _wait_for_orphans(runs_dir / name)
        run, results = self.train(
            self.data_dir,
            runs_dir,
            name,
            settings,
            time_budget=self.time_budget,
            reporter=Prefixed(self.reporter, f"{name}, ") if self.is_shared else self.reporter,
            stop=stop,
            workers=self.workers,
            jobs=self.jobs,
            isolate=self.isolate,
        )
        return run, all(result.finished for result in results)

    def figures(self, run: Run) -> dict[str, Any]:
        """Learn the run's decision; return its figures as in `objectives.SHOWN`."""
        decision = pipeline.learn_decision([run], self.data_dir, reporter=self.reporter, workers=self.workers)
        return shown_figures(decision.figures)

    def origin(self) -> str:
        """Return a sentence if the data is not the competition's own, else ''."""
        return origin(locate(self.data_dir))


class Watch:
    """Callback ``stop`` of a trial's training, which reports new epochs to the study and asks whether to prune.

    ``is_pruned``: whether the study gave the trial up. ``is_lost``: whether another worker has taken it over, because
    this one gave no sign of life for too long.
    """

    def __init__(self, study: Study, trial: Trial, run: Run, stop: Callable[[], bool]):
        self.is_pruned = self.is_lost = False
        self._study, self._trial, self._run, self._stop = study, trial, run, stop
        self._column = OBJECTIVES[study.search.objective].column
        self._reported: set[int] = set()
        self._last_look = -LOOK_SECONDS

    def __call__(self) -> bool:
        """Return whether training is to end."""
        if not self.is_pruned and time.monotonic() - self._last_look >= LOOK_SECONDS:
            self._last_look = time.monotonic()
            self.is_pruned = self.report()
        return self.is_pruned or self.is_lost or self._stop()

    def report(self) -> bool:
        """Report the steps that were reached since the last call; return whether the trial is to be pruned.

        If the storage fails, the next call reports them.
        """
        plan = self._study.plan
        scores = fold_scores(self._run, plan.folds, self._column)
        values = plan.values(scores, self._run.settings.training.epochs)
        new = sorted(values.keys() - self._reported)
        try:
            for step in new:
                self._trial.report(values[step], step)
                self._reported.add(step)
            return bool(new) and self._trial.should_prune()
        except optuna.exceptions.UpdateFinishedTrialError:
            self.is_lost = True
            return False
        except FAULTS:
            return False


def train_trial(study: Study, trial: Trial, name: str, trainer: Trainer) -> TrialState | None:
    """Train and score a trial as run ``name`` and end it in the study; return its state, None if it was stopped.

    A trial that cannot be trained, or whose folds fail, ends as failed, with the error's sentence. Raise
    MachinesLostError, and leave the trial as it is, if the cluster that trains it has gone.
    """
    try:
        with _signs_of_life(trial):
            figures = _train(study, trial, name, trainer)
    except StorageError:
        raise
    except NerveError as error:
        if isinstance(error, FoldsError) and error.lost:
            raise error.lost from error
        if trainer.stop():
            return None
        study.note(trial, **{ERROR: str(error)})
        study.finish(trial, TrialState.FAIL)
        return TrialState.FAIL
    if not isinstance(figures, dict):
        return figures
    study.note(trial, **{FIGURES: figures})
    study.finish(trial, TrialState.COMPLETE, figures[study.search.objective])
    return TrialState.COMPLETE


def _train(study: Study, trial: Trial, name: str, trainer: Trainer) -> dict[str, Any] | TrialState | None:
    """Train a trial; return its figures, or the state it ended in without, None if it was stopped."""
    folder = study.search.folder
    settings = study.search.space.apply(study.search.settings, trial.params)
    watch = Watch(study, trial, Run(folder / name, settings), trainer.stop)
    run, is_finished = trainer.train_run(folder, name, settings, watch)
    if watch.is_lost:
        return TrialState.FAIL
    if not is_finished:
        if not watch.is_pruned:
            return None
        study.finish(trial, TrialState.PRUNED)
        return TrialState.PRUNED
    watch.report()  # the last epochs, for later trials to be compared with
    figures = trainer.figures(run)
    if figures[study.search.objective] is None:
        raise NerveError(
            "presence has no AUC, since all frames have a mask or none has; choose another --objective"
        )
    return figures


@contextmanager
def _signs_of_life(trial: Trial) -> Iterator[None]:
    """Note in the study every `BEAT_SECONDS`, in a thread, that the trial's worker is alive."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT_SECONDS):
            # A storage that fails for a while must not end the training.
            with suppress(Exception):
                trial.set_user_attr(BEAT, time.time())

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _wait_for_orphans(folder: Path) -> None:
    """Wait until no process of an earlier, killed worker trains a fold of the run in ``folder``."""
    if not is_run(folder):
        return
    for fold in Run(folder, load_settings(folder / SETTINGS)).begun_folds():
        message = f"Another process trains {fold.folder}; end it, and run the same command again."
        with hold_lock(fold.folder / LOCK, message, ORPHAN_SECONDS):
            pass


def fault(text: str) -> str:
    """Return what went wrong, without the advice that follows in an error's sentence."""
    return (text.splitlines() or [""])[0].partition(";")[0].rstrip(".")
