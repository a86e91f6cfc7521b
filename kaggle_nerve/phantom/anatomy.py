"""Draw the anatomy into the tissue, in decibels: the nerve with its outline, vessels, muscles.

Every ``draw_*`` function modifies its ``echo``, float32 (height, width), near (y, x).
"""

import math

import cv2
import numpy as np

from kaggle_nerve.competition.facts import SMALLEST_MASK
from kaggle_nerve.phantom.tissue import smooth_noise

SMALLEST_AREA, LARGEST_AREA = 1.2 * SMALLEST_MASK, 15_500.0
"""Range of an outline's area in square pixels; the probe's motion then changes it by at most a tenth."""

_ANGLES = np.linspace(0, 2 * np.pi, 96, endpoint=False)
_REACH = 116


def draw_outline(rng: np.random.Generator, area: float, elongation: float, angle: float) -> np.ndarray:
    """Draw a random smooth closed outline around (0, 0): float64 (96, 2) of (x, y).

    ``area`` is in square pixels, ``angle`` in radians from the x axis to the long axis. The outline is an
    ellipse with some low harmonics, as if drawn by hand.
    """
    radius = 1 / np.hypot(np.cos(_ANGLES) / np.sqrt(elongation), np.sin(_ANGLES) * np.sqrt(elongation))
    for harmonic, size in ((2, 0.03), (3, 0.055), (4, 0.03), (5, 0.015)):
        radius += rng.normal(0, size) * np.cos(harmonic * _ANGLES + rng.uniform(0, 2 * np.pi))
    points = np.stack([radius * np.cos(_ANGLES + angle), radius * np.sin(_ANGLES + angle)], axis=1)
    outline_area = cv2.contourArea(points.astype(np.float32))
    return points * np.sqrt(np.clip(area, SMALLEST_AREA, LARGEST_AREA) / outline_area)


def fill_outline(shape: tuple[int, int], outline: np.ndarray, y: float, x: float) -> np.ndarray:
    """Fill the inside of an outline around (y, x): uint8 (shape), 0 or 255."""
    mask = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [_fixed_point(outline + np.array([x, y]))], 255, shift=4)
    return mask


def draw_nerve(
    echo: np.ndarray,
    rng: np.random.Generator,
    outline: np.ndarray,
    y: float,
    x: float,
    fascicles: int,
    contrast: float,
) -> None:
    """Draw a plexus: dark round fascicles with bright rims in bright connective tissue."""
    window, rows, columns = _window(echo, y, x)
    mask = fill_outline(rows.shape, outline, y - window[0].start, x - window[1].start)
    depth = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
    nerve = -17.0 + 2.5 * smooth_noise(rng, rows.shape, 3, 6)
    nerve = np.maximum(nerve, _rim(depth - 5.0, 1.8, rng) - 4.0)
    for fy, fx, radius, stretch in _place_fascicles(rng, depth, fascicles):
        distance = _ellipse_distance(rows - rows[0, 0] - fy, columns - columns[0, 0] - fx, radius, stretch)
        dark = _smooth_step(distance, 1.5)
        nerve += dark * (-33.0 + rng.normal(0, 1.5) - nerve)
        nerve = np.maximum(nerve, _rim(distance - 1.5, 1.7, rng) - 3.0)
    weight = contrast * np.clip(depth / 7, 0, 1)
    echo[window] += weight * (nerve - echo[window])


def draw_vessel(echo: np.ndarray, y: float, x: float, radius: float, stretch: float) -> None:
    """Draw a vessel: black, with a bright wall above and below, and enhancement behind it.

    ``radius`` is the geometric mean of the half axes in pixels; ``stretch`` is width over height.
    """
    half_width = radius * math.sqrt(stretch)
    window, rows, columns = _window(echo, y, x, aside=2.4 * half_width + 4)
    distance = _ellipse_distance(rows - y, columns - x, radius, stretch)
    inside = _smooth_step(distance, 2.5)
    behind = np.exp(-0.5 * ((columns - x) / (0.7 * half_width)) ** 2) * np.clip((rows - y) / radius, 0, 1)
    part = echo[window] + 5.0 * behind * np.exp(-np.clip(rows - y - radius, 0, None) / 45) * (1 - inside)
    part += inside * (-43.0 - part)
    # Only a wall perpendicular to the beam returns an echo.
    across = np.clip(np.abs(rows - y) / (radius / math.sqrt(stretch)), 0, 1) ** 2
    wall = np.exp(-0.5 * ((distance - 1.5) / 1.8) ** 2) * across
    echo[window] = part + wall * np.maximum(-9.0 - part, 0)


