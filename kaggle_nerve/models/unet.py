"""U-Net (Ronneberger, Fischer, Brox 2015, arXiv:1505.04597) for any input size, with a presence head."""

import keras
from keras import layers

from kaggle_nerve.models import blocks, downward, heads, skips
from kaggle_nerve.settings import ModelSettings


def build(size: tuple[int, int], settings: ModelSettings) -> keras.Model:
    """Build a U-Net for frames of ``size`` (height, width).

    Input: (batch, height, width, 1), grey values from 0 to 255. Outputs: those of ``heads.outputs``.
    Frames are padded as the halvings need, and masks are cropped back exactly. A ``stem`` of 2 or 4 runs the
    network at 1/2 or 1/4 of the resolution. All options of ``settings`` can be combined; a pretrained encoder
    replaces the downward half, and ``depth``, ``stem`` and ``down`` with it.
    """
    frames = keras.Input((*size, 1), name="frames")
    features = downward.features(frames, size, settings)
    levels = decoder(features, settings)
    outputs = heads.outputs(
        levels[0],
        features.deepest,
        settings,
        features.margins,
        features.stem,
        deep=levels[1:],
        columns=levels[1:],
    )
    return keras.Model(frames, outputs, name="unet")


def decoder(features: downward.Features, settings: ModelSettings) -> list[keras.KerasTensor]:
    """Build the upward half; return its features at each resolution of the skips, finest first."""
    channels = blocks.level_channels(settings, len(features.skips))
    tensor, levels = features.bottom, []
    for level in reversed(range(len(features.skips))):
        skip = skips.connection(features.skips[level], tensor, settings, f"skip{level}")
        tensor = enlarge(tensor, channels[level], settings, str(level))
        tensor = layers.Concatenate(name=f"join{level}")([skip, tensor])
        tensor = blocks.block(tensor, channels[level], settings, f"up{level}")
        levels.append(tensor)
    return levels[::-1]


def enlarge(
    tensor: keras.KerasTensor, channels: int, settings: ModelSettings, place: str
) -> keras.KerasTensor:
    """Convert ``tensor`` to ``channels`` channels and twice its height and width."""
    # Reducing the channels before enlarging costs a quarter of the opposite order.
    tensor = blocks.convolution(tensor, channels, settings, f"narrow{place}", kernel=1)
    return layers.UpSampling2D(name=f"enlarge{place}")(tensor)
