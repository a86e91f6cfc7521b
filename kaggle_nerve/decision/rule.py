"""Rules that turn what was measured on frames into a cut per frame: the level from which pixels are masked."""

from dataclasses import dataclass

import numpy as np

from kaggle_nerve.decision.calibration import Calibration
from kaggle_nerve.decision.evidence import Evidence
from kaggle_nerve.maps import levels


@dataclass(frozen=True)
class Thresholds:
    """Fixed thresholds: the triplet rule of the SIIM-ACR pneumothorax winners, and the plain one.

    A frame keeps its mask where its presence is at least ``presence`` and at least ``area`` pixels reach
    the probability ``confident``; its mask are then the pixels that reach ``threshold``. The plain rule
    has ``confident`` equal to ``threshold``.
    """

    threshold: float = 0.5
    area: int = 0
    presence: float = 0.0
    confident: float | None = None

    def outlines(self, evidence: Evidence) -> np.ndarray:
        """The cut of each frame if none were empty, int (n,)."""
        return np.full(len(evidence), levels.cut(self.threshold))

    def kept(self, evidence: Evidence, presence: np.ndarray) -> np.ndarray:
        """Which frames keep their mask, bool (n,); ``presence``: P(mask not empty) (n,)."""
        confident = self.threshold if self.confident is None else self.confident
        area = evidence.reached[:, levels.cut(confident)]
        return (area >= max(self.area, 1)) & (presence >= self.presence)


@dataclass(frozen=True)
class ExpectedDice:
    """The mask with the largest expected Dice, kept where the expected score of keeping it is the larger.

    ``pixels`` calibrates a pixel's probability given that there is a mask. Of all masks of k pixels the
    one of the k likeliest has the largest expected overlap, and k is where 2 sum(p[:k]) / (k + sum(p))
    is largest: one cumulative sum (the plug-in rule of Dembczynski et al., ICML 2013, "Optimizing the
    F-measure in multi-label classification"). ``quality`` turns that ratio into the Dice d to be
    expected, since pixels are far from independent. An empty mask scores P(empty), the mask
    d P(present): it is kept where presence > 1 / (1 + d).
    """

    pixels: Calibration
    quality: Calibration

    def outlines(self, evidence: Evidence) -> np.ndarray:
        """The cut of each frame if none were empty, int (n,)."""
        return best_cuts(evidence.reached, self.pixels)[0]

    def kept(self, evidence: Evidence, presence: np.ndarray) -> np.ndarray:
        """Which frames keep their mask, bool (n,); ``presence``: P(mask not empty) (n,)."""
        cuts, ratio = best_cuts(evidence.reached, self.pixels)
        area = np.take_along_axis(evidence.reached, cuts[:, None], axis=1)[:, 0]
        return (area > 0) & (presence * (1 + self.quality(ratio)) > 1)


Rule = Thresholds | ExpectedDice


def best_cuts(reached: np.ndarray, pixels: Calibration) -> tuple[np.ndarray, np.ndarray]:
    """The cut (n,) with the largest expected Dice of each frame, and that Dice (n,) for independent pixels.

    ``reached``: pixels that reach each cut, (n, 257).
    """
    meant = pixels(levels.probability(np.arange(levels.COUNT)))
    counts = reached[:, :-1] - reached[:, 1:]
    # Level 0 can hold most of the frame: it counts in the sum, and is never taken into a mask.
    expected = np.cumsum((counts * meant)[:, ::-1], axis=1)[:, ::-1]
    ratios = 2 * expected[:, 1:] / np.maximum(reached[:, 1:-1] + expected[:, :1], 1e-9)
    # Of equal ones the highest cut: the smallest mask.
    cuts = ratios.shape[1] - ratios[:, ::-1].argmax(axis=1)
    return cuts, ratios[np.arange(len(cuts)), cuts - 1]
