"""Forward passes with test-time augmentation: frames in, probabilities out, a batch at a time."""

from collections.abc import Iterator
from weakref import WeakKeyDictionary

import keras
import numpy as np

VIEWS: dict[str, tuple[tuple[int, ...], ...]] = {
    "none": ((),),
    "hflip": ((), (2,)),
    "flips": ((), (2,), (1,), (1, 2)),
}
"""For each kind of test-time augmentation the axes of (n, height, width) that its views mirror."""

PREDICTED = ("mask", "presence")
_short: WeakKeyDictionary[keras.Model, keras.Model] = WeakKeyDictionary()


def probabilities(
    model: keras.Model, frames: np.ndarray, *, batch: int, tta: str
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (masks, presence) for consecutive batches of ``frames`` (uint8, n x height x width).

    ``masks``: float32 (b, height, width); ``presence``: float32 (b,), both from 0 to 1, the mean over
    the views that `VIEWS` names for ``tta``. A network without a presence head gets the largest
    probability of its mask as presence. Masks of deep supervision are not computed.
    """
    model = _without_deep_masks(model)
    for start in range(0, len(frames), batch):
        chunk = np.asarray(frames[start : start + batch], np.float32)
        views = [_view(model, chunk, batch, axes) for axes in VIEWS[tta]]
        yield sum(masks for masks, _ in views) / len(views), sum(there for _, there in views) / len(views)


def _view(
    model: keras.Model, chunk: np.ndarray, batch: int, axes: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    masks, presence = _pass(model, np.flip(chunk, axes)[..., None], batch)
    return np.flip(masks, axes), presence


def _pass(model: keras.Model, chunk: np.ndarray, batch: int) -> tuple[np.ndarray, np.ndarray]:
    count = len(chunk)
    if count < batch:
        # One shape means one compilation; the rows added here are cut off again below.
        chunk = np.concatenate([chunk, np.zeros((batch - count, *chunk.shape[1:]), chunk.dtype)])
    outputs = model.predict_on_batch(chunk)
    masks = outputs["mask"][:count, ..., 0].astype(np.float32)
    if "presence" not in outputs:
        return masks, masks.max(axis=(1, 2))
    return masks, outputs["presence"][:count, 0].astype(np.float32)


def _without_deep_masks(model: keras.Model) -> keras.Model:
    """``model``, or the part of it, sharing its weights, that yields no masks which only training looks at."""
    outputs = getattr(model, "output", {})  # whatever predicts will do, a Keras model or not
    if set(outputs) <= set(PREDICTED):
        return model
    if model not in _short:
        _short[model] = keras.Model(
            model.input, {name: outputs[name] for name in PREDICTED if name in outputs}
        )
        _short[model].compile(jit_compile=model.jit_compile)
    return _short[model]
