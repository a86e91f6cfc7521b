"""Take training steps on an accelerator without waiting for the processor: the counterpart of `steps.HostSteps`.

All frames and masks lie on the device as uint8. One call takes several steps: each gathers its frames, augments them,
and trains, all within one compiled loop. Only row numbers, the draws of the augmentation and learning rates
are sent, and the loss is read once an epoch.
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import ops

from kaggle_nerve import devices
from kaggle_nerve.data.batches import Batches, prefetch
from kaggle_nerve.data.device_augment import augment_batch
from kaggle_nerve.settings import TrainingSettings
from kaggle_nerve.training import device_loops
from kaggle_nerve.training.steps import HostSteps, Steps

MOST_STEPS = 32
"""Maximum steps in a call."""

FIRST_STEPS = 4
"""Maximum steps in a call until the speed is known."""

CALL_SECONDS = 1.0
"""Approximate seconds of a call, so that a time budget and the progress bar stay precise."""

MOST_BYTES = 4 * 2**30
"""Maximum bytes of frames and masks on the device: a quarter of the memory of Kaggle's GPUs."""


def steps_for(model: keras.Model, batches: Batches, settings: TrainingSettings) -> Steps:
    """Choose where to augment: on an accelerator if there is one and its memory suffices, else on the processor."""
    place = settings.augment_on
    if place == "auto":
        fits = batches.frames.nbytes + batches.masks.nbytes <= MOST_BYTES
        place = "device" if devices.is_accelerated() and fits else "host"
    return DeviceSteps(model, batches) if place == "device" else HostSteps(model, batches)


class DeviceSteps:
    """Take steps in calls of up to `MOST_STEPS`; one call is started while the one before it is computed."""

    def __init__(self, model: keras.Model, batches: Batches):
        self.model, self.batches = model, batches
        arrays = {"frames": batches.frames, "masks": batches.masks, "presence": batches.presence}
        if batches.marks.weights is not None:
            arrays["weights"] = batches.marks.weights.astype(np.float32)
        self._arrays = {name: ops.convert_to_tensor(np.asarray(values)) for name, values in arrays.items()}
        self._loop = device_loops.build(model, self._batch)
        # The first run compiles, and says nothing about the speed.
        self._size, self._is_compiled = FIRST_STEPS, False

    def run(
        self, count: int, next_rate: Callable[[], float | None], after_steps: Callable[[int], bool]
    ) -> float:
        """Do as `Steps.run` says."""
        started = time.perf_counter()
        losses: list[tuple[int, float]] = []

        def finish(steps: int, loss: Any) -> bool:
            losses.append((steps, float(ops.convert_to_numpy(loss))))
            return after_steps(steps)

        with self._loop.session():
            earlier = None
            for call in self._calls(count, next_rate):
                is_over = earlier is not None and finish(*earlier)
                earlier = call
                if is_over:
                    break
            if earlier is not None:
                finish(*earlier)
        total = sum(steps for steps, _ in losses)
        if self._is_compiled:
            step_seconds = (time.perf_counter() - started) / total
            self._size = int(np.clip(CALL_SECONDS / step_seconds, 1, MOST_STEPS))
        self._is_compiled = True
        return sum(steps * loss for steps, loss in losses) / total

    def _calls(self, count: int, next_rate: Callable[[], float | None]) -> Iterator[tuple[int, Any]]:
        """Start calls, ``count`` steps in all; yield each one's steps and its loss, perhaps not ready."""
        usual = float(ops.convert_to_numpy(self.model.optimizer.learning_rate))
        size = self._size
        sizes = [min(size, count - first) for first in range(0, count, size)]
        feeds = prefetch(lambda call: self._feed(call * size, sizes[call]), len(sizes))
        for steps, feed in zip(sizes, feeds, strict=True):
            rates = np.full(MOST_STEPS, usual, np.float32)
            for place in range(steps):
                rate = next_rate()
                if rate is not None:
                    rates[place] = rate
            yield steps, self._loop.call(self._arrays, feed, rates, steps)

    def _feed(self, first: int, count: int) -> dict[str, np.ndarray]:
        """Prepare what ``count`` steps from number ``first`` need, padded to `MOST_STEPS`: shapes never change."""
        steps = [self._prepare(first + place) for place in range(count)]
        steps += [steps[0]] * (MOST_STEPS - count)
        return {name: np.stack([step[name] for step in steps]) for name in steps[0]}

    def _prepare(self, index: int) -> dict[str, np.ndarray]:
        batches = self.batches
        step = {"rows": batches.batch_rows(index).astype(np.int32)}
        if batches.ranges is not None:
            seed = np.random.SeedSequence((batches.seed, 3, batches.epoch, index))
            step |= batches.draws(index) | {"seed": seed.generate_state(2)}
        return step

    def _batch(self, arrays: dict[str, Any], step: dict[str, Any]) -> tuple[Any, Any, Any]:
        """Gather and augment the batch of a step, on the device."""
        batches, rows = self.batches, step["rows"]
        frames, masks = (ops.take(arrays[name], rows, axis=0) for name in ("frames", "masks"))
        if batches.ranges is not None:
            normal = device_loops.normal(frames.shape, step["seed"]) if "noise" in step else None
            frames, masks = augment_batch(frames, masks, step, normal)
        frames, masks = (ops.cast(values, "float32")[..., None] for values in (frames, masks))
        masks = masks / 255
        presence = ops.take(arrays["presence"], rows)[:, None]
        targets = {name: presence if name == "presence" else masks for name in batches.outputs}
        if "weights" not in arrays:
            return frames, targets, None
        return frames, targets, dict.fromkeys(batches.outputs, ops.take(arrays["weights"], rows))
