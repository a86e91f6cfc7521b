"""Quantise probability maps to 256 levels. Rules use levels only, so learning and applying agree to the pixel.

A map at full size is rounded to levels 0 to 255. The result of a threshold on a frame then follows from
two histograms, and 4436 frames of 243,600 pixels become a table of nine megabytes.
"""

import math
from typing import overload

import cv2
import numpy as np

COUNT = 256
NOTHING = COUNT
"""Cut that no pixel reaches: the mask is empty."""


def quantise(probability: np.ndarray) -> np.ndarray:
    """Quantise a float32 map with values from 0 to 1 to levels, uint8."""
    return cv2.convertScaleAbs(probability, alpha=COUNT - 1)


def cut(threshold: float) -> int:
    """Return the lowest level that reaches a probability; at least 1, so that a mask is never the whole frame."""
    # Round first: 0.6 * 255 is 153.00000000000003 in floating point.
    return max(1, math.ceil(round(threshold * (COUNT - 1), 6)))


@overload
def probability(level: np.ndarray) -> np.ndarray: ...


@overload
def probability(level: float) -> float: ...


def probability(level):
    """Convert a level to its probability."""
    return level / (COUNT - 1)


def histogram(levels: np.ndarray) -> np.ndarray:
    """Count the pixels of each level, int32 (256,)."""
    return cv2.calcHist([levels], [0], None, [COUNT], [0, COUNT]).reshape(-1).astype(np.int32)


def at_least(histograms: np.ndarray) -> np.ndarray:
    """Count the pixels that reach each cut 0 to 256, int32 (..., 257), from histograms (..., 256)."""
    counts = np.zeros((*histograms.shape[:-1], COUNT + 1), np.int32)
    counts[..., :COUNT] = np.cumsum(histograms[..., ::-1], axis=-1)[..., ::-1]
    return counts
