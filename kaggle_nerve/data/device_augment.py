"""Augment a batch on an accelerator, by Keras operations: the counterpart of `augment`, for the same draws."""

import operator
from collections.abc import Iterable
from functools import cache, reduce
from typing import Any

import cv2
import numpy as np
from keras import ops

from kaggle_nerve.data.augment import BLUR, GRID, Draw

CUBIC = -0.75
"""OpenCV's parameter of cubic interpolation (Keys 1981)."""

Draws = dict[str, np.ndarray]
"""Draws of several frames, stacked: ``backward`` (n, 2, 3) and ``curve`` (n, 256); if used, also ``bend`` and
``gain`` (n, *GRID[, 2]), ``sharpness`` and ``noise`` (n,). All float32."""


def stack(draws: list[Draw], *, sharpen: bool, noise: bool) -> Draws:
    """Stack ``draws``; ``sharpen`` and ``noise`` say whether these are used at all."""
    columns = {
        # In double precision, as in OpenCV.
        "backward": [cv2.invertAffineTransform(each.matrix) for each in draws],
        "curve": [each.curve for each in draws],
    }
    if draws[0].bend is not None:
        columns["bend"] = [each.bend for each in draws]
    if draws[0].gain is not None:
        columns["gain"] = [each.gain for each in draws]
    if sharpen:
        columns["sharpness"] = [each.sharpness for each in draws]
    if noise:
        columns["noise"] = [each.noise for each in draws]
    return {name: np.asarray(values, np.float32) for name, values in columns.items()}


def augment_batch(frames: Any, masks: Any, draws: dict[str, Any], normal: Any) -> tuple[Any, Any]:
    """Augment ``frames`` and ``masks``, tensors (n, height, width) of any number type from 0 to 255.

    ``normal``: standard normal numbers in the same shape, or None without noise. Return both as float32 with whole
    values from 0 to 255. They differ from those of `augment` by the precision of OpenCV's interpolation, and the
    noise is drawn from other numbers.
    """
    x, y = _positions(frames.shape[1:], draws)
    frames = _round(_interpolate(frames, x, y, _cubic))
    masks = _round(_interpolate(masks, x, y, _linear))
    frames = _look_up(draws["curve"], frames)
    if "gain" in draws:
        frames = _round(frames * _smooth(draws["gain"], frames.shape[1:]))
    if "sharpness" in draws:
        details = frames - _round(_blur(frames))
        frames = _round(frames + draws["sharpness"][:, None, None] * details)
    if "noise" in draws:
        frames = _round(frames + draws["noise"][:, None, None] * normal)
    return frames, masks


def _positions(shape: tuple[int, int], draws: dict[str, Any]) -> tuple[Any, Any]:
    """Return where each pixel of the result comes from: across and down, float32 (n, height, width)."""
    across, down = np.meshgrid(np.arange(shape[1], dtype=np.float32), np.arange(shape[0], dtype=np.float32))
    rows = [draws["backward"][:, axis, :, None, None] for axis in (0, 1)]
    x, y = (row[:, 0] * across + row[:, 1] * down + row[:, 2] for row in rows)
    if "bend" in draws:
        x = x + _smooth(draws["bend"][..., 0], shape)
        y = y + _smooth(draws["bend"][..., 1], shape)
    return x, y


def _interpolate(images: Any, x: Any, y: Any, weigh: Any) -> Any:
    """Read ``images`` at ``x`` and ``y``; pixels outside are 0. ``weigh``: `_linear` or `_cubic`."""
    height, width = images.shape[1:]
    flat = ops.reshape(images, (-1, height * width))
    left, top = ops.floor(x), ops.floor(y)
    total = ops.zeros_like(x)
    for step_down, weight_down in weigh(y - top):
        row, inside_rows = _inside(top + step_down, height)
        for step_across, weight_across in weigh(x - left):
            column, inside_columns = _inside(left + step_across, width)
            place = ops.reshape(row * width + column, (-1, height * width))
            values = ops.reshape(ops.take_along_axis(flat, place, axis=1), (-1, height, width))
            weight = weight_down * weight_across * inside_rows * inside_columns
            total = total + weight * ops.cast(values, "float32")
    return total


def _inside(place: Any, length: int) -> tuple[Any, Any]:
    """Return whole ``place`` limited to 0 to ``length`` - 1, as int32, and 1 where that changes nothing, else 0."""
    limited = ops.clip(place, 0, length - 1)
    return ops.cast(limited, "int32"), ops.cast(limited == place, "float32")


def _linear(part: Any) -> list[tuple[int, Any]]:
    """Return steps to the two neighbours of a position, and their weights; ``part``: its fraction, from 0 to 1."""
    return [(0, 1 - part), (1, part)]


def _cubic(part: Any) -> list[tuple[int, Any]]:
    """Return steps to the four neighbours of a position, and their weights; ``part``: its fraction, from 0 to 1."""

    def near(distance: Any) -> Any:
        return ((CUBIC + 2) * distance - (CUBIC + 3)) * distance * distance + 1

    def far(distance: Any) -> Any:
        return ((CUBIC * distance - 5 * CUBIC) * distance + 8 * CUBIC) * distance - 4 * CUBIC

    return [(-1, far(1 + part)), (0, near(part)), (1, near(1 - part)), (2, far(2 - part))]


def _look_up(curves: Any, frames: Any) -> Any:
    height, width = frames.shape[1:]
    greys = ops.reshape(ops.cast(frames, "int32"), (-1, height * width))
    return ops.reshape(ops.take_along_axis(curves, greys, axis=1), (-1, height, width))


def _blur(frames: Any) -> Any:
    pixels, deviation = BLUR
    kernel, margin = cv2.getGaussianKernel(pixels, deviation)[:, 0].astype(np.float32), pixels // 2
    height, width = frames.shape[1:]
    padded = ops.pad(frames, ((0, 0), (margin, margin), (margin, margin)), mode="reflect")
    rows = _total(float(weight) * padded[:, place : place + height] for place, weight in enumerate(kernel))
    return _total(float(weight) * rows[..., place : place + width] for place, weight in enumerate(kernel))


def _smooth(grids: Any, shape: tuple[int, int]) -> Any:
    """Interpolate ``grids`` (n, *GRID) to fields (n, height, width)."""
    down, across = (_interpolation(*lengths) for lengths in zip(GRID, shape, strict=True))
    # Multiplied out, since a matrix product would be rounded to 10 bits on a GPU.
    rows = _total(grids[:, place, None, :] * down[:, place, None] for place in range(GRID[0]))
    return _total(rows[:, :, place, None] * across[:, place] for place in range(GRID[1]))


@cache
def _interpolation(before: int, after: int) -> np.ndarray:
    """Return the matrix (after, before) that interpolates ``before`` values as OpenCV does."""
    return cv2.resize(np.eye(before, dtype=np.float32), (before, after), interpolation=cv2.INTER_LINEAR)


def _total(parts: Iterable[Any]) -> Any:
    return reduce(operator.add, parts)


def _round(values: Any) -> Any:
    return ops.clip(ops.round(values), 0, 255)
