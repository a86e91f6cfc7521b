"""The steps of one epoch: batches made ahead in threads, one compiled step after another; and how long they take.

A loop of its own rather than ``fit``: on the JAX backend ``fit`` keeps the optimiser's state outside
its variables between steps, so that a learning rate set there is lost, and ``fit`` makes batches in
one thread only.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import keras
import numpy as np

from kaggle_nerve.data.batches import Batches
from kaggle_nerve.prediction.forward import probabilities
from kaggle_nerve.prediction.views import VIEWS
from kaggle_nerve.settings import Settings
from kaggle_nerve.training import averaging

THREADS = min(4, os.cpu_count() or 1)
AHEAD = 2 * THREADS
"""Batches that lie ready, or are being made, while a step runs."""

MEASURED = 3
"""Steps that are timed before a stage begins."""

FULL_SIZE_SECONDS = 0.002
"""Resizing and scoring one held-out frame at full resolution, about."""


def prefetched(batches: Batches, count: int) -> Iterator[tuple]:
    """The first ``count`` batches in their order, each made in some thread before it is asked for.

    What a batch holds follows from its number alone, so threads change nothing about it.
    """
    waiting: deque[Future] = deque()
    pool = ThreadPoolExecutor(THREADS)
    try:
        for index in range(count):
            waiting.append(pool.submit(batches.__getitem__, index))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def run_steps(
    model: keras.Model,
    batches: Batches,
    count: int,
    rate: Callable[[], float | None],
    after: Callable[[], bool],
) -> float:
    """Train on the first ``count`` batches; returns the mean loss.

    ``rate`` gives each step's learning rate (None leaves it); ``after`` is called after each step and
    ends the epoch by being true.
    """
    total, done = 0.0, 0
    for batch in prefetched(batches, count):
        value = rate()
        if value is not None:
            model.optimizer.learning_rate = value
        model.reset_metrics()  # Keras before 3.15 would give the mean loss of all steps so far
        # A batch is (frames, targets) or (frames, targets, weights of the frames).
        total += float(model.train_on_batch(*batch, return_dict=True)["loss"])
        done += 1
        if after():
            break
    return total / done


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
    """How fast a stage will go: take a few steps and forward passes, then put every variable back.

    The compilation that this pays for is not lost: training uses the same compiled step.
    """
    variables = [*model.variables, *model.optimizer.variables]
    before = [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]
    count = min(MEASURED, len(batches))
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
