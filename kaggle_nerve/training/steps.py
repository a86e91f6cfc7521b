"""Run the training steps of one epoch, with batches prefetched in threads, and measure their speed.

`HostSteps` is for processors; `device_steps` has the counterpart for accelerators.

This loop replaces ``fit``: on the JAX backend, ``fit`` keeps the optimiser's state outside its
variables between steps, so that a learning rate set there is lost, and ``fit`` prepares batches in one
thread only.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import keras
import numpy as np

from kaggle_nerve.data.batches import Batches, prefetch
from kaggle_nerve.prediction.forward import probabilities
from kaggle_nerve.prediction.views import VIEWS
from kaggle_nerve.settings import Settings
from kaggle_nerve.training import averaging

MEASURED_STEPS = 3
"""Steps to time before a stage begins."""

FULL_SIZE_SECONDS = 0.002
"""Approximate seconds to resize and score one held-out frame at full resolution."""

SAVE_SECONDS = 5.0
"""Seconds reserved for building the final model and writing it and its predictions, which are not measured."""


class Steps(Protocol):
    """Take training steps of a model."""

    batches: Batches

    def run(
        self, count: int, next_rate: Callable[[], float | None], after_steps: Callable[[int], bool]
    ) -> float:
        """Train on the first ``count`` batches of the epoch; return the mean loss.

        ``next_rate`` returns each step's learning rate (None: unchanged). ``after_steps`` is called after one or
        several steps, with their number, and ends the epoch by returning True.
        """
        ...


class HostSteps:
    """Take steps one by one, with batches that threads of the processor augment meanwhile."""

    def __init__(self, model: keras.Model, batches: Batches):
        self.model, self.batches = model, batches

    def run(
        self, count: int, next_rate: Callable[[], float | None], after_steps: Callable[[int], bool]
    ) -> float:
        """Do as `Steps.run` says."""
        total, count_done = 0.0, 0
        for batch in prefetch(self.batches.__getitem__, count):
            rate = next_rate()
            if rate is not None:
                self.model.optimizer.learning_rate = rate
            self.model.reset_metrics()  # Keras before 3.15 would return the mean loss of all steps so far
            # A batch is (frames, targets) or (frames, targets, weights of the frames).
            total += float(self.model.train_on_batch(*batch, return_dict=True)["loss"])
            count_done += 1
            if after_steps(1):
                break
        return total / count_done


@dataclass(frozen=True)
class Speed:
    """Seconds of one training step, of one validation, and of the work after the last epoch."""

    step: float
    validation: float
    finish: float

    def epoch(self, steps: int) -> float:
        """Return the seconds of an epoch of ``steps`` steps with its validation."""
        return steps * self.step + self.validation


def measure(model: keras.Model, steps: Steps, held_frames: np.ndarray, settings: Settings) -> Speed:
    """Time a few steps, restore every variable, then time forward passes.

    The time spent on compilation is not lost: training uses the same compiled step.
    """
    variables = [*model.variables, *model.optimizer.variables]
    before = [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]
    count = min(MEASURED_STEPS, len(steps.batches))
    _take(steps, 1)
    started = time.perf_counter()
    _take(steps, count)
    step_seconds = (time.perf_counter() - started) / count
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)

    if not len(held_frames):
        return Speed(step_seconds, 0.0, SAVE_SECONDS + averaging.STATISTICS_BATCHES * step_seconds)
    batch = settings.prediction.batch
    subset = held_frames[: 2 * batch]
    list(probabilities(model, subset[:batch], batch=batch, tta="none"))
    started = time.perf_counter()
    list(probabilities(model, subset, batch=batch, tta="none"))
    frame_seconds = (time.perf_counter() - started) / len(subset)
    validation_seconds = len(held_frames) * (frame_seconds + FULL_SIZE_SECONDS)
    finish_seconds = len(held_frames) * frame_seconds * len(VIEWS[settings.prediction.tta]) + SAVE_SECONDS
    if settings.training.average in averaging.MEANS:
        # Batch-norm statistics are recomputed without the compiled step, so a pass takes as long as a step.
        finish_seconds += averaging.STATISTICS_BATCHES * step_seconds
    return Speed(step_seconds, validation_seconds, finish_seconds)


def _take(steps: Steps, count: int) -> None:
    steps.run(count, next_rate=lambda: None, after_steps=lambda number: False)
