"""Building blocks of the networks."""

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
    """Apply convolution, optional batch normalisation, ReLU or ELU: (batch, h / strides, w / strides, channels)."""
    tensor = convolution_norm(tensor, channels, settings, name, kernel, strides)
    return activation(tensor, settings, name)


def convolution_norm(
    tensor: keras.KerasTensor,
    channels: int,
    settings: ModelSettings,
    name: str,
    kernel: int | tuple[int, int] = 3,
    strides: int = 1,
) -> keras.KerasTensor:
    """Apply a ``convolution`` without its activation."""
    tensor = layers.Conv2D(
        channels,
        kernel,
        strides=strides,
        padding="same",
        use_bias=not settings.batch_norm,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(tensor)
    return batch_norm(tensor, settings, name)


def batch_norm(tensor: keras.KerasTensor, settings: ModelSettings, name: str) -> keras.KerasTensor:
    """Apply batch normalisation (Ioffe, Szegedy 2015, arXiv:1502.03167) if the settings enable it."""
    if not settings.batch_norm:
        return tensor
    # Low momentum: runs on a processor have too few steps for the usual 0.99.
    return FusedBatchNormalization(momentum=0.95, name=f"{name}_norm")(tensor)


def activation(tensor: keras.KerasTensor, settings: ModelSettings, name: str) -> keras.KerasTensor:
    """Apply ReLU, or ELU (Clevert, Unterthiner, Hochreiter 2015, arXiv:1511.07289)."""
    if settings.activation == "elu":
        return layers.ELU(name=f"{name}_elu")(tensor)
    return layers.ReLU(name=f"{name}_relu")(tensor)


def block(tensor: keras.KerasTensor, channels: int, settings: ModelSettings, name: str) -> keras.KerasTensor:
    """Apply one resolution's block, of the kind given by the settings: (batch, h, w, channels)."""
    tensor = BLOCKS[settings.block](tensor, channels, settings, name)
    return squeeze_excite(tensor, name) if settings.scse else tensor


def double_convolution(
    tensor: keras.KerasTensor, channels: int, settings: ModelSettings, name: str
) -> keras.KerasTensor:
    """Apply two convolutions: the block of a U-Net at one resolution."""
    tensor = convolution(tensor, channels, settings, f"{name}a")
    return convolution(tensor, channels, settings, f"{name}b")


def residual(
    tensor: keras.KerasTensor, channels: int, settings: ModelSettings, name: str
) -> keras.KerasTensor:
    """Apply two convolutions with a shortcut around them (He and others 2015, arXiv:1512.03385).

    The shortcut is a 1x1 convolution if the number of channels changes.
    """
    branch = convolution(tensor, channels, settings, f"{name}a")
    branch = convolution_norm(branch, channels, settings, f"{name}b")
    if tensor.shape[-1] != channels:
        tensor = convolution_norm(tensor, channels, settings, f"{name}_shortcut", kernel=1)
    tensor = layers.Add(name=f"{name}_sum")([tensor, branch])
    return activation(tensor, settings, name)


def inception(
    tensor: keras.KerasTensor, channels: int, settings: ModelSettings, name: str
) -> keras.KerasTensor:
    """Apply four parallel branches, the larger kernels factorised (Szegedy and others 2015, arXiv:1512.00567).

    The proportions are those of E. Tyantov's network for this competition: of 16 channels, 4 come from a 1x1
    convolution, 8 from a 1x3 and a 3x1, 2 from a 1x5 and a 5x1, and 2 from a 1x1 after 3x3 max pooling.
    Below 8 channels, where a share is less than one channel, the sum may exceed ``channels`` by up to 3.
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
    return activation(batch_norm(tensor, settings, name), settings, name)


def _split(
    tensor: keras.KerasTensor, before: int, channels: int, kernel: int, settings: ModelSettings, name: str
) -> keras.KerasTensor:
    """Apply a 1x1 convolution to ``before`` channels, then a flat and a tall one, the last without activation."""
    tensor = layers.Conv2D(before, 1, kernel_initializer="he_normal", name=f"{name}_narrow")(tensor)
    tensor = activation(tensor, settings, f"{name}_narrow")
    tensor = convolution(tensor, channels, settings, f"{name}_flat", kernel=(1, kernel))
    return layers.Conv2D(
        channels, (kernel, 1), padding="same", kernel_initializer="he_normal", name=f"{name}_tall"
    )(tensor)


BLOCKS = {"plain": double_convolution, "residual": residual, "inception": inception}
"""Blocks by their name in the settings."""


def squeeze_excite(tensor: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Apply concurrent spatial and channel squeeze and excitation (Roy and others 2018, arXiv:1803.02579).

    Each value is multiplied by the sum of its channel's weight, computed from the channels' means over
    the frame, and its pixel's weight, computed from the pixel's channels; both lie between 0 and 1.
    """
    channels = tensor.shape[-1]
    means = layers.GlobalAveragePooling2D(keepdims=True, name=f"{name}_squeeze")(tensor)
    hidden = layers.Dense(max(1, channels // 2), activation="relu", name=f"{name}_excite_a")(means)
    of_channel = layers.Dense(channels, activation="sigmoid", name=f"{name}_excite_b")(hidden)
    of_pixel = layers.Conv2D(1, 1, activation="sigmoid", name=f"{name}_excite_pixel")(tensor)
    # Do not add the weights first: Keras on TensorFlow would add a single column or row as if it were a bias.
    parts = [
        layers.Multiply(name=f"{name}_by_channel")([tensor, of_channel]),
        layers.Multiply(name=f"{name}_by_pixel")([tensor, of_pixel]),
    ]
    return layers.Add(name=f"{name}_scse")(parts)


def normalise(frames: keras.KerasTensor, method: str) -> keras.KerasTensor:
    """Normalise grey values from 0 to 255.

    ``unit``: to 0 to 1. ``image``: to mean 0 and deviation 1 within each frame, which removes the gain and
    the contrast that differ from patient to patient.
    """
    frames = layers.Rescaling(1 / 255, name="unit")(frames)
    if method == "image":
        frames = layers.LayerNormalization(
            axis=[1, 2, 3], center=False, scale=False, epsilon=1e-5, name="standardise"
        )(frames)
    return frames


Margins = tuple[tuple[int, int], tuple[int, int]]
"""Rows and columns to add, each before and after; negative ones are cropped."""

ABOVE = 0.25
"""Share of cropped rows that is above the window: nerves lie in the upper three quarters of the frames."""


def margins(size: tuple[int, int], multiple: int, window: float = 1.0) -> Margins:
    """Compute margins that make the sides of ``size`` divisible by ``multiple`` and keep at least ``window`` of them.

    Example: (80, 112) becomes (64, 96) with multiple 32 and window 0.8: 4 rows are cropped above, 12 below,
    and 8 columns on each side.
    """
    pairs = []
    for length, share_before in zip(size, (ABOVE, 0.5), strict=True):
        change = -(-round(length * window) // multiple) * multiple - length
        before = change // 2 if change > 0 else round(change * share_before)
        pairs.append((before, change - before))
    return pairs[0], pairs[1]


def apply_margins(tensor: keras.KerasTensor, margins: Margins) -> keras.KerasTensor:
    """Crop and zero-pad ``tensor`` (batch, h, w, channels) by ``margins``."""
    crop = cropping(margins)
    if crop != ((0, 0), (0, 0)):
        tensor = layers.Cropping2D(crop, name="window")(tensor)
    return layers.ZeroPadding2D(padding(margins), name="pad")(tensor)


def padding(margins: Margins) -> Margins:
    """Return the part of ``margins`` that is added."""
    (top, bottom), (left, right) = margins
    return (max(0, top), max(0, bottom)), (max(0, left), max(0, right))


def cropping(margins: Margins) -> Margins:
    """Return the part of ``margins`` that is cropped, as positive numbers."""
    (top, bottom), (left, right) = margins
    return padding(((-top, -bottom), (-left, -right)))


def level_channels(settings: ModelSettings, levels: int) -> list[int]:
    """Return the channels of each of ``levels`` resolutions, finest first: ``width`` doubled up to ``widest``."""
    return [min(settings.width * 2**level, settings.widest) for level in range(levels)]
