"""Augment a frame together with its mask, by OpenCV on uint8."""

from dataclasses import dataclass
from statistics import NormalDist

import cv2
import numpy as np

from kaggle_nerve.settings import AugmentationSettings

# Noise uses random bytes as indices into these 256 equally likely values of a normal distribution. Grey
# values are integers anyway, and a frame takes a tenth of the time of true normal numbers.
_QUANTILES = np.array([NormalDist().inv_cdf((place + 0.5) / 256) for place in range(256)])
_NORMAL = (_QUANTILES / _QUANTILES.std()).astype(np.float32)

GRID = (4, 5)
"""Rows and columns of the grid of random numbers that is interpolated to a smooth field."""

BLUR = (3, 0.8)
"""Pixels and standard deviation of the Gaussian that separates the finest details from the rest."""


@dataclass(frozen=True)
class Draw:
    """All that is random about an augmented frame, except the noise of its pixels.

    ``matrix``: affine map (2, 3) of pixel positions (across, down) from the frame to its augmented copy. ``bend``:
    displacements in pixels, float32 `GRID` + (2,), or None. ``curve``: new value of each of 256 grey values, uint8.
    ``gain``: factors, float32 `GRID`, or None. ``sharpness``: share of the finest details to add. ``noise``: standard
    deviation in grey values.
    """

    matrix: np.ndarray
    bend: np.ndarray | None
    curve: np.ndarray
    gain: np.ndarray | None
    sharpness: float
    noise: float


def draw(shape: tuple[int, ...], random: np.random.Generator, ranges: AugmentationSettings) -> Draw:
    """Draw the augmentation of a frame of ``shape`` (height, width)."""
    return Draw(
        matrix=_matrix(shape, random, ranges),
        bend=_bend(shape, random, ranges.elastic) if ranges.elastic > 0 else None,
        curve=_grey_curve(random, ranges),
        gain=1 + random.uniform(-ranges.gain, ranges.gain, GRID).astype(np.float32)
        if ranges.gain > 0
        else None,
        sharpness=random.uniform(-ranges.sharpness, ranges.sharpness) if ranges.sharpness > 0 else 0.0,
        noise=255 * random.uniform(0, ranges.noise) if ranges.noise > 0 else 0.0,
    )


def augment(
    frame: np.ndarray, mask: np.ndarray, random: np.random.Generator, ranges: AugmentationSettings
) -> tuple[np.ndarray, np.ndarray]:
    """Return augmented copies of ``frame`` and ``mask``, both uint8 (height, width).

    Geometric changes apply to both; grey values, gain, sharpness and noise change the frame only. Areas from
    beyond the border are black in both, as outside a real ultrasound image. `device_augment` does the same on an
    accelerator.
    """
    change = draw(frame.shape, random, ranges)
    places = None if change.bend is None else _places(change.matrix, _smooth(change.bend, frame.shape))
    # Linear interpolation would blur training frames, but not those to predict.
    frame = _warp(frame, change.matrix, places, cv2.INTER_CUBIC)
    # Most frames have no mask.
    mask = _warp(mask, change.matrix, places, cv2.INTER_LINEAR) if mask.any() else mask.copy()
    frame = cv2.LUT(frame, change.curve)
    if change.gain is not None:
        # Gain differs with depth and contact.
        frame = cv2.multiply(frame, _smooth(change.gain, frame.shape), dtype=cv2.CV_8U)
    if ranges.sharpness > 0:
        frame = _sharpen(frame, change.sharpness)
    if ranges.noise > 0:
        frame = _add_noise(frame, random, change.noise)
    return frame, mask


def _matrix(shape: tuple[int, ...], random: np.random.Generator, ranges: AugmentationSettings) -> np.ndarray:
    """Draw a random 2x3 affine map about the centre of the frame."""
    height, width = shape
    angle = np.deg2rad(random.uniform(-ranges.rotate, ranges.rotate))
    factor = ranges.scale ** random.uniform(-1, 1)
    flip_x = -1.0 if random.random() < ranges.hflip else 1.0
    flip_y = -1.0 if random.random() < ranges.vflip else 1.0
    turn = factor * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = turn * np.array([flip_x, flip_y])
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    shift = random.uniform(-ranges.shift, ranges.shift, 2) * (width, height)
    return np.column_stack([linear, centre + shift - linear @ centre])


def _places(matrix: np.ndarray, displacements: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where each pixel of the result comes from, across and down, float32 (height, width).

    ``displacements`` (height, width, 2) are added to what ``matrix`` says.
    """
    height, width = displacements.shape[:2]
    back = cv2.invertAffineTransform(matrix).astype(np.float32)
    across, down = np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)[:, None]
    x, y = (
        row[0] * across + row[1] * down + row[2] + displacements[..., axis] for axis, row in enumerate(back)
    )
    return x, y


def _warp(
    image: np.ndarray,
    matrix: np.ndarray,
    places: tuple[np.ndarray, np.ndarray] | None,
    interpolation: int,
) -> np.ndarray:
    """Transform ``image`` by ``matrix``, or fetch each pixel from ``places`` (`_places`)."""
    if places is None:
        return cv2.warpAffine(image, matrix, image.shape[::-1], flags=interpolation)
    return cv2.remap(image, *places, interpolation)


def _bend(shape: tuple[int, ...], random: np.random.Generator, share: float) -> np.ndarray:
    """Draw displacements on a coarse grid, at most ``share`` of the width and height, in pixels."""
    height, width = shape
    field = random.uniform(-share, share, (*GRID, 2)).astype(np.float32)
    return field * np.array([width, height], np.float32)


def _smooth(grid: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Interpolate ``grid`` to a field of ``shape`` (height, width)."""
    return cv2.resize(grid, shape[::-1], interpolation=cv2.INTER_LINEAR)


def _sharpen(frame: np.ndarray, amount: float) -> np.ndarray:
    """Add ``amount`` of the finest details to ``frame``, or remove them if it is negative."""
    return cv2.addWeighted(
        frame, 1 + amount, cv2.GaussianBlur(frame, (BLUR[0], BLUR[0]), BLUR[1]), -amount, 0
    )


def _add_noise(frame: np.ndarray, random: np.random.Generator, deviation: float) -> np.ndarray:
    """Add normal noise of ``deviation`` grey values to ``frame``, rounded and clipped to uint8."""
    indices = np.frombuffer(random.bytes(frame.size), np.uint8).reshape(frame.shape)
    noise = cv2.LUT(indices, _NORMAL * np.float32(deviation))
    return cv2.add(frame, noise, dtype=cv2.CV_8U)


def _grey_curve(random: np.random.Generator, ranges: AugmentationSettings) -> np.ndarray:
    """Draw gamma, contrast and brightness as one lookup table of 256 grey values."""
    grey = np.linspace(0, 1, 256) ** (ranges.gamma ** random.uniform(-1, 1))
    contrast = 1 + random.uniform(-ranges.contrast, ranges.contrast)
    brightness = random.uniform(-ranges.brightness, ranges.brightness)
    grey = (grey - 0.5) * contrast + 0.5 + brightness
    return np.clip(np.rint(grey * 255), 0, 255).astype(np.uint8)
