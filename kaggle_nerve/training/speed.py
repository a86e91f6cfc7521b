"""How fast a fold will go, measured before it starts and without leaving a trace in its weights."""

import time
from dataclasses import dataclass

import keras
import numpy as np

from kaggle_nerve.data.batches import Batches
from kaggle_nerve.models.forward import probabilities
from kaggle_nerve.models.views import VIEWS
from kaggle_nerve.settings import Settings
from kaggle_nerve.training import averaging
from kaggle_nerve.training.steps import run_steps

STEPS = 3
FULL_SIZE_SECONDS = 0.002
"""Resizing and scoring one held-out frame at full resolution, about."""


@dataclass(frozen=True)
class Speed:
    """Seconds of one training step, one validation, and the out-of-fold prediction with what follows."""

    step: float
    validation: float
    finish: float

    def epoch(self, steps: int) -> float:
        """Seconds of an epoch of ``steps`` steps with its validation."""
        return steps * self.step + self.validation


def measure(model: keras.Model, batches: Batches, held: np.ndarray, settings: Settings) -> Speed:
    """Take a few steps and forward passes, then put every variable back.

    The compilation that this pays for is not lost: training uses the same compiled step.
    """
    variables = [*model.variables, *model.optimizer.variables]
    before = [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]
    count = min(STEPS, len(batches))
    _steps(model, batches, 1)
    started = time.perf_counter()
    _steps(model, batches, count)
    step = (time.perf_counter() - started) / count
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)

    if not len(held):
        return Speed(step, 0.0, 5.0 + averaging.STATISTICS_BATCHES * step)
    batch = settings.prediction.batch
    few = held[: 2 * batch]
    list(probabilities(model, few[:batch], batch=batch, tta="none"))
    started = time.perf_counter()
    list(probabilities(model, few, batch=batch, tta="none"))
    frame = (time.perf_counter() - started) / len(few)
    validation = len(held) * (frame + FULL_SIZE_SECONDS)
    finish = len(held) * frame * len(VIEWS[settings.prediction.tta]) + 5.0
    if settings.training.average in averaging.MEANS:
        # Their statistics are measured without the compiled step, so that a pass costs as much as a step.
        finish += averaging.STATISTICS_BATCHES * step
    return Speed(step, validation, finish)


def _steps(model: keras.Model, batches: Batches, count: int) -> None:
    run_steps(model, batches, count, rate=lambda: None, after=lambda: False)
