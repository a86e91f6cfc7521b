"""DeepLabV3+ (Chen and others 2018, arXiv:1802.02611): atrous pyramid pooling and a small decoder."""

import keras
from keras import layers

from kaggle_nerve.models import blocks, downward, heads
from kaggle_nerve.settings import ModelSettings

RATES = (6, 12, 18)
"""Atrous rates of the paper, for maps of 33x33."""

RATES_SIZE = 33


def build(size: tuple[int, int], settings: ModelSettings) -> keras.Model:
    """Build a DeepLabV3+ for frames of ``size`` (height, width), with the inputs and outputs of ``unet.build``.

    A ``width`` of 64 gives the paper's 256 channels, and 48 channels for the encoder's features at stride 4.
    The pyramid pooling is at stride 16, as in the paper. The paper omits the encoder's last halving and makes
    its convolutions atrous; Keras's encoders do not allow this, so their features at stride 32 are enlarged
    and concatenated instead. At stride 32 itself, frames of 96x128 would be 3x4 pixels, where an atrous
    convolution covers little but its centre.
    """
    frames = keras.Input((*size, 1), name="frames")
    features = downward.features(frames, size, settings)
    channels = min(4 * settings.width, settings.widest)
    # Reduce the channels first: the deepest map has by far the most.
    deepest = blocks.convolution(features.bottom, channels, settings, "deepest", kernel=1)
    tensor = layers.Concatenate(name="join_deepest")([features.skips[-1], _enlarge(deepest, 2, "deepest")])
    tensor = pyramid_pooling(tensor, channels, settings)

    fine = blocks.convolution(features.skips[1], max(1, 3 * settings.width // 4), settings, "fine", kernel=1)
    tensor = _enlarge(tensor, fine.shape[1] // tensor.shape[1], "pooled")
    tensor = layers.Concatenate(name="join_fine")([fine, tensor])
    for step in range(2):
        tensor = separable_convolution(tensor, channels, settings, f"decoder{step}")
    outputs = heads.outputs(tensor, features.deepest, settings, features.margins, 2 * features.stem)
    return keras.Model(frames, outputs, name="deeplabv3plus")


def pyramid_pooling(tensor: keras.KerasTensor, channels: int, settings: ModelSettings) -> keras.KerasTensor:
    """Apply atrous spatial pyramid pooling: (batch, h, w, any) to (batch, h, w, ``channels``).

    A 1x1 convolution, three atrous ones and the mean over the map in parallel, then a 1x1 convolution over
    all of them.
    """
    height, width = tensor.shape[1:3]
    parts = [blocks.convolution(tensor, channels, settings, "point", kernel=1)]
    parts += [
        separable_convolution(tensor, channels, settings, f"atrous{number}", rate)
        for number, rate in enumerate(rates((height, width)))
    ]
    mean = layers.GlobalAveragePooling2D(keepdims=True, name="mean")(tensor)
    mean = blocks.convolution(mean, channels, settings, "mean", kernel=1)
    parts.append(layers.UpSampling2D((height, width), name="mean_enlarge")(mean))
    return blocks.convolution(layers.Concatenate(name="join_pooled")(parts), channels, settings, "pooled", 1)


def separable_convolution(
    tensor: keras.KerasTensor, channels: int, settings: ModelSettings, name: str, rate: int = 1
) -> keras.KerasTensor:
    """Apply a 3x3 depthwise convolution, with ``rate`` - 1 pixels between its taps, then a 1x1 convolution."""
    tensor = layers.DepthwiseConv2D(
        3, padding="same", dilation_rate=rate, use_bias=not settings.batch_norm, name=f"{name}_depthwise"
    )(tensor)
    tensor = blocks.activation(
        blocks.batch_norm(tensor, settings, f"{name}_depthwise"), settings, f"{name}_depthwise"
    )
    return blocks.convolution(tensor, channels, settings, name, kernel=1)


def rates(size: tuple[int, int]) -> tuple[int, ...]:
    """Scale the paper's atrous rates to the shorter side of maps of ``size`` (height, width).

    Example: (28, 36) gives (5, 10, 15).
    """
    return tuple(max(1, round(min(size) * rate / RATES_SIZE)) for rate in RATES)


def _enlarge(tensor: keras.KerasTensor, scale: int, name: str) -> keras.KerasTensor:
    return layers.UpSampling2D(scale, interpolation="bilinear", name=f"{name}_enlarge")(tensor)
