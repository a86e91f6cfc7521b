"""Skip connections from encoder to decoder: plain, with a residual branch, or with an attention gate."""

import keras
from keras import layers

from kaggle_nerve.models import blocks
from kaggle_nerve.settings import ModelSettings

RESIDUAL_SCALE = 0.1


def connection(
    skip: keras.KerasTensor, coarse: keras.KerasTensor, settings: ModelSettings, name: str
) -> keras.KerasTensor:
    """Transform the encoder's ``skip`` (batch, h, w, channels) for the decoder; the shape stays the same.

    ``coarse`` (batch, h/2, w/2, any) are the decoder's features so far. ``skip_dropout`` drops whole
    channels (Tompson and others 2014, arXiv:1411.4280).
    """
    if settings.skip == "residual":
        skip = _residual(skip, settings, name)
    elif settings.skip == "attention":
        skip = attention(skip, coarse, name)
    if settings.skip_dropout:
        skip = layers.SpatialDropout2D(settings.skip_dropout, name=f"{name}_dropout")(skip)
    return skip


def attention(skip: keras.KerasTensor, coarse: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Apply an additive attention gate (Oktay and others 2018, arXiv:1804.03999).

    Multiply ``skip`` by a weight per pixel, from 0 to 1, computed from ``skip`` and ``coarse`` at the
    resolution of ``coarse`` and enlarged bilinearly.
    """
    channels = max(1, skip.shape[-1] // 2)
    keys = layers.Conv2D(channels, 2, strides=2, use_bias=False, name=f"{name}_seen")(skip)
    queries = layers.Conv2D(channels, 1, name=f"{name}_asked")(coarse)
    combined = layers.ReLU(name=f"{name}_relu")(layers.Add(name=f"{name}_sum")([keys, queries]))
    weight = layers.Conv2D(1, 1, activation="sigmoid", name=f"{name}_weight")(combined)
    weight = layers.UpSampling2D(interpolation="bilinear", name=f"{name}_enlarge")(weight)
    return layers.Multiply(name=f"{name}_gated")([skip, weight])


def _residual(skip: keras.KerasTensor, settings: ModelSettings, name: str) -> keras.KerasTensor:
    """Add a tenth of a 1x1 convolution, as in E. Tyantov's network for this competition."""
    branch = blocks.convolution_norm(skip, skip.shape[-1], settings, name, kernel=1)
    branch = layers.Rescaling(RESIDUAL_SCALE, name=f"{name}_scale")(branch)
    return blocks.activation(layers.Add(name=f"{name}_sum")([skip, branch]), settings, name)
