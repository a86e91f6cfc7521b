"""U-Net (Ronneberger, Fischer, Brox 2015, arXiv:1505.04597) for any input size, with a presence head."""

import keras
from keras import layers

from kaggle_nerve.models import blocks, downward, heads, skips
from kaggle_nerve.settings import ModelSettings


def build(size: tuple[int, int], settings: ModelSettings) -> keras.Model:
    """A U-Net for frames of ``size`` (height, width).

    Input: (batch, height, width, 1), grey values from 0 to 255. Outputs: those of ``heads.outputs``.
    Frames are padded to what the halvings need and masks are cropped back exactly. ``stem`` 2 or 4 runs
    the network at that fraction of the resolution. All options of ``settings`` go together; a pretrained
    encoder takes the place of the downward half, and of ``depth``, ``stem`` and ``down``.
    """
    frames = keras.Input((*size, 1), name="frames")
    found = downward.features(frames, size, settings)
    levels = decoder(found, settings)
    outputs = heads.outputs(
        levels[0], found.deepest, settings, found.margins, found.stem, deep=levels[1:], columns=levels[1:]
    )
    return keras.Model(frames, outputs, name="unet")


def decoder(found: downward.Features, settings: ModelSettings) -> list[keras.KerasTensor]:
    """The upward half's features at each resolution of the skips, finest first."""
    channels = blocks.level_channels(settings, len(found.skips))
    tensor, levels = found.bottom, []
    for level in reversed(range(len(found.skips))):
        skip = skips.connection(found.skips[level], tensor, settings, f"skip{level}")
        tensor = enlarged(tensor, channels[level], settings, str(level))
        tensor = layers.Concatenate(name=f"join{level}")([skip, tensor])
        tensor = blocks.block(tensor, channels[level], settings, f"up{level}")
        levels.append(tensor)
    return levels[::-1]


def enlarged(
    tensor: keras.KerasTensor, channels: int, settings: ModelSettings, place: str
) -> keras.KerasTensor:
    """``tensor`` with ``channels`` channels, twice as high and wide."""
    # Narrowing before enlarging costs a quarter of the other way round.
    tensor = blocks.convolution(tensor, channels, settings, f"narrow{place}", kernel=1)
    return layers.UpSampling2D(name=f"enlarge{place}")(tensor)
