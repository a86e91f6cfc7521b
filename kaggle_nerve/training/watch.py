"""Stops a run that no longer learns: NaN, all masks empty, all masks full."""

import math

from kaggle_nerve.errors import NerveError
from kaggle_nerve.training.validation import EpochScore


class CollapseError(NerveError):
    """The run has collapsed; the message says how, and what to change."""


class CollapseDetector:
    """Counts the epochs in a row in which every held-out mask was empty, or covered half the frame."""

    def __init__(self, epochs: int):
        self.epochs, self._empty, self._full = epochs, 0, 0

    def check(self, epoch: int, loss: float, score: EpochScore) -> None:
        """Look at one epoch; raises CollapseError."""
        if not math.isfinite(loss):
            raise CollapseError(
                f"The loss became {loss} in epoch {epoch}; lower optimiser.learning_rate or set "
                f"optimiser.clip_norm=1."
            )
        self._empty = self._empty + 1 if score.empty_share == 1 else 0
        self._full = self._full + 1 if score.full_share == 1 else 0
        if self._empty >= self.epochs:
            raise CollapseError(
                f"Every predicted mask has been empty for {self._empty} epochs (now {epoch}); start with more "
                f"frames that have a mask (training.positive_rate=0.8) or raise loss.bce."
            )
        if self._full >= self.epochs:
            raise CollapseError(
                f"Every predicted mask has covered half the frame or more for {self._full} epochs (now {epoch}); "
                f"raise loss.bce or lower optimiser.learning_rate."
            )