def draw_muscle(echo: np.ndarray, rng: np.random.Generator, outline: np.ndarray, y: float, x: float) -> None:
    """Draw a muscle's cross-section: dark, striated, in a bright sheath."""
    window, rows, _ = _window(echo, y, x)
    mask = fill_outline(rows.shape, outline, y - window[0].start, x - window[1].start)
    depth = cv2.distanceTransform(mask, cv2.DIST_L2, 3)
    stripes = smooth_noise(rng, rows.shape, 2.0, 16)
    muscle = -29.0 + 3.0 * stripes + 4.0 * np.maximum(stripes - 1.0, 0)
    muscle = np.maximum(muscle, _rim(depth - 2.5, 1.8, rng) - 4.0)
    echo[window] += 0.85 * np.clip(depth / 3, 0, 1) * (muscle - echo[window])


def draw_clump(
    echo: np.ndarray, rng: np.random.Generator, y: float, x: float, radius: float, strength: float
) -> None:
    """Draw bright connective tissue without fascicles; ``strength`` in decibels."""
    window, rows, columns = _window(echo, y, x)
    distance = _ellipse_distance(rows - y, columns - x, radius, rng.uniform(0.8, 2.0))
    wisps = smooth_noise(rng, rows.shape, 3.5, 10)
    echo[window] += _smooth_step(distance, 0.3 * radius) * (strength + 5.0 * wisps)


def _place_fascicles(
    rng: np.random.Generator, depth: np.ndarray, count: int
) -> list[tuple[float, float, float, float]]:
    """Place disjoint dark discs inside the outline: (y, x, radius, stretch) of each.

    ``depth`` is every pixel's distance to the outline, float32 (height, width).
    """
    typical_radius = np.sqrt(0.42 * np.count_nonzero(depth) / (count * np.pi))
    free = depth - 6.0
    discs = []
    for _ in range(count):
        radius = float(min(typical_radius * rng.uniform(0.75, 1.2), free.max()))
        if radius < 5.0:
            break
        # Place discs close to the edge or to a neighbour, so that there is room for the rest.
        ys, xs = np.nonzero((free >= 0.98 * radius) & (free <= max(1.15 * radius, radius + 2)))
        pick = rng.integers(len(ys))
        y, x = float(ys[pick]), float(xs[pick])
        discs.append((y, x, radius, float(rng.uniform(0.85, 1.35))))
        grid_y, grid_x = np.ogrid[: depth.shape[0], : depth.shape[1]]
        free = np.minimum(free, np.hypot(grid_y - y, grid_x - x) - radius - 3.0)
    return discs


def _rim(distance: np.ndarray, width: float, rng: np.random.Generator) -> np.ndarray:
    """Compute a ridge where ``distance`` is 0: decibels relative to its top, 0 or less.

    A wall perpendicular to the beam reflects more than a parallel one, and every wall has gaps.
    """
    across = np.abs(cv2.Sobel(distance, cv2.CV_32F, 0, 1)) / 8
    gaps = np.minimum(5.0 * smooth_noise(rng, distance.shape, 6, 12), 3) - 3
    return gaps - 13.0 * (1 - np.clip(across, 0, 1)) - 6.0 * np.clip((distance / width) ** 2, 0, 9)


def _ellipse_distance(rows: np.ndarray, columns: np.ndarray, radius: float, stretch: float) -> np.ndarray:
    """Approximate the distance in pixels to an ellipse around (0, 0), negative inside."""
    scale = math.sqrt(stretch)
    return radius * (np.hypot(rows * scale, columns / scale) / radius - 1)


def _smooth_step(distance: np.ndarray, softness: float) -> np.ndarray:
    """Return 1 inside (negative ``distance``), 0 outside, with a transition over ``softness`` pixels."""
    return 1 / (1 + np.exp(np.clip(distance / (0.5 * softness), -20, 20)))


def _window(
    echo: np.ndarray, y: float, x: float, aside: float = _REACH
) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray]:
    """Return the slices of the echo near (y, x), and the rows and columns of its pixels, float32.

    ``aside`` is the number of columns to either side.
    """
    top, left = max(0, int(y) - _REACH), max(0, int(x - aside))
    window = slice(top, int(y) + _REACH), slice(left, int(x + aside))
    height, width = echo[window].shape
    rows, columns = np.mgrid[top : top + height, left : left + width].astype(np.float32)
    return window, rows, columns


def _fixed_point(points: np.ndarray) -> np.ndarray:
    """Convert points to sixteenths of a pixel for OpenCV."""
    return np.round(points * 16).astype(np.int32)
