"""Predict all views of a batch and combine them on the accelerator: the counterpart of `views` and `blending.Mixer`.

On the processor this would be slower than OpenCV and NumPy. On an accelerator, carrying each view's maps to the
processor and combining them there takes longer than predicting them.
"""

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from kaggle_nerve.maps.blending import CERTAIN
from kaggle_nerve.prediction.views import View

METHODS = ("mean", "logits")
"""Methods of `blending.combine` that this module has; ``agreement`` needs eigenvectors."""


def build(model: keras.Model, views: tuple[View, ...], combine: str) -> keras.Model:
    """Build the network that predicts and combines ``views`` of frames, sharing the weights of ``model``.

    Input: uint8 (batch, height, width). Outputs, float32: ``masks`` (batch, height, width), ``presence``,
    ``agreement`` and ``spread`` (batch,), as in `forward.ModelOutput`.
    """
    frames = keras.Input(model.input.shape[1:3], dtype="uint8")
    outputs = model(_Views(views, dtype="float32")(frames))
    masks, presence = outputs["mask"], outputs.get("presence")
    combined = _Combination(views, combine, dtype="float32")(masks, presence)
    result = keras.Model(frames, combined)
    result.compile(jit_compile=model.jit_compile)
    return result


class _Views(layers.Layer):
    """All views of frames, one after the other: (views * batch, height, width, 1)."""

    def __init__(self, views: tuple[View, ...], **options: Any):
        super().__init__(**options)
        self._views = views

    def call(self, frames: Any) -> Any:
        frames = ops.cast(frames, "float32")[..., None]
        parts = [_zoom(_flip(frames, view), view.zoom, True) for view in self._views]
        return ops.concatenate(parts, axis=0)


class _Combination(layers.Layer):
    """Views transformed back and combined."""

    def __init__(self, views: tuple[View, ...], combine: str, **options: Any):
        super().__init__(**options)
        self._views, self._combine = views, combine

    def call(self, masks: Any, presence: Any = None) -> dict[str, Any]:
        count = len(self._views)
        parts = [
            _flip(_zoom(part, 1 / view.zoom, False), view)
            for part, view in zip(ops.split(masks, count, axis=0), self._views, strict=True)
        ]
        # Without a presence head, the presence is the largest probability: before the way back, as in `forward`.
        each = ops.max(masks, axis=(1, 2)) if presence is None else presence
        presences = ops.reshape(each, (count, -1))
        stacked = ops.stack([part[..., 0] for part in parts])
        return {
            "masks": self._mean(stacked),
            "presence": self._mean(presences),
            "agreement": _agreement([stacked[place] for place in range(count)]),
            "spread": ops.std(presences, axis=0),
        }

    def compute_output_spec(self, masks: Any, presence: Any = None) -> dict[str, keras.KerasTensor]:
        height, width = masks.shape[1:3]
        numbers = {name: keras.KerasTensor((None,)) for name in ("presence", "agreement", "spread")}
        return {"masks": keras.KerasTensor((None, height, width)), **numbers}

    def _mean(self, values: Any) -> Any:
        """Average ``values`` over views, the first axis."""
        if self._combine == "mean":
            return ops.mean(values, axis=0)
        clipped = ops.clip(values, CERTAIN, 1 - CERTAIN)
        odds = ops.mean(ops.log(clipped / (1 - clipped)), axis=0)
        return (1 + ops.tanh(odds / 2)) / 2


def _flip(images: Any, view: View) -> Any:
    return ops.flip(images, view.axes) if view.axes else images


def _zoom(images: Any, factor: float, repeat_border: bool) -> Any:
    """Enlarge ``images`` (n, height, width, 1) about their centre, as `views._zoom` does.

    Outside is the border, repeated, or 0.
    """
    if factor == 1:
        return images
    for axis in (1, 2):
        length = images.shape[axis]
        centre = (length - 1) / 2
        position = (np.arange(length) - centre) / factor + centre
        before = np.floor(position).astype(np.int32)
        part = (position - before).astype(np.float32)
        total = 0.0
        for place, weight in ((before, 1 - part), (before + 1, part)):
            limited = np.clip(place, 0, length - 1)
            if not repeat_border:
                weight = weight * (limited == place)
            shape = [length if each == axis else 1 for each in range(4)]
            total = total + ops.take(images, limited, axis=axis) * weight.reshape(shape)
        images = total
    return images


def _agreement(maps: list[Any]) -> Any:
    """Compute the mean Dice over pairs of views' masks at 0.5, (batch,); ``maps``: at least two views' maps."""
    masks = [ops.cast(values >= 0.5, "float32") for values in maps]
    areas = [ops.sum(mask, axis=(1, 2)) for mask in masks]
    pairs = [(a, b) for b in range(len(maps)) for a in range(b)]
    total = 0.0
    for a, b in pairs:
        shared, area = ops.sum(masks[a] * masks[b], axis=(1, 2)), areas[a] + areas[b]
        total = total + ops.where(area > 0, 2 * shared / ops.maximum(area, 1), 1)
    return total / len(pairs)
