"""Forward passes with test-time augmentation, from frames to probabilities, one batch at a time."""

from collections.abc import Iterator
from typing import NamedTuple
from weakref import WeakKeyDictionary

import keras
import numpy as np

from kaggle_nerve import devices, memory
from kaggle_nerve.maps.blending import Mixer, mean_agreement
from kaggle_nerve.prediction import device_views
from kaggle_nerve.prediction.views import VIEWS, View, apply_view, undo_view

OUTPUTS = ("mask", "presence")
_largest: WeakKeyDictionary[keras.Model, int] = WeakKeyDictionary()
"""The largest batch that memory sufficed for, for models that it did not suffice for."""

_short: WeakKeyDictionary[keras.Model, keras.Model] = WeakKeyDictionary()


class ModelOutput(NamedTuple):
    """A model's output for some frames, float32, all from 0 to 1.

    ``masks`` (n, height, width) and ``presence`` (n,) combine the views. ``agreement`` (n,): the mean Dice
    over pairs of the views' masks at 0.5; 1 for a single view or if all are empty. ``spread`` (n,): the
    standard deviation of the views' presences. Both compare views of one model, never folds: an out-of-fold
    frame is predicted by one model only, and rules learned there must find the same figures on test frames.
    """

    masks: np.ndarray
    presence: np.ndarray
    agreement: np.ndarray
    spread: np.ndarray


def probabilities(
    model: keras.Model, frames: np.ndarray, *, batch: int, tta: str, combine: str = "mean"
) -> Iterator[ModelOutput]:
    """Yield the output of ``model`` for consecutive batches of ``frames`` (uint8, n x height x width).

    ``tta`` names the `VIEWS`, and ``combine`` the method of `blending.combine`. Without a presence head,
    the presence is the largest probability of the mask. Masks of deep supervision are not computed.
    """
    model, views = _without_deep_masks(model), VIEWS[tta]
    network = None
    if len(views) > 1 and combine in device_views.METHODS and devices.is_accelerated():
        network = device_views.build(model, views, combine)
    for start in range(0, len(frames), batch):
        chunk = np.asarray(frames[start : start + batch])
        if network:
            yield ModelOutput(**_pass(network, chunk, batch))
        else:
            yield _predict_batch(model, chunk.astype(np.float32), batch, views, combine)


def _predict_batch(
    model: keras.Model, chunk: np.ndarray, batch: int, views: tuple[View, ...], combine: str
) -> ModelOutput:
    mixer, binary_masks, presences = Mixer(combine), [], []
    for view in views:
        outputs = _pass(model, apply_view(chunk, view)[..., None], batch)
        masks = outputs["mask"][..., 0]
        presence = outputs["presence"][:, 0] if "presence" in outputs else masks.max(axis=(1, 2))
        masks = undo_view(masks, view)
        mixer.add(masks, presence)
        binary_masks.append(masks >= np.float32(0.5))
        presences.append(presence)
    agreement = [
        mean_agreement(np.stack([view_masks[row] for view_masks in binary_masks]))
        for row in range(len(chunk))
    ]
    return ModelOutput(*mixer.result(), np.array(agreement, np.float32), np.std(presences, axis=0))


def _pass(model: keras.Model, chunk: np.ndarray, batch: int) -> dict[str, np.ndarray]:
    """Return the outputs of ``model`` for ``chunk``, float32.

    Predict ``batch`` frames at a time, or fewer if memory does not suffice: the result is the same.
    """
    batch = min(batch, _largest.get(model, batch))
    try:
        parts = [_pass_batch(model, chunk[row : row + batch], batch) for row in range(0, len(chunk), batch)]
    except Exception as fault:
        if batch == 1 or not memory.is_exhausted(fault):
            raise
        _largest[model] = batch // 2
    else:
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return _pass(model, chunk, batch)


def _pass_batch(model: keras.Model, chunk: np.ndarray, batch: int) -> dict[str, np.ndarray]:
    count = len(chunk)
    if count < batch:
        # One shape means one compilation; the padding rows are removed again below.
        chunk = np.concatenate([chunk, np.zeros((batch - count, *chunk.shape[1:]), chunk.dtype)])
    outputs = model.predict_on_batch(chunk)
    return {name: np.asarray(values[:count], np.float32) for name, values in outputs.items()}


def _without_deep_masks(model: keras.Model) -> keras.Model:
    """Return ``model``, or the part of it without deep-supervision masks, which shares its weights."""
    outputs = getattr(model, "output", {})  # any object that predicts will do, not only a Keras model
    if set(outputs) <= set(OUTPUTS):
        return model
    if model not in _short:
        _short[model] = keras.Model(model.input, {name: outputs[name] for name in OUTPUTS if name in outputs})
        _short[model].compile(jit_compile=model.jit_compile)
    return _short[model]
