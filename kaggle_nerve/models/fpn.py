"""Feature pyramid network for segmentation (Lin and others 2017, arXiv:1612.03144)."""

import keras
from keras import layers

from kaggle_nerve.models import blocks, downward, heads
from kaggle_nerve.settings import ModelSettings


def build(size: tuple[int, int], settings: ModelSettings) -> keras.Model:
    """Build an FPN for frames of ``size`` (height, width), with the inputs and outputs of ``unet.build``.

    The pyramid has 4 x ``width`` channels and the head 2 x ``width``, at most ``widest``; a ``width`` of 64
    gives the papers' 256 and 128. As in the papers, it has the encoder's strides 4 to 32, and the mask is
    computed at a quarter of the frame's size. Coarser masks of deep supervision and hypercolumns read the
    pyramid.
    """
    frames = keras.Input((*size, 1), name="frames")
    features = downward.features(frames, size, settings)
    levels = pyramid([*features.skips[1:], features.bottom], settings)
    outputs = heads.outputs(
        merge(levels, settings),
        features.deepest,
        settings,
        features.margins,
        2 * features.stem,
        deep=levels[1:],
        columns=levels[1:],
    )
    return keras.Model(frames, outputs, name="fpn")


def pyramid(maps: list[keras.KerasTensor], settings: ModelSettings) -> list[keras.KerasTensor]:
    """Add coarser features to finer ``maps``, given finest first, each half of the previous one.

    Each map becomes (batch, h, w, 4 x ``width``): its 1x1 convolution plus the enlarged coarser sum, then
    a 3x3 convolution of the total. Unlike the paper's, the latter has a norm and an activation.
    """
    channels = min(4 * settings.width, settings.widest)
    levels: list[keras.KerasTensor] = []
    coarser = None
    for level in reversed(range(len(maps))):
        total = layers.Conv2D(channels, 1, name=f"lateral{level}")(maps[level])
        if coarser is not None:
            coarser = layers.UpSampling2D(name=f"enlarge{level}")(coarser)
            total = layers.Add(name=f"sum{level}")([total, coarser])
        # The sums have any scale, and masks may be read from them directly: logits beyond about 16 become
        # exactly 0 or 1 for the loss, which then has no gradient on backends other than TensorFlow.
        levels.append(blocks.convolution(total, channels, settings, f"smooth{level}"))
        coarser = total
    return levels[::-1]


def merge(levels: list[keras.KerasTensor], settings: ModelSettings) -> keras.KerasTensor:
    """Sum all ``levels``, finest first, at the resolution of the first.

    As in the head of panoptic FPN (Kirillov and others 2019, arXiv:1901.02446), each level is convolved and
    enlarged twofold, bilinearly, until it has that resolution; the finest is convolved once.
    """
    channels = min(2 * settings.width, settings.widest)
    parts = []
    for level, tensor in enumerate(levels):
        tensor = blocks.convolution(tensor, channels, settings, f"head{level}_0")
        for step in range(level):
            if step:
                tensor = blocks.convolution(tensor, channels, settings, f"head{level}_{step}")
            tensor = layers.UpSampling2D(interpolation="bilinear", name=f"head{level}_{step}_enlarge")(tensor)
        parts.append(tensor)
    return layers.Add(name="merge")(parts)
