"""The probe in the operator's hand, which moves, turns and presses between frames."""

import cv2
import numpy as np

from kaggle_nerve.competition.facts import HEIGHT, SIZE, WIDTH
from kaggle_nerve.phantom.tissue import MARGIN

Maps = tuple[np.ndarray, np.ndarray]
"""Canvas columns and canvas rows of the frame's pixels: float32 (height, width) each."""

_ROWS, _COLUMNS = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)


def hold(rng: np.random.Generator) -> Maps:
    """Draw a random probe position: shift, turn, distance, and deformation of the tissue."""
    turn = np.clip(rng.normal(0, 0.025), -0.06, 0.06)
    scale_y, scale_x = 1 + np.clip(rng.normal(0, 0.015, 2), -0.035, 0.035)
    shift_y, shift_x = np.clip(rng.normal(0, 6, 2), -14, 14)
    middle_y, middle_x = HEIGHT / 2, WIDTH / 2
    deform_x, deform_y = _deformation(rng), _deformation(rng)
    rows = _ROWS - np.float32(middle_y)
    columns = _COLUMNS - np.float32(middle_x)
    slant = np.float32(np.sin(turn))
    map_x = columns * np.float32(scale_x) - slant * rows + np.float32(middle_x + shift_x + MARGIN) + deform_x
    map_y = rows * np.float32(scale_y) + slant * columns + np.float32(middle_y + shift_y + MARGIN) + deform_y
    return map_x, map_y


def look_through(canvas: np.ndarray, maps: Maps) -> np.ndarray:
    """Sample the canvas at the probe's position: (height, width) of the canvas's own type."""
    return cv2.remap(canvas, *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)


def _deformation(rng: np.random.Generator) -> np.ndarray:
    """Draw the deformation of soft tissue in pixels, smooth over the frame: float32 (height, width)."""
    coarse = np.clip(rng.normal(0, 2.5, (4, 5)), -5, 5).astype(np.float32)
    return cv2.resize(coarse, SIZE[::-1], interpolation=cv2.INTER_CUBIC)
