"""Training batches for Keras: sampled and augmented frames, reproducible from a seed."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import keras
import numpy as np

from kaggle_nerve.data.augment import augment, draw
from kaggle_nerve.data.device_augment import Draws, stack
from kaggle_nerve.data.doubted import Marks
from kaggle_nerve.data.sampling import arrange_batches, draw_rows, most_batches
from kaggle_nerve.errors import NerveError
from kaggle_nerve.settings import AugmentationSettings

THREADS = min(4, os.cpu_count() or 1)
AHEAD = 2 * THREADS
"""Batches that are ready or in preparation while a step runs."""

T = TypeVar("T")


def prefetch(prepare: Callable[[int], T], count: int) -> Iterator[T]:
    """Yield ``prepare(0)`` to ``prepare(count - 1)`` in order, prepared ahead in threads.

    A batch depends on its number alone, so threads do not change it.
    """
    waiting: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(THREADS)
    try:
        for index in range(count):
            waiting.append(pool.submit(prepare, index))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


class Batches(keras.utils.PyDataset):
    """Batches of one epoch at a time; `start_epoch` selects the epoch.

    A batch is ``(frames, targets)`` with float32 frames (batch, height, width, 1) from 0 to 255. The target
    ``presence`` is (batch, 1), 0 or 1 (in between for a softened doubted label); every other target is the
    masks, in the frames' shape, from 0 to 1. If labels are weighted, a third item has the frames' weights for
    each output, float32 (batch,). Everything random depends on (seed, epoch, position) only, so a resumed run
    gets the same batches as an uninterrupted one, regardless of the thread that prepares a batch.
    """

    def __init__(
        self,
        frames: np.ndarray,
        masks: np.ndarray,
        has_mask: np.ndarray,
        rows: np.ndarray,
        *,
        batch: int,
        seed: int,
        ranges: AugmentationSettings | None,
        outputs: tuple[str, ...] = ("mask", "presence"),
        subjects: np.ndarray | None = None,
        marks: Marks | None = None,
    ):
        """Prepare batches of ``rows`` of ``frames`` and ``masks``, uint8 (n, height, width).

        ``ranges`` None: no augmentation. ``outputs`` are the network's. With ``subjects`` (n,), a batch has at
        most one frame per subject; raise NerveError if there are fewer subjects than ``batch``. ``marks``
        holds the loss weights and presence targets of frames with doubted labels.
        """
        super().__init__(workers=1)
        self.frames, self.masks, self.has_mask, self.rows = frames, masks, has_mask, rows
        self.batch, self.seed, self.ranges = min(batch, len(rows)), seed, ranges
        self.outputs, self.marks = outputs, marks or Marks()
        presence = has_mask if self.marks.presence is None else self.marks.presence
        self.presence = presence.astype(np.float32)
        self.epoch, self.order = 0, rows
        self.natural_rate = float(has_mask[rows].mean())
        self.one_per_subject = subjects is not None
        self._groups = np.zeros(len(frames), int)
        # Drop the last, smaller batch: each epoch drops other frames, and a single shape compiles only once.
        self._count = len(rows) // self.batch
        if subjects is not None:
            self._groups = np.unique(subjects, return_inverse=True)[1]
            self._count = self._most_batches()
        self.start_epoch(0)

    def start_epoch(self, epoch: int, positive_rate: float | None = None) -> None:
        """Draw the order of ``epoch``; ``positive_rate`` is its share of frames with a mask (None: natural).

        With one frame per subject in a batch, there may be too few frames with a mask for a high rate; the rate
        is then as high as possible.
        """
        self.epoch = epoch
        random = np.random.default_rng((self.seed, 1, epoch))
        total = self._count * self.batch if self.one_per_subject else len(self.rows)
        steps = [(self.rows, total)]
        if positive_rate is not None and self.natural_rate not in (0, 1):
            present = self.has_mask[self.rows]
            positive, negative = self.rows[present], self.rows[~present]
            steps = [(positive, round(total * positive_rate)), (negative, total), (positive, total)]
        rows = draw_rows(random, steps, self._groups, room=self._count if self.one_per_subject else total)
        self.order = (
            arrange_batches(random, rows, self._groups, self.batch)
            if self.one_per_subject
            else random.permutation(rows)
        )

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        rows = self.batch_rows(index)
        frames = np.empty((len(rows), *self.frames.shape[1:], 1), np.float32)
        masks = np.empty_like(frames)
        for place, row in enumerate(rows):
            frame, mask = self.frames[row], self.masks[row]
            if self.ranges is not None:
                frame, mask = augment(frame, mask, self._random(index, place), self.ranges)
            frames[place, ..., 0], masks[place, ..., 0] = frame, mask
        masks /= 255
        presence = self.presence[rows][:, None]
        targets = {name: presence if name == "presence" else masks for name in self.outputs}
        if self.marks.weights is None:
            return frames, targets
        return frames, targets, dict.fromkeys(self.outputs, self.marks.weights[rows])

    def batch_rows(self, index: int) -> np.ndarray:
        """Return the rows of the frames in batch ``index``."""
        return self.order[index * self.batch : (index + 1) * self.batch]

    def draws(self, index: int) -> Draws:
        """Draw the augmentation of batch ``index`` without applying it: the same as in the batch."""
        assert self.ranges is not None
        shape = self.frames.shape[1:]
        draws = [draw(shape, self._random(index, place), self.ranges) for place in range(self.batch)]
        return stack(draws, sharpen=self.ranges.sharpness > 0, noise=self.ranges.noise > 0)

    def _random(self, index: int, place: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, 2, self.epoch, index * self.batch + place))

    def _most_batches(self) -> int:
        counts = np.bincount(self._groups[self.rows])
        require_subjects(int(np.count_nonzero(counts)), self.batch)
        return most_batches(counts, self.batch)


def require_subjects(subjects: int, batch: int) -> None:
    """Raise NerveError if ``subjects`` are too few for a batch with at most one frame of each."""
    if subjects < batch:
        raise NerveError(
            f"training.batch={batch} is more than the {subjects} subjects to train on, and "
            f"training.one_per_subject is set; set training.batch={subjects} or less."
        )
