"""Training batches for Keras: which frames an epoch shows, changed at random, the same for a seed."""

import keras
import numpy as np

from kaggle_nerve.data.augment import augment
from kaggle_nerve.settings import AugmentationSettings


class Batches(keras.utils.PyDataset):
    """Batches of one epoch at a time; `start_epoch` chooses it.

    A batch is ``(frames, {"mask": masks, "presence": present})``: float32 frames
    (batch, height, width, 1) from 0 to 255, masks of the same shape from 0 to 1, and present
    (batch, 1) 0 or 1. Everything random follows from (seed, epoch, position), so a resumed run sees
    what an undisturbed one would have seen, in whatever thread a batch is made.
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
        presence: bool = True,
    ):
        """``frames`` and ``masks`` are uint8 (n, height, width); ``rows`` those to train on.

        ``ranges`` None shows the frames as they are. ``presence`` False leaves that target out.
        """
        super().__init__(workers=1)
        self.frames, self.masks, self.has_mask, self.rows = frames, masks, has_mask, rows
        self.batch, self.seed, self.ranges, self.presence = min(batch, len(rows)), seed, ranges, presence
        self.epoch, self.order = 0, rows
        self.natural_rate = float(has_mask[rows].mean())
        self.start_epoch(0)

    def start_epoch(self, epoch: int, positive_rate: float | None = None) -> None:
        """Draw the order of ``epoch``; ``positive_rate`` is its share of frames with a mask (None: natural)."""
        self.epoch = epoch
        random = np.random.default_rng((self.seed, 1, epoch))
        if positive_rate is None or self.natural_rate in (0, 1):
            self.order = random.permutation(self.rows)
        else:
            self.order = self._drawn(random, positive_rate)

    def __len__(self) -> int:
        # The last, smaller batch is left out: another frame is left out in each epoch, and one shape compiles once.
        return len(self.rows) // self.batch

    def __getitem__(self, index: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        rows = self.order[index * self.batch : (index + 1) * self.batch]
        frames = np.empty((len(rows), *self.frames.shape[1:], 1), np.float32)
        masks = np.empty_like(frames)
        for place, row in enumerate(rows):
            frame, mask = self.frames[row], self.masks[row]
            if self.ranges is not None:
                random = np.random.default_rng((self.seed, 2, self.epoch, index * self.batch + place))
                frame, mask = augment(frame, mask, random, self.ranges)
            frames[place, ..., 0], masks[place, ..., 0] = frame, mask
        masks /= 255
        targets = {"mask": masks}
        if self.presence:
            targets["presence"] = self.has_mask[rows].astype(np.float32)[:, None]
        return frames, targets

    def _drawn(self, random: np.random.Generator, rate: float) -> np.ndarray:
        present = self.has_mask[self.rows]
        wanted = round(len(self.rows) * rate)
        chosen = [
            _take(random, self.rows[present], wanted),
            _take(random, self.rows[~present], len(self.rows) - wanted),
        ]
        return random.permutation(np.concatenate(chosen))


def _take(random: np.random.Generator, rows: np.ndarray, wanted: int) -> np.ndarray:
    """``wanted`` of ``rows``, each as often as any other, give or take one."""
    times, rest = divmod(wanted, len(rows))
    return np.concatenate([*[rows] * times, random.choice(rows, rest, replace=False)])
