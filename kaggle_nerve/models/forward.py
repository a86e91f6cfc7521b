"""Forward passes with test-time augmentation: frames in, probabilities out, a batch at a time."""

from collections.abc import Iterator

import keras
import numpy as np


def probabilities(
    model: keras.Model, frames: np.ndarray, *, batch: int, tta: str
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (masks, presence) for consecutive batches of ``frames`` (uint8, n x height x width).

    ``masks``: float32 (b, height, width); ``presence``: float32 (b,), both from 0 to 1. ``tta``
    ``hflip`` takes the mean with the mirrored view. A network without a presence head gets the
    largest probability of its mask as presence.
    """
    for start in range(0, len(frames), batch):
        chunk = np.asarray(frames[start : start + batch], np.float32)[..., None]
        yield _views(model, chunk, batch, tta)


def _views(model: keras.Model, chunk: np.ndarray, batch: int, tta: str) -> tuple[np.ndarray, np.ndarray]:
    masks, presence = _pass(model, chunk, batch)
    if tta == "hflip":
        flipped, presence_flipped = _pass(model, chunk[:, :, ::-1], batch)
        masks = (masks + flipped[:, :, ::-1]) / 2
        presence = (presence + presence_flipped) / 2
    return masks, presence


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
