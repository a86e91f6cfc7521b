"""Augment a frame together with its mask, by OpenCV on uint8."""

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


def augment(
    frame: np.ndarray, mask: np.ndarray, random: np.random.Generator, ranges: AugmentationSettings
) -> tuple[np.ndarray, np.ndarray]:
    """Return augmented copies of ``frame`` and ``mask``, both uint8 (height, width).

    Geometric changes apply to both; grey values, gain, sharpness and noise change the frame only. Areas from
    beyond the border are black in both, as outside a real ultrasound image.
    """
    matrix = _matrix(frame.shape, random, ranges)
    displacements = _displacements(frame.shape, random, ranges.elastic) if ranges.elastic > 0 else None
    # Linear interpolation would blur training frames, but not those to predict.
    frame, mask = (
        _warp(frame, matrix, displacements, cv2.INTER_CUBIC),
        _warp(mask, matrix, displacements, cv2.INTER_LINEAR),
    )
    frame = cv2.LUT(frame, _grey_curve(random, ranges))
    if ranges.gain > 0:
        frame = cv2.multiply(frame, _gain(frame.shape, random, ranges.gain), dtype=cv2.CV_8U)
    if ranges.sharpness > 0:
        frame = _sharpen(frame, random.uniform(-ranges.sharpness, ranges.sharpness))
    if ranges.noise > 0:
        frame = _add_noise(frame, random, 255 * random.uniform(0, ranges.noise))
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


def _warp(
    image: np.ndarray, matrix: np.ndarray, displacements: np.ndarray | None, interpolation: int
) -> np.ndarray:
    """Transform ``image`` by ``matrix``, and each pixel by ``displacements`` (height, width, 2), across and down."""
    height, width = image.shape
    if displacements is None:
        return cv2.warpAffine(image, matrix, (width, height), flags=interpolation)
    back = cv2.invertAffineTransform(matrix).astype(np.float32)
    across, down = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    x, y = (
        row[0] * across + row[1] * down + row[2] + displacements[..., axis] for axis, row in enumerate(back)
    )
    return cv2.remap(image, x, y, interpolation)


def _displacements(shape: tuple[int, ...], random: np.random.Generator, share: float) -> np.ndarray:
    """Draw a smooth field of displacements, float32 (height, width, 2), at most ``share`` of the width and height."""
    height, width = shape
    field = random.uniform(-share, share, (*GRID, 2)).astype(np.float32) * np.array(
        [width, height], np.float32
    )
    return cv2.resize(field, (width, height), interpolation=cv2.INTER_LINEAR)


def _gain(shape: tuple[int, ...], random: np.random.Generator, share: float) -> np.ndarray:
    """Draw a smooth field of factors around 1, float32 (height, width): gain differs with depth and contact."""
    height, width = shape
    field = 1 + random.uniform(-share, share, GRID).astype(np.float32)
    return cv2.resize(field, (width, height), interpolation=cv2.INTER_LINEAR)


def _sharpen(frame: np.ndarray, amount: float) -> np.ndarray:
    """Add ``amount`` of the finest details to ``frame``, or remove them if it is negative."""
    return cv2.addWeighted(frame, 1 + amount, cv2.GaussianBlur(frame, (3, 3), 0.8), -amount, 0)


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
