"""The pieces that networks are built of."""

import keras
from keras import layers

from kaggle_nerve.models.layers import FusedBatchNormalization
from kaggle_nerve.settings import ModelSettings


def convolution(
    tensor: keras.KerasTensor,
    channels: int,
    settings: ModelSettings,
    name: str,
    kernel: int | tuple[int, int] = 3,
    strides: int = 1,
) -> keras.KerasTensor:
    """Convolution, batch normalisation if wanted, ReLU or ELU: (batch, h / strides, w / strides, channels)."""
    tensor = normed_convolution(tensor, channels, settings, name, kernel, strides)
    return activated(tensor, settings, name)


def normed_convolution(
    tensor: keras.KerasTensor,
    channels: int,
    settings: ModelSettings,
    name: str,
    kernel: int | tuple[int, int] = 3,
    strides: int = 1,
) -> keras.KerasTensor:
    """A ``convolution`` without its activation."""
    tensor = layers.Conv2D(
        channels,
        kernel,
        strides=strides,
        padding="same",
        use_bias=not settings.batch_norm,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(tensor)
    return normed(tensor, settings, name)


def normed(tensor: keras.KerasTensor, settings: ModelSettings, name: str) -> keras.KerasTensor:
    """Batch normalisation (Ioffe, Szegedy 2015, arXiv:1502.03167), if the settings want it."""
    if not settings.batch_norm:
        return tensor
    # A short memory: runs on a processor have too few steps for the usual 0.99.
    return FusedBatchNormalization(momentum=0.95, name=f"{name}_norm")(tensor)


def activated(tensor: keras.KerasTensor, settings: ModelSettings, name: str) -> keras.KerasTensor:
    """ReLU, or ELU (Clevert, Unterthiner, Hochreiter 2015, arXiv:1511.07289)."""
    if settings.activation == "elu":
        return layers.ELU(name=f"{name}_elu")(tensor)
    return layers.ReLU(name=f"{name}_relu")(tensor)


def block(tensor: keras.KerasTensor, channels: int, settings: ModelSettings, name: str) -> keras.KerasTensor:
    """One resolution's step, of the kind that the settings name: (batch, h, w, channels)."""
    tensor = BLOCKS[settings.block](tensor, channels, settings, name)
    return squeeze_excite(tensor, name) if settings.scse else tensor


def double_convolution(
    tensor: keras.KerasTensor, channels: int, settings: ModelSettings, name: str
) -> keras.KerasTensor:
    """Two convolutions: the step of a U-Net at one resolution."""
    tensor = convolution(tensor, channels, settings, f"{name}a")
    return convolution(tensor, channels, settings, f"{name}b")


def residual(
    tensor: keras.KerasTensor, channels: int, settings: ModelSettings, name: str
) -> keras.KerasTensor:
    """Two convolutions around a shortcut (He and others 2015, arXiv:1512.03385).

    The shortcut is a 1x1 convolution where the number of channels changes.
    """
    branch = convolution(tensor, channels, settings, f"{name}a")
    branch = normed_convolution(branch, channels, settings, f"{name}b")
    if tensor.shape[-1] != channels:
        tensor = normed_convolution(tensor, channels, settings, f"{name}_shortcut", kernel=1)
    tensor = layers.Add(name=f"{name}_sum")([tensor, branch])
    return activated(tensor, settings, name)


def inception(
    tensor: keras.KerasTensor, channels: int, settings: ModelSettings, name: str
) -> keras.KerasTensor:
    """Four parallel branches, the larger kernels split in two (Szegedy and others 2015, arXiv:1512.00567).

    In the proportions of E. Tyantov's network for this competition: of 16 channels 4 come from a 1x1
    convolution, 8 from a 1x3 and a 3x1, 2 from a 1x5 and a 5x1, and 2 from a 1x1 after a 3x3 maximum.
    Below 8 channels, where a share is less than one channel, the sum may be up to 3 more than ``channels``.
    """
    half, eighth = max(1, channels // 2), max(1, channels // 8)
    point = layers.Conv2D(
        max(1, channels - half - 2 * eighth), 1, kernel_initializer="he_normal", name=f"{name}_point"
    )(tensor)
    small = _split(tensor, max(1, channels * 3 // 8), half, 3, settings, f"{name}_small")
    large = _split(tensor, max(1, channels // 16), eighth, 5, settings, f"{name}_large")
    pooled = layers.MaxPooling2D(3, strides=1, padding="same", name=f"{name}_maximum")(tensor)
    pooled = layers.Conv2D(eighth, 1, kernel_initializer="he_normal", name=f"{name}_pooled")(pooled)
    tensor = layers.Concatenate(name=f"{name}_branches")([point, small, large, pooled])
    return activated(normed(tensor, settings, name), settings, name)


def _split(
    tensor: keras.KerasTensor, before: int, channels: int, kernel: int, settings: ModelSettings, name: str
) -> keras.KerasTensor:
    """1x1 to ``before`` channels, then a flat and a tall convolution; the last one is left as it is."""
    tensor = layers.Conv2D(before, 1, kernel_initializer="he_normal", name=f"{name}_narrow")(tensor)
    tensor = activated(tensor, settings, f"{name}_narrow")
    tensor = convolution(tensor, channels, settings, f"{name}_flat", kernel=(1, kernel))
    return layers.Conv2D(
        channels, (kernel, 1), padding="same", kernel_initializer="he_normal", name=f"{name}_tall"
    )(tensor)


BLOCKS = {"plain": double_convolution, "residual": residual, "inception": inception}
"""Blocks by the name that settings use."""


def squeeze_excite(tensor: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Concurrent spatial and channel squeeze and excitation (Roy and others 2018, arXiv:1803.02579).

    Each value is multiplied by the sum of its channel's weight, computed from the channels' means over
    the frame, and its pixel's weight, computed from the channels there; both lie between 0 and 1.
    """
    channels = tensor.shape[-1]
    means = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_squeeze")(tensor)
    hidden = layers.Dense(max(1, channels // 2), activation="relu", name=f"{name}_excite_a")(means)
    of_channel = layers.Dense(channels, activation="sigmoid", name=f"{name}_excite_b")(hidden)
    of_pixel = layers.Conv2D(1, 1, activation="sigmoid", name=f"{name}_excite_pixel")(tensor)
    # Not the weights' sum: Keras on TensorFlow adds a single column or row as if it were a bias.
    parts = [
        layers.Multiply(name=f"{name}_by_channel")([tensor, of_channel]),
        layers.Multiply(name=f"{name}_by_pixel")([tensor, of_pixel]),
    ]
    return layers.Add(name=f"{name}_scse")(parts)


def normalised(frames: keras.KerasTensor, how: str) -> keras.KerasTensor:
    """Grey values 0 to 255 as the network wants them.

    ``unit``: from 0 to 1. ``image``: mean 0 and deviation 1 within each frame, which takes out the
    gain and the contrast that differ from patient to patient.
    """
    frames = layers.Rescaling(1 / 255, name="unit")(frames)
    if how == "image":
        frames = layers.LayerNormalization(
            axis=[1, 2, 3], center=False, scale=False, epsilon=1e-5, name="standardise"
        )(frames)
    return frames


Margins = tuple[tuple[int, int], tuple[int, int]]
"""Rows and columns to add, each before and after; negative ones are taken away."""

ABOVE = 0.25
"""The share above the window of the rows that it leaves out: nerves lie in the upper three quarters of the frames."""


def margins(size: tuple[int, int], multiple: int, window: float = 1.0) -> Margins:
    """What makes height and width of ``size`` divisible by ``multiple``, and at least ``window`` of what they were.

    Example: (80, 112) becomes (64, 96) with multiple 32 and window 0.8: 4 rows go above, 12 below, 8
    columns on each side.
    """
    pairs = []
    for length, share_before in zip(size, (ABOVE, 0.5), strict=True):
        change = -(-round(length * window) // multiple) * multiple - length
        before = change // 2 if change > 0 else round(change * share_before)
        pairs.append((before, change - before))
    return pairs[0], pairs[1]


def with_margins(tensor: keras.KerasTensor, margins: Margins) -> keras.KerasTensor:
    """``tensor`` (batch, h, w, channels) with ``margins``: zeros are added."""
    crop = cropping(margins)
    if crop != ((0, 0), (0, 0)):
        tensor = layers.Cropping2D(crop, name="window")(tensor)
    return layers.ZeroPadding2D(padding(margins), name="pad")(tensor)


def padding(margins: Margins) -> Margins:
    """The part of ``margins`` that adds."""
    (top, bottom), (left, right) = margins
    return (max(0, top), max(0, bottom)), (max(0, left), max(0, right))


def cropping(margins: Margins) -> Margins:
    """What ``margins`` take away, as positive numbers."""
    (top, bottom), (left, right) = margins
    return padding(((-top, -bottom), (-left, -right)))


def level_channels(settings: ModelSettings, levels: int) -> list[int]:
    """Channels of each of ``levels`` resolutions, finest first: ``width`` doubled up to ``widest``."""
    return [min(settings.width * 2**level, settings.widest) for level in range(levels)]
