"""The downward half of the U-Nets: their own blocks, or a pretrained encoder."""

from dataclasses import dataclass

import keras
from keras import layers

from kaggle_nerve.models import blocks, encoders
from kaggle_nerve.settings import ModelSettings

ENCODER_STEM = 2
"""The finest features of a pretrained encoder have half the frame's height and width."""


@dataclass(frozen=True)
class Features:
    """What a decoder starts from.

    ``skips``: finest first, each half as high and wide as the one before; ``bottom``: half of the last.
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
    """Features of ``frames`` (batch, height, width, 1), grey values from 0 to 255, with ``size`` (height, width)."""
    if settings.encoder != "none":
        maps, margins = encoders.features(frames, settings, size)
        return Features(maps[:-1], dropped(maps[-1], settings), margins, ENCODER_STEM)
    tensor, margins = prepared(frames, size, settings)
    channels = blocks.level_channels(settings, settings.depth + 1)
    skips = []
    for level in range(settings.depth):
        tensor = blocks.block(tensor, channels[level], settings, f"down{level}")
        skips.append(tensor)
        tensor = _halved(tensor, settings, level)
    tensor = blocks.block(tensor, channels[-1], settings, "bottom")
    return Features(skips, dropped(tensor, settings), margins, settings.stem)


def prepared(
    frames: keras.KerasTensor, size: tuple[int, int], settings: ModelSettings
) -> tuple[keras.KerasTensor, blocks.Margins]:
    """Frames normalised, given the margins that ``depth`` halvings need, and shrunk by the stem; and the margins."""
    margins = blocks.margins(size, settings.stem * 2**settings.depth, settings.window)
    tensor = blocks.normalised(frames, settings.normalise)
    tensor = blocks.with_margins(tensor, margins)
    if settings.stem > 1:
        tensor = layers.Conv2D(
            settings.width, 2 * settings.stem, strides=settings.stem, padding="same", name="stem"
        )(tensor)
    return tensor, margins


def dropped(bottom: keras.KerasTensor, settings: ModelSettings) -> keras.KerasTensor:
    """The deepest features with whole channels dropped in training."""
    return layers.SpatialDropout2D(settings.dropout, name="bottom_dropout")(bottom)


def _halved(tensor: keras.KerasTensor, settings: ModelSettings, level: int) -> keras.KerasTensor:
    if settings.down == "stride":
        return blocks.convolution(tensor, tensor.shape[-1], settings, f"stride{level}", strides=2)
    return layers.MaxPooling2D(name=f"pool{level}")(tensor)
