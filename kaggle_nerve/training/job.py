"""The data and settings of a fold's training, and its one or two stages.

Progressive resizing adds a short first stage at the smaller ``training.warm_size``, where a frame costs
less, before the main stage at the working size. It is called the warm stage, and has nothing to do with
``optimiser.warmup``, the rise of the learning rate at the beginning of each stage.
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
from kaggle_nerve.data.batches import Batches, require_subjects
from kaggle_nerve.data.cache import Cache
from kaggle_nerve.data.frames import locate
from kaggle_nerve.maps.fullsize import Truths
from kaggle_nerve.models import registry
from kaggle_nerve.progress import SILENT, Reporter
from kaggle_nerve.runs import Fold, Run
from kaggle_nerve.runs.run import WARM
from kaggle_nerve.settings import Settings
from kaggle_nerve.settings.schema import ALL


@dataclass(frozen=True)
class Frames:
    """Training frames at the working size (``cache``) and, if set, at ``training.warm_size`` (``warm``).

    ``marks``: loss weights and presence targets of frames with doubted labels; None if the settings use none.
    """

    cache: Cache
    warm: Cache | None
    marks: doubted.Marks | None


def open_frames(
    data_dir: Path, settings: Settings, *, reporter: Reporter = SILENT, workers: int = 2
) -> Frames:
    """Open the caches that ``settings`` need; build the missing ones first."""
    layout, small = locate(data_dir), settings.training.warm_size
    cache = caches.open_training(layout, settings.size, reporter=reporter, workers=workers)
    warm = caches.open_training(layout, small, reporter=reporter, workers=workers) if any(small) else None
    return Frames(cache, warm, doubted.marks(settings.training, cache.table))


def load_folds(run: Run, frames: Frames) -> pd.DataFrame:
    """Read the run's folds.csv (see `data.folds`); assign the folds and write it first if it is missing."""
    if not run.folds_csv.is_file():
        folding.save(folding.assign(frames.cache.table, run.settings.folds, run.settings.seed), run.folds_csv)
    return folding.load(run.folds_csv)


def check_new(settings: Settings, frames: Frames) -> None:
    """Raise NerveError if a new run with ``settings`` could not begin: before it leaves a folder behind."""
    registry.check(settings.model)
    table, training = frames.cache.table, settings.training
    folds = folding.assign(table, settings.folds, settings.seed)
    for number in range(folding.count(folds)):
        rows, _ = folding.split(table, folds, number)
        if training.one_per_subject:
            require_subjects(table.subject.iloc[rows].nunique(), min(training.batch, len(rows)))


@dataclass(frozen=True)
class FoldJob:
    """Everything needed to train one fold. ``folds``: the table in the run's folds.csv.

    ``deadline``: when everything must be done, in ``time.monotonic`` seconds, or None. ``stop`` is called after
    each epoch; training ends if it returns True.
    """

    fold: Fold
    frames: Frames
    folds: pd.DataFrame
    deadline: float | None = None
    reporter: Reporter = SILENT
    stop: Callable[[], bool] = lambda: False

    @property
    def settings(self) -> Settings:
        """Settings of the run."""
        return self.fold.run.settings

    @property
    def seed(self) -> int:
        """Seed of everything random in this fold."""
        number = self.fold.number
        return self.settings.seed + (folding.count(self.folds) if number == ALL else number)


@dataclass(frozen=True)
class Stage:
    """One resumable part of a fold's training, at one image size.

    ``label``: prefix of lines and bars for the user. ``folder`` holds the stage's history and checkpoint.
    ``deadline`` is that of `FoldJob`, or an earlier one. In the last stage, the work after the last epoch must also
    end before the deadline.
    """

    job: FoldJob
    label: str
    folder: Path
    settings: Settings
    cache: Cache
    deadline: float | None
    is_last: bool

    @cached_property
    def held_rows(self) -> np.ndarray:
        """Cache rows of the held-out frames, ascending; empty for the fold of all subjects."""
        return self._split[1]

    @cached_property
    def truths(self) -> Truths:
        """True masks of the held-out frames."""
        return Truths(list(self.cache.table.pixels.iloc[self.held_rows]))

    @property
    def held_frames(self) -> np.ndarray:
        """Held-out frames, uint8 (n, height, width)."""
        return self.cache.frames[self.held_rows]

    @property
    def names(self) -> list[str]:
        """Names of the held-out frames: ``subject_img``."""
        table = self.cache.table.iloc[self.held_rows]
        return [f"{subject}_{img}" for subject, img in zip(table.subject, table.img, strict=True)]

    def batches(self, model: keras.Model) -> Batches:
        """Build the training batches for the outputs of ``model``."""
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
            marks=self.job.frames.marks,
        )

    @cached_property
    def _split(self) -> tuple[np.ndarray, np.ndarray]:
        return folding.split(self.cache.table, self.job.folds, self.job.fold.number)


def main_stage(job: FoldJob) -> Stage:
    """Build the stage at the working size.

    The fold of all subjects is trained for the median epoch count of the finished folds.
    """
    settings = _main_settings(job.settings)
    if job.fold.number == ALL:
        settings = without_scores(settings, _usual_epochs(job.fold.run, settings))
    return Stage(job, job.fold.label, job.fold.folder, settings, job.frames.cache, job.deadline, True)


def warm_stage(job: FoldJob, now: float) -> Stage | None:
    """Build the warm stage, at ``training.warm_size``; None if that is unset.

    It gets ``training.warm_share`` of the time left at ``now``.
    """
    if job.frames.warm is None:
        return None
    settings, share = warm_settings(job.settings), job.settings.training.warm_share
    label = f"{job.fold.label} at {settings.size[0]}x{settings.size[1]}"
    deadline = None if job.deadline is None else now + share * (job.deadline - now)
    return Stage(job, label, job.fold.folder / WARM, settings, job.frames.warm, deadline, False)


def warm_settings(settings: Settings) -> Settings:
    """Return the settings of the warm stage: its size and epochs, no patience, and the last weights.

    The loss's smoothing pixels are scaled with the area.
    """
    height, width = settings.training.warm_size
    area = height * width / (settings.size[0] * settings.size[1])
    training = dataclasses.replace(
        settings.training, epochs=_warm_epochs(settings), patience=0, average="best"
    )
    loss = dataclasses.replace(settings.loss, smooth=settings.loss.smooth * area)
    return dataclasses.replace(settings, size=(height, width), training=training, loss=loss)


def without_scores(settings: Settings, epochs: int) -> Settings:
    """Return settings for ``epochs`` unscored epochs: no patience, and no schedule ``plateau`` (``cosine`` instead).

    ``average=top`` becomes ``best``, which without scores keeps the last weights.
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
    """Return the settings of the stage at the working size, without the warm stage's epochs."""
    epochs = max(1, settings.training.epochs - _warm_epochs(settings))
    return dataclasses.replace(settings, training=dataclasses.replace(settings.training, epochs=epochs))


def _warm_epochs(settings: Settings) -> int:
    training = settings.training
    return max(1, round(training.epochs * training.warm_share)) if any(training.warm_size) else 0


def _usual_epochs(run: Run, settings: Settings) -> int:
    """Return the finished folds' median epoch count, or their median best epoch with ``average=best``.

    Return ``training.epochs`` if none is finished.
    """
    facts = [fold.require_facts() for fold in run.finished_folds()]
    best = settings.training.average == "best"
    epochs = [fold.best_epoch if best else fold.epochs for fold in facts]
    return max(1, round(median(epochs))) if epochs else settings.training.epochs
