"""Probability maps in 256 levels: all that a rule looks at, so that learning and applying agree to the pixel.

A map at full size is rounded to levels 0 to 255. What a threshold would give on a frame can then be
read from two histograms, and 4436 frames of 243,600 pixels become a table of nine megabytes.
"""

import math
from typing import overload

import cv2
import numpy as np

COUNT = 256
NOTHING = COUNT
"""The cut that no pixel reaches: the frame is called empty."""


def quantise(probability: np.ndarray) -> np.ndarray:
    """Levels, uint8, of a float32 map with values from 0 to 1."""
    return cv2.convertScaleAbs(probability, alpha=COUNT - 1)


def cut(threshold: float) -> int:
    """The lowest level that reaches a probability; at least 1, for no rule takes the whole frame."""
    # Rounded first: 0.6 * 255 is 153.00000000000003 for a computer's 0.6.
    return max(1, math.ceil(round(threshold * (COUNT - 1), 6)))


@overload
def probability(level: np.ndarray) -> np.ndarray: ...


@overload
def probability(level: float) -> float: ...


def probability(level):
    """The probability that a level stands for."""
    return level / (COUNT - 1)


def histogram(levels: np.ndarray) -> np.ndarray:
    """How many pixels have each level, int32 (256,)."""
    return cv2.calcHist([levels], [0], None, [COUNT], [0, COUNT]).reshape(-1).astype(np.int32)


def at_least(histograms: np.ndarray) -> np.ndarray:
    """From histograms (..., 256) how many pixels reach each cut 0 to 256, int32 (..., 257)."""
    reached = np.zeros((*histograms.shape[:-1], COUNT + 1), np.int32)
    reached[..., :COUNT] = np.cumsum(histograms[..., ::-1], axis=-1)[..., ::-1]
    return reached
