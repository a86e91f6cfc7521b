"""Rules that turn the evidence into a cut per frame: the lowest level of its mask pixels."""

from dataclasses import dataclass

import numpy as np

from kaggle_nerve.decision.calibration import Calibration
from kaggle_nerve.decision.evidence import Evidence
from kaggle_nerve.maps import levels


@dataclass(frozen=True)
class Thresholds:
    """Fixed thresholds: the triplet rule of the SIIM-ACR pneumothorax winners, and the plain one.

    A frame keeps its mask if its presence is at least ``presence`` and at least ``area`` pixels reach the
    probability ``confident``; its mask then consists of the pixels that reach ``threshold``. In the plain
    rule, ``confident`` equals ``threshold``.
    """

    threshold: float = 0.5
    area: int = 0
    presence: float = 0.0
    confident: float | None = None

    def kept_cuts(self, evidence: Evidence) -> np.ndarray:
        """Return the cut of each frame if all kept their masks, int (n,)."""
        return np.full(len(evidence), levels.cut(self.threshold))

    def keeps_mask(self, evidence: Evidence, presence: np.ndarray) -> np.ndarray:
        """Return whether each frame keeps its mask, bool (n,); ``presence``: P(mask not empty) (n,)."""
        confident = self.threshold if self.confident is None else self.confident
        area = evidence.cut_areas[:, levels.cut(confident)]
        return (area >= max(self.area, 1)) & (presence >= self.presence)


@dataclass(frozen=True)
class ExpectedDice:
    """The mask with the largest expected Dice, kept if its expected score is larger than that of an empty mask.

    ``pixels`` calibrates a pixel's probability given that there is a mask. Of all masks of k pixels, that
    of the k most likely ones has the largest expected overlap; k maximises 2 sum(p[:k]) / (k + sum(p)),
    found by one cumulative sum (the plug-in rule of Dembczynski et al., ICML 2013, "Optimizing the
    F-measure in multi-label classification"). ``quality`` maps that ratio to the expected Dice d, since
    pixels are far from independent. An empty mask scores P(empty) on average, the mask d * P(present); so
    keep the mask if presence > 1 / (1 + d).
    """

    pixels: Calibration
    quality: Calibration

    def kept_cuts(self, evidence: Evidence) -> np.ndarray:
        """Return the cut of each frame if all kept their masks, int (n,)."""
        return best_cuts(evidence.cut_areas, self.pixels)[0]

    def keeps_mask(self, evidence: Evidence, presence: np.ndarray) -> np.ndarray:
        """Return whether each frame keeps its mask, bool (n,); ``presence``: P(mask not empty) (n,)."""
        cuts, ratio = best_cuts(evidence.cut_areas, self.pixels)
        area = np.take_along_axis(evidence.cut_areas, cuts[:, None], axis=1)[:, 0]
        return (area > 0) & (presence * (1 + self.quality(ratio)) > 1)


Rule = Thresholds | ExpectedDice


def best_cuts(cut_areas: np.ndarray, pixels: Calibration) -> tuple[np.ndarray, np.ndarray]:
    """Find each frame's cut (n,) with the largest expected Dice, and that Dice (n,) for independent pixels.

    ``cut_areas``: pixels that reach each cut, (n, 257).
    """
    calibrated = pixels(levels.probability(np.arange(levels.COUNT)))
    counts = cut_areas[:, :-1] - cut_areas[:, 1:]
    # Level 0 can hold most of the frame: it counts in the sum, but is never part of a mask.
    expected = np.cumsum((counts * calibrated)[:, ::-1], axis=1)[:, ::-1]
    ratios = 2 * expected[:, 1:] / np.maximum(cut_areas[:, 1:-1] + expected[:, :1], 1e-9)
    # Of equal ones, take the highest cut: the smallest mask.
    cuts = ratios.shape[1] - ratios[:, ::-1].argmax(axis=1)
    return cuts, ratios[np.arange(len(cuts)), cuts - 1]
