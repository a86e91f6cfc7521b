"""SegNet (Badrinarayanan, Kendall, Cipolla 2015, arXiv:1511.00561), with or without attention gates."""

import keras
from keras import layers

from kaggle_nerve.models import blocks, downward, heads, skips
from kaggle_nerve.models.layers import PoolWithPositions, Unpool
from kaggle_nerve.settings import ModelSettings


def build(size: tuple[int, int], settings: ModelSettings) -> keras.Model:
    """Build a SegNet for frames of ``size`` (height, width), with the inputs and outputs of ``unet.build``.

    Each unpooling puts values back at the positions of its pooling. With ``skip`` ``plain``, the decoder gets
    nothing else from the encoder; ``residual`` and ``attention`` concatenate the encoder's features, too.
    Settings allow neither strided convolutions nor pretrained encoders here, which have no pooling positions.
    """
    frames = keras.Input((*size, 1), name="frames")
    tensor, margins = downward.preprocess(frames, size, settings)
    channels = blocks.level_channels(settings, settings.depth + 1)
    features, positions = [], []
    for level in range(settings.depth):
        tensor = blocks.block(tensor, channels[level], settings, f"down{level}")
        features.append(tensor)
        tensor, pool_positions = PoolWithPositions(name=f"pool{level}")(tensor)
        positions.append(pool_positions)
    tensor = blocks.block(tensor, channels[-1], settings, "bottom")
    bottom = downward.dropout(tensor, settings)
    levels = _decoder(bottom, features, positions, settings)
    deepest = [bottom, features[-1]]
    outputs = heads.outputs(
        levels[0], deepest, settings, margins, settings.stem, deep=levels[1:], columns=levels[1:]
    )
    return keras.Model(frames, outputs, name="segnet")


def _decoder(
    tensor: keras.KerasTensor,
    features: list[keras.KerasTensor],
    positions: list[keras.KerasTensor],
    settings: ModelSettings,
) -> list[keras.KerasTensor]:
    """Build the upward half; return its features at each resolution, finest first."""
    channels = blocks.level_channels(settings, settings.depth)
    levels = []
    for level in reversed(range(settings.depth)):
        coarse = tensor
        # Unpooling needs a value for each position: as many channels as were pooled.
        pooled = features[level].shape[-1]
        tensor = blocks.convolution(coarse, pooled, settings, f"narrow{level}", kernel=1)
        tensor = Unpool(name=f"unpool{level}")(tensor, positions[level])
        if settings.skip != "plain":
            skip = skips.connection(features[level], coarse, settings, f"skip{level}")
            tensor = layers.Concatenate(name=f"join{level}")([skip, tensor])
        tensor = blocks.block(tensor, channels[level], settings, f"up{level}")
        levels.append(tensor)
    return levels[::-1]
