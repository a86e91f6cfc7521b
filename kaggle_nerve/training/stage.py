"""Stages of a fold: the same network trained at one size, by itself resumable.

A fold has one stage, or two: a short one at ``training.warm_size``, where a frame costs less, before
the one at the working size (progressive resizing).
"""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from kaggle_nerve.data.batches import Batches
from kaggle_nerve.data.cache import Cache
from kaggle_nerve.data.fullsize import Truths
from kaggle_nerve.data.noise import Marks
from kaggle_nerve.progress import Reporter
from kaggle_nerve.settings import Settings
from kaggle_nerve.training.checkpoint import State
from kaggle_nerve.training.epochs import Clock, Epochs
from kaggle_nerve.training.overlays import Held
from kaggle_nerve.training.speed import Speed, measure

RESERVE = 1.1
"""Factor on the measured time of what follows the last epoch, kept free of a time budget."""


@dataclass(frozen=True)
class Stage:
    """What is trained on, and where it is told and stored. ``rows`` and ``held``: rows of the cache.

    ``deadline`` (of ``time.monotonic``, None: none) counts what follows the last epoch where ``last``.
    """

    label: str
    folder: Path
    settings: Settings
    cache: Cache
    rows: np.ndarray
    held: np.ndarray
    seed: int
    noise: Marks | None
    deadline: float | None
    last: bool
    reporter: Reporter

    def truths(self) -> Truths:
        """The true masks of the held-out frames."""
        return Truths(list(self.cache.table.pixels.iloc[self.held]))

    def names(self) -> list[str]:
        """What the held-out frames are called: ``subject_img``."""
        table = self.cache.table.iloc[self.held]
        return [f"{subject}_{img}" for subject, img in zip(table.subject, table.img, strict=True)]

    def batches(self, model: keras.Model) -> Batches:
        """The training batches that ``model`` wants."""
        settings, table = self.settings, self.cache.table
        assert self.cache.masks is not None  # it is a cache of training frames
        return Batches(
            self.cache.frames,
            self.cache.masks,
            table.has_mask.to_numpy(),
            self.rows,
            batch=settings.training.batch,
            seed=self.seed,
            ranges=settings.augmentation,
            outputs=tuple(model.output),
            subjects=table.subject.to_numpy() if settings.training.one_per_subject else None,
            noise=self.noise,
        )


def warm_settings(settings: Settings) -> Settings:
    """The settings of the stage at ``training.warm_size``: the smoothing pixels shrink with the area."""
    height, width = settings.training.warm_size
    area = height * width / (settings.size[0] * settings.size[1])
    training = dataclasses.replace(
        settings.training, epochs=_warm_epochs(settings), patience=0, average="best"
    )
    loss = dataclasses.replace(settings.loss, smooth=settings.loss.smooth * area)
    return dataclasses.replace(settings, size=(height, width), training=training, loss=loss)


def full_settings(settings: Settings) -> Settings:
    """The settings of the stage at the working size: the epochs that the warm one leaves."""
    epochs = max(1, settings.training.epochs - _warm_epochs(settings))
    return dataclasses.replace(settings, training=dataclasses.replace(settings.training, epochs=epochs))


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


def train(stage: Stage, model: keras.Model, state: State, stop: Callable[[], bool]) -> None:
    """Train ``model`` from ``state`` on; both say afterwards how far it came."""
    if state.ended(stage.settings):
        return
    batches, frames = stage.batches(model), stage.cache.frames[stage.held]
    speed = measure(model, batches, frames, stage.settings)
    _announce(stage, speed, len(batches), state)
    clock = Clock(stage.deadline, speed.step, speed.validation)
    if stage.deadline is not None and stage.last:
        clock.deadline = stage.deadline - RESERVE * (speed.finish + speed.validation)
    total = (stage.settings.training.epochs - state.epoch) * len(batches)
    with stage.reporter.bar(stage.label, total, "step") as bar:
        held = Held(frames, stage.truths(), stage.names())
        Epochs(stage.folder, model, state, stage.settings, batches, held, clock, bar).run(stop)


def _warm_epochs(settings: Settings) -> int:
    training = settings.training
    return max(1, round(training.epochs * training.warm_share)) if any(training.warm_size) else 0


def _announce(stage: Stage, speed: Speed, steps: int, state: State) -> None:
    epochs = stage.settings.training.epochs - state.epoch
    seconds = epochs * speed.epoch(steps)
    again = f", going on after epoch {state.epoch}" if state.epoch else ""
    fits = ""
    if stage.deadline is not None:
        left = stage.deadline - time.monotonic()
        fitting = max(0.0, min(epochs, (left - speed.finish) / speed.epoch(steps)))
        fits = f"; the {max(0.0, left) / 60:.1f} min left of the time budget hold about {fitting:.1f} epochs"
    stage.reporter.say(
        f"{stage.label}{again}: {speed.step * 1000:.0f} ms a step, {epochs} epochs of {steps} steps would take "
        f"about {seconds / 60:.1f} min{fits}"
    )
