"""Forward passes with test-time augmentation: frames in, probabilities out, a batch at a time."""

from collections.abc import Iterator
from typing import NamedTuple
from weakref import WeakKeyDictionary

import keras
import numpy as np

from kaggle_nerve.maps.blending import Mixer, mean_agreement
from kaggle_nerve.prediction.views import VIEWS, View, brought_back, seen

PREDICTED = ("mask", "presence")
_short: WeakKeyDictionary[keras.Model, keras.Model] = WeakKeyDictionary()


class Predicted(NamedTuple):
    """What is said about some frames, float32, all from 0 to 1.

    ``masks`` (n, height, width) and ``presence`` (n,) are the views' together. ``agreement`` (n,): the mean
    Dice over pairs of the views' masks at 0.5, 1 for a single view or where all are empty. ``spread`` (n,):
    the standard deviation of the views' presences. Both compare views of one model, never folds: an
    out-of-fold frame is seen by one model alone, and what is learned there about these figures has to
    meet the same figures on test frames.
    """

    masks: np.ndarray
    presence: np.ndarray
    agreement: np.ndarray
    spread: np.ndarray


def probabilities(
    model: keras.Model, frames: np.ndarray, *, batch: int, tta: str, combine: str = "mean"
) -> Iterator[Predicted]:
    """Yield what ``model`` says about consecutive batches of ``frames`` (uint8, n x height x width).

    The views are those that `VIEWS` names for ``tta``, combined as `blending.combine` does by
    ``combine``. A network without a presence head gets the largest probability of its mask as presence.
    Masks of deep supervision are not computed.
    """
    model = _without_deep_masks(model)
    for start in range(0, len(frames), batch):
        chunk = np.asarray(frames[start : start + batch], np.float32)
        yield _predicted(model, chunk, batch, VIEWS[tta], combine)


def _predicted(
    model: keras.Model, chunk: np.ndarray, batch: int, views: tuple[View, ...], combine: str
) -> Predicted:
    mixer, inside, presences = Mixer(combine), [], []
    for view in views:
        masks, presence = _pass(model, seen(chunk, view)[..., None], batch)
        masks = brought_back(masks, view)
        mixer.add(masks, presence)
        inside.append(masks >= np.float32(0.5))
        presences.append(presence)
    agreement = [mean_agreement(np.stack([each[row] for each in inside])) for row in range(len(chunk))]
    return Predicted(*mixer.result(), np.array(agreement, np.float32), np.std(presences, axis=0))


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
