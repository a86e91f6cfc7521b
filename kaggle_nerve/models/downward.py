"""Downward half of the networks: their own blocks, or a pretrained encoder."""

from dataclasses import dataclass

import keras
from keras import layers

from kaggle_nerve.models import blocks, encoders
from kaggle_nerve.settings import ModelSettings

ENCODER_STEM = 2
"""Stride of a pretrained encoder's finest features: half the frame's height and width."""


@dataclass(frozen=True)
class Features:
    """Input of a decoder.

    ``skips``: finest first, each half as high and wide as the previous one; ``bottom``: half of the last.
    The finest is 1/``stem`` of the frame with its ``margins`` (`blocks.margins`).
    """

    skips: list[keras.KerasTensor]
    bottom: keras.KerasTensor
    margins: blocks.Margins
    stem: int

    @property
    def deepest(self) -> list[keras.KerasTensor]:
        """The bottom and the skip above it."""
        return [self.bottom, self.skips[-1]]


def features(frames: keras.KerasTensor, size: tuple[int, int], settings: ModelSettings) -> Features:
    """Compute features of ``frames`` (batch, height, width, 1) of ``size`` (height, width), grey values 0 to 255."""
    if settings.encoder != "none":
        maps, margins = encoders.features(frames, settings, size)
        return Features(maps[:-1], dropout(maps[-1], settings), margins, ENCODER_STEM)
    tensor, margins = preprocess(frames, size, settings)
    channels = blocks.level_channels(settings, settings.depth + 1)
    skips = []
    for level in range(settings.depth):
        tensor = blocks.block(tensor, channels[level], settings, f"down{level}")
        skips.append(tensor)
        tensor = _halve(tensor, settings, level)
    tensor = blocks.block(tensor, channels[-1], settings, "bottom")
    return Features(skips, dropout(tensor, settings), margins, settings.stem)


def preprocess(
    frames: keras.KerasTensor, size: tuple[int, int], settings: ModelSettings
) -> tuple[keras.KerasTensor, blocks.Margins]:
    """Normalise frames, add the margins for ``depth`` halvings and apply the stem; return the margins, too."""
    margins = blocks.margins(size, settings.stem * 2**settings.depth, settings.window)
    tensor = blocks.normalise(frames, settings.normalise)
    tensor = blocks.apply_margins(tensor, margins)
    if settings.stem > 1:
        tensor = layers.Conv2D(
            settings.width, 2 * settings.stem, strides=settings.stem, padding="same", name="stem"
        )(tensor)
    return tensor, margins


def dropout(bottom: keras.KerasTensor, settings: ModelSettings) -> keras.KerasTensor:
    """Drop whole channels of the deepest features in training."""
    return layers.SpatialDropout2D(settings.dropout, name="bottom_dropout")(bottom)


def _halve(tensor: keras.KerasTensor, settings: ModelSettings, level: int) -> keras.KerasTensor:
    if settings.down == "stride":
        return blocks.convolution(tensor, tensor.shape[-1], settings, f"stride{level}", strides=2)
    return layers.MaxPooling2D(name=f"pool{level}")(tensor)
