"""How fast a fold will go, measured before it starts and without leaving a trace in its weights."""

import time
from dataclasses import dataclass

import keras
import numpy as np

from kaggle_nerve.data.batches import Batches
from kaggle_nerve.models.forward import probabilities
from kaggle_nerve.settings import Settings

STEPS = 3
FULL_SIZE_SECONDS = 0.002
"""Resizing and scoring one held-out frame at full resolution, about."""


class _First(keras.utils.PyDataset):
    """The first batches of an epoch, fed to the same compiled step as a whole epoch."""

    def __init__(self, batches: Batches, count: int):
        super().__init__(workers=1)
        self.batches, self.count = batches, min(count, len(batches))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int):
        return self.batches[index]


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
    before = [np.array(variable) for variable in variables]
    few_batches = _First(batches, STEPS)
    model.fit(_First(batches, 1), verbose=0, shuffle=False)
    started = time.perf_counter()
    model.fit(few_batches, verbose=0, shuffle=False)
    step = (time.perf_counter() - started) / len(few_batches)
    for variable, value in zip(variables, before, strict=True):
        variable.assign(value)

    batch = settings.prediction.batch
    few = held[: 2 * batch]
    list(probabilities(model, few[:batch], batch=batch, tta="none"))
    started = time.perf_counter()
    list(probabilities(model, few, batch=batch, tta="none"))
    frame = (time.perf_counter() - started) / len(few)
    views = 2 if settings.prediction.tta == "hflip" else 1
    validation = len(held) * (frame + FULL_SIZE_SECONDS)
    return Speed(step, validation, len(held) * frame * views + 5.0)
