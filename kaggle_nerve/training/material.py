"""What all folds of a run share: its folder, frames, doubted labels, and who is held out where."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kaggle_nerve import devices
from kaggle_nerve.data import cache as caches
from kaggle_nerve.data import folds as folding
from kaggle_nerve.data import noise
from kaggle_nerve.data.cache import Cache
from kaggle_nerve.data.frames import locate
from kaggle_nerve.progress import SILENT, Reporter
from kaggle_nerve.runs import Run
from kaggle_nerve.settings import Settings
from kaggle_nerve.settings.schema import FoldName
from kaggle_nerve.storage import completed, locked, read_json
from kaggle_nerve.training.checkpoint import Checkpoint
from kaggle_nerve.training.environment import recorded
from kaggle_nerve.training.fold import FoldJob, FoldResult, train_fold


@dataclass(frozen=True)
class Frames:
    """The training frames at the working size, and at ``training.warm_size`` where that is wanted."""

    cache: Cache
    warm: Cache | None
    marks: noise.Marks | None


@dataclass(frozen=True)
class Material:
    """A run and what its folds are trained on. ``data_dir``: where the frames were found."""

    run: Run
    data_dir: Path
    frames: Frames
    folds: pd.DataFrame

    def job(
        self,
        fold: FoldName,
        *,
        budget: float | None = None,
        reporter: Reporter = SILENT,
        stop: Callable[[], bool] = lambda: False,
    ) -> FoldJob:
        """The job of one fold; ``budget`` in seconds."""
        frames = self.frames
        return FoldJob(
            run=self.run,
            cache=frames.cache,
            folds=self.folds,
            fold=fold,
            budget=budget,
            reporter=reporter,
            stop=stop,
            warm=frames.warm,
            noise=frames.marks,
        )


def open_frames(
    data_dir: Path, settings: Settings, *, reporter: Reporter = SILENT, workers: int = 2
) -> Frames:
    """Open the caches that ``settings`` need, built first where they are missing."""
    layout, small = locate(data_dir), settings.training.warm_size
    cache = caches.open_training(layout, settings.size, reporter=reporter, workers=workers)
    warm = caches.open_training(layout, small, reporter=reporter, workers=workers) if any(small) else None
    return Frames(cache, warm, noise.marks(settings.training, cache.table))


def gather(run: Run, data_dir: Path, frames: Frames) -> Material:
    """The material of ``run``; writes its folds.csv where there is none yet."""
    if not run.folds_csv.is_file():
        folding.save(folding.assign(frames.cache.table, run.settings.folds, run.settings.seed), run.folds_csv)
    return Material(run, data_dir, frames, folding.load(run.folds_csv))


def train(job: FoldJob, jobs: int) -> FoldResult:
    """Train one fold in this process, alone on its folder; ``jobs`` is how many run side by side.

    NerveError where another process trains it.
    """
    run, fold = job.run, job.fold
    told = f"Another process trains fold {fold} of run {run.name}; wait for it, or name another --fold."
    with locked(job.folder / ".lock", told):
        if completed(job.folder):
            return train_fold(job)
        if run.settings.training.deterministic:
            devices.make_deterministic()
        with recorded(job, jobs):
            return train_fold(job)


def not_begun(job: FoldJob) -> FoldResult:
    """The result of a fold that this session leaves where earlier ones brought it."""
    pointer = Checkpoint(job.folder).pointer
    state = read_json(pointer) if pointer.is_file() else {"epoch": 0, "best_epoch": 0, "best_dice": 0.0}
    average = job.run.settings.training.average
    return FoldResult(
        job.fold, False, state["epoch"], state["best_epoch"], max(0.0, state["best_dice"]), average
    )
