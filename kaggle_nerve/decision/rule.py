"""The rule that turns a frame's probabilities into its mask."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Rule:
    """Three thresholds.

    A pixel is in the mask where its probability is at least ``threshold``; the mask is kept where it
    has at least ``area`` pixels at full resolution and the presence is at least ``presence``.
    """

    threshold: float = 0.5
    area: int = 0
    presence: float = 0.0

    def mask(self, probability: np.ndarray, presence: float) -> np.ndarray | None:
        """The mask (bool, same shape as ``probability``), or None where the frame is called empty."""
        if presence < self.presence:
            return None
        mask = probability >= np.float32(self.threshold)
        area = int(np.count_nonzero(mask))
        return mask if area >= max(self.area, 1) else None
