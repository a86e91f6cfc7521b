"""Output heads of every architecture: the mask, coarser masks of deep supervision, and the presence."""

from collections.abc import Sequence

import keras
from keras import layers

from kaggle_nerve.models import blocks
from kaggle_nerve.settings import ModelSettings

DEEP = 3
"""Maximum number of coarser masks for deep supervision."""

ATTENDED_MAPS = 2
"""Maximum number of the decoder's coarsest maps that the presence head reads."""


def outputs(
    tensor: keras.KerasTensor,
    deepest: Sequence[keras.KerasTensor],
    settings: ModelSettings,
    margins: blocks.Margins,
    stem: int,
    deep: Sequence[keras.KerasTensor] = (),
    columns: Sequence[keras.KerasTensor] = (),
) -> dict[str, keras.KerasTensor]:
    """Build the network's outputs by name, all float32 and from 0 to 1.

    ``tensor`` (batch, h, w, channels) holds the finest features, at 1/``stem`` of the padded frame; ``margins``
    are those added to the frame. ``mask`` (batch, height, width, 1) has the frame's own size and is 0 where
    the margins crop; ``presence`` (batch, 1), if the settings enable it, reads the encoder's features
    ``deepest``, deepest first: only the first of them, unless ``presence_pool`` is ``attention``.

    With deep supervision (Lee and others 2014, arXiv:1409.5185), the first three of ``deep``, finest
    first, become ``mask_1``, ``mask_2``, ``mask_3``, as large as ``mask``. With hypercolumns (Hariharan
    and others 2015, arXiv:1411.5752), ``mask`` also reads ``columns``, finest first; the attention of
    ``presence`` reads the two coarsest of them. Both may be coarser than ``tensor`` by integer factors.
    """
    logit = layers.Conv2D(1, 1, dtype="float32", name="mask_logit")(tensor)
    if settings.hypercolumns and columns:
        logit = _with_columns(logit, columns)
    results = {"mask": _mask(logit, margins, stem, "")}
    if settings.deep_supervision:
        for number, features in enumerate(deep[:DEEP], start=1):
            logit = layers.Conv2D(1, 1, dtype="float32", name=f"mask_{number}_logit")(features)
            scale = stem * tensor.shape[1] // features.shape[1]
            results[f"mask_{number}"] = _mask(logit, margins, scale, f"_{number}")
    if settings.presence:
        results["presence"] = presence_head(
            [*deepest, *columns[: -ATTENDED_MAPS - 1 : -1]], settings.presence_pool
        )
    return results


def presence_head(sources: Sequence[keras.KerasTensor], pool: str) -> keras.KerasTensor:
    """Predict P(mask not empty), (batch, 1) in float32, from features of the whole frame, deepest first.

    ``pool``: ``mean`` averages the first of ``sources`` over the frame. ``attention`` also averages each of
    them with a weight per position, computed from the features there (Ilse, Tomczak, Welling 2018,
    arXiv:1802.04712, without their hidden layer): a nerve covers few positions, and the deepest features
    have hardly more than a dozen.
    """
    pooled = layers.GlobalAveragePooling2D(dtype="float32", name="presence_mean")(sources[0])
    if pool == "attention":
        means = [
            _attention_mean(features, f"presence_attended{number}") for number, features in enumerate(sources)
        ]
        pooled = layers.Concatenate(dtype="float32", name="presence_features")([pooled, *means])
    return layers.Dense(1, activation="sigmoid", dtype="float32", name="presence")(pooled)


def enlarge(tensor: keras.KerasTensor, scale: int, name: str) -> keras.KerasTensor:
    """Enlarge ``tensor`` to ``scale`` times its height and width, bilinearly, in float32."""
    if scale == 1:
        return tensor
    return layers.UpSampling2D(scale, interpolation="bilinear", dtype="float32", name=name)(tensor)


def _attention_mean(features: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Average ``features`` over positions, with weights that sum to 1: (batch, channels)."""
    channels = features.shape[-1]
    places = layers.Reshape((-1, channels), dtype="float32", name=f"{name}_places")(features)
    weights = layers.Dense(1, dtype="float32", name=f"{name}_scores")(places)
    weights = layers.Softmax(axis=1, dtype="float32", name=f"{name}_weights")(weights)
    mean = layers.Dot(axes=1, dtype="float32", name=f"{name}_mean")([weights, places])
    return layers.Reshape((channels,), dtype="float32", name=name)(mean)


def _mask(logit: keras.KerasTensor, margins: blocks.Margins, scale: int, suffix: str) -> keras.KerasTensor:
    logit = enlarge(logit, scale, f"enlarge_mask{suffix}")
    logit = layers.Cropping2D(blocks.padding(margins), dtype="float32", name=f"crop{suffix}")(logit)
    mask = layers.Activation("sigmoid", dtype="float32", name=f"mask{suffix}")(logit)
    outside = blocks.cropping(margins)
    if outside == ((0, 0), (0, 0)):
        return mask
    return layers.ZeroPadding2D(outside, dtype="float32", name=f"whole{suffix}")(mask)


def _with_columns(logit: keras.KerasTensor, columns: Sequence[keras.KerasTensor]) -> keras.KerasTensor:
    # A 1x1 convolution of concatenated features is the sum of one for each of them, and it commutes with
    # enlarging: enlarging one channel instead of hundreds gives the same result.
    parts = [logit]
    for number, features in enumerate(columns, start=1):
        part = layers.Conv2D(1, 1, use_bias=False, dtype="float32", name=f"column_{number}")(features)
        parts.append(enlarge(part, logit.shape[1] // features.shape[1], f"enlarge_column_{number}"))
    return layers.Add(dtype="float32", name="hypercolumns")(parts)
