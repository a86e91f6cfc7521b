"""What a fold is trained on, and the one or two stages of its training.

A fold has one stage, or two: a short one at ``training.warm_size``, where a frame costs less, before
the one at the working size (progressive resizing).
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median

import keras
import numpy as np
import pandas as pd

from kaggle_nerve.data import cache as caches
from kaggle_nerve.data import doubted
from kaggle_nerve.data import folds as folding
from kaggle_nerve.data.batches import Batches
from kaggle_nerve.data.cache import Cache
from kaggle_nerve.data.frames import locate
from kaggle_nerve.maps.fullsize import Truths
from kaggle_nerve.progress import SILENT, Reporter
from kaggle_nerve.runs import Fold, Run
from kaggle_nerve.runs.run import WARM
from kaggle_nerve.settings import Settings
from kaggle_nerve.settings.schema import ALL


@dataclass(frozen=True)
class Frames:
    """The training frames at the working size, at ``training.warm_size`` if that is set, and the doubted labels."""

    cache: Cache
    warm: Cache | None
    marks: doubted.Marks | None


def open_frames(
    data_dir: Path, settings: Settings, *, reporter: Reporter = SILENT, workers: int = 2
) -> Frames:
    """Open the caches that ``settings`` need; missing ones are built first."""
    layout, small = locate(data_dir), settings.training.warm_size
    cache = caches.open_training(layout, settings.size, reporter=reporter, workers=workers)
    warm = caches.open_training(layout, small, reporter=reporter, workers=workers) if any(small) else None
    return Frames(cache, warm, doubted.marks(settings.training, cache.table))


def folds_of(run: Run, frames: Frames) -> pd.DataFrame:
    """The run's folds.csv (see `folds`), assigned and written if it is missing."""
    if not run.folds_csv.is_file():
        folding.save(folding.assign(frames.cache.table, run.settings.folds, run.settings.seed), run.folds_csv)
    return folding.load(run.folds_csv)


@dataclass(frozen=True)
class FoldJob:
    """Everything needed to train one fold. ``folds`` is the run's folds.csv.

    ``deadline``: when all of it has to be done, in seconds of ``time.monotonic``, or None. ``stop`` is asked after
    each epoch whether the user wants to end here.
    """

    fold: Fold
    frames: Frames
    folds: pd.DataFrame
    deadline: float | None = None
    reporter: Reporter = SILENT
    stop: Callable[[], bool] = lambda: False

    @property
    def settings(self) -> Settings:
        """The run's settings."""
        return self.fold.run.settings

    @property
    def seed(self) -> int:
        """The seed of everything random in this fold."""
        number = self.fold.number
        return self.settings.seed + (folding.count(self.folds) if number == ALL else number)


@dataclass(frozen=True)
class Stage:
    """One resumable part of a fold's training, at one image size. ``folder`` holds its history and checkpoint.

    ``deadline`` is that of `FoldJob`, or an earlier one; with ``is_last`` it includes what follows the last epoch.
    """

    job: FoldJob
    label: str
    folder: Path
    settings: Settings
    cache: Cache
    deadline: float | None
    is_last: bool

    @cached_property
    def held(self) -> np.ndarray:
        """The rows of the cache that are held out, rising; none for the fold of all subjects."""
        return self._split[1]

    @cached_property
    def truths(self) -> Truths:
        """The true masks of the held-out frames."""
        return Truths(list(self.cache.table.pixels.iloc[self.held]))

    @property
    def held_frames(self) -> np.ndarray:
        """The held-out frames, uint8 (n, height, width)."""
        return self.cache.frames[self.held]

    @property
    def names(self) -> list[str]:
        """The names of the held-out frames: ``subject_img``."""
        table = self.cache.table.iloc[self.held]
        return [f"{subject}_{img}" for subject, img in zip(table.subject, table.img, strict=True)]

    def batches(self, model: keras.Model) -> Batches:
        """The training batches for the outputs of ``model``."""
        settings, table = self.settings, self.cache.table
        assert self.cache.masks is not None  # a cache of training frames has masks
        return Batches(
            self.cache.frames,
            self.cache.masks,
            table.has_mask.to_numpy(),
            self._split[0],
            batch=settings.training.batch,
            seed=self.job.seed,
            ranges=settings.augmentation,
            outputs=tuple(model.output),
            subjects=table.subject.to_numpy() if settings.training.one_per_subject else None,
            noise=self.job.frames.marks,
        )

    @cached_property
    def _split(self) -> tuple[np.ndarray, np.ndarray]:
        return folding.split(self.cache.table, self.job.folds, self.job.fold.number)


def main_stage(job: FoldJob) -> Stage:
    """The stage at the working size. The fold of all subjects gets the epochs that the others were found to need."""
    settings = _main_settings(job.settings)
    if job.fold.number == ALL:
        settings = without_scores(settings, _usual_epochs(job.fold.run, settings))
    return Stage(job, job.fold.label, job.fold.folder, settings, job.frames.cache, job.deadline, True)


def warm_stage(job: FoldJob, now: float) -> Stage | None:
    """The stage at ``training.warm_size``, None without one. Its deadline leaves a share of the time from ``now``."""
    if job.frames.warm is None:
        return None
    settings, share = warm_settings(job.settings), job.settings.training.warm_share
    label = f"{job.fold.label} at {settings.size[0]}x{settings.size[1]}"
    deadline = None if job.deadline is None else now + share * (job.deadline - now)
    return Stage(job, label, job.fold.folder / WARM, settings, job.frames.warm, deadline, False)


def warm_settings(settings: Settings) -> Settings:
    """The settings of the stage at ``training.warm_size``: the smoothing pixels shrink with the area."""
    height, width = settings.training.warm_size
    area = height * width / (settings.size[0] * settings.size[1])
    training = dataclasses.replace(
        settings.training, epochs=_warm_epochs(settings), patience=0, average="best"
    )
    loss = dataclasses.replace(settings.loss, smooth=settings.loss.smooth * area)
    return dataclasses.replace(settings, size=(height, width), training=training, loss=loss)


def without_scores(settings: Settings, epochs: int) -> Settings:
    """``settings`` for ``epochs`` epochs that nothing is known about: no patience, and the last weights or their mean.

    The schedule ``plateau``, which waits for scores, becomes ``cosine``.
    """
    average = settings.training.average
    training = dataclasses.replace(
        settings.training,
        epochs=epochs,
        patience=0,
        average="best" if average == "top" else average,
    )
    optimiser = settings.optimiser
    if optimiser.schedule == "plateau":
        optimiser = dataclasses.replace(optimiser, schedule="cosine")
    return dataclasses.replace(settings, training=training, optimiser=optimiser)


def _main_settings(settings: Settings) -> Settings:
    """The settings of the stage at the working size: the epochs that the warm one leaves."""
    epochs = max(1, settings.training.epochs - _warm_epochs(settings))
    return dataclasses.replace(settings, training=dataclasses.replace(settings.training, epochs=epochs))


def _warm_epochs(settings: Settings) -> int:
    training = settings.training
    return max(1, round(training.epochs * training.warm_share)) if any(training.warm_size) else 0


def _usual_epochs(run: Run, settings: Settings) -> int:
    """The median over the finished folds; where the best epoch's weights are kept, of the best epochs."""
    facts = [fold.needs_facts() for fold in run.finished_folds()]
    best = settings.training.average == "best"
    epochs = [one.best_epoch if best else one.epochs for one in facts]
    return max(1, round(median(epochs))) if epochs else settings.training.epochs
