"""DeepLabV3+ (Chen and others 2018, arXiv:1802.02611): atrous pyramid pooling and a small decoder."""

import keras
from keras import layers

from kaggle_nerve.models import blocks, downward, heads
from kaggle_nerve.settings import ModelSettings

RATES = (6, 12, 18)
"""The paper's atrous rates, for maps of 33x33."""

RATES_SIZE = 33


def build(size: tuple[int, int], settings: ModelSettings) -> keras.Model:
    """A DeepLabV3+ for frames of ``size`` (height, width), with the inputs and outputs of ``unet.build``.

    A ``width`` of 64 gives the paper's 256 channels, and 48 of the encoder's features at stride 4. The
    pyramid pooling looks at stride 16, as in the paper. There the encoder's last halving is left out and
    its convolutions made atrous; Keras's encoders cannot be changed so, and their features at stride 32
    are enlarged and joined instead. At stride 32 itself frames of 96x128 would be 3x4 pixels, on which
    an atrous convolution sees little but its centre.
    """
    frames = keras.Input((*size, 1), name="frames")
    found = downward.features(frames, size, settings)
    channels = min(4 * settings.width, settings.widest)
    # Narrowed first: the deepest map is by far the widest.
    deepest = blocks.convolution(found.bottom, channels, settings, "deepest", kernel=1)
    tensor = layers.Concatenate(name="join_deepest")([found.skips[-1], _enlarged(deepest, 2, "deepest")])
    tensor = pooled(tensor, channels, settings)

    fine = blocks.convolution(found.skips[1], max(1, 3 * settings.width // 4), settings, "fine", kernel=1)
    tensor = _enlarged(tensor, fine.shape[1] // tensor.shape[1], "pooled")
    tensor = layers.Concatenate(name="join_fine")([fine, tensor])
    for step in range(2):
        tensor = separable(tensor, channels, settings, f"decoder{step}")
    outputs = heads.outputs(tensor, found.deepest, settings, found.margins, 2 * found.stem)
    return keras.Model(frames, outputs, name="deeplabv3plus")


def pooled(tensor: keras.KerasTensor, channels: int, settings: ModelSettings) -> keras.KerasTensor:
    """Atrous spatial pyramid pooling: (batch, h, w, any) to (batch, h, w, ``channels``).

    A 1x1 convolution, three atrous ones and the mean over the map, side by side, then a 1x1 convolution
    over all of them.
    """
    height, width = tensor.shape[1:3]
    parts = [blocks.convolution(tensor, channels, settings, "point", kernel=1)]
    parts += [
        separable(tensor, channels, settings, f"atrous{number}", rate)
        for number, rate in enumerate(rates((height, width)))
    ]
    mean = layers.GlobalAveragePooling2D(keepdims=True, name="mean")(tensor)
    mean = blocks.convolution(mean, channels, settings, "mean", kernel=1)
    parts.append(layers.UpSampling2D((height, width), name="mean_enlarge")(mean))
    return blocks.convolution(layers.Concatenate(name="join_pooled")(parts), channels, settings, "pooled", 1)


def separable(
    tensor: keras.KerasTensor, channels: int, settings: ModelSettings, name: str, rate: int = 1
) -> keras.KerasTensor:
    """A 3x3 convolution of each channel, with ``rate`` - 1 pixels between its taps, then a 1x1 of all."""
    tensor = layers.DepthwiseConv2D(
        3, padding="same", dilation_rate=rate, use_bias=not settings.batch_norm, name=f"{name}_depthwise"
    )(tensor)
    tensor = blocks.activated(
        blocks.normed(tensor, settings, f"{name}_depthwise"), settings, f"{name}_depthwise"
    )
    return blocks.convolution(tensor, channels, settings, name, kernel=1)


def rates(size: tuple[int, int]) -> tuple[int, ...]:
    """Atrous rates for maps of ``size`` (height, width): the paper's share of the shorter side.

    Example: (28, 36) gives (5, 10, 15).
    """
    return tuple(max(1, round(min(size) * rate / RATES_SIZE)) for rate in RATES)


def _enlarged(tensor: keras.KerasTensor, scale: int, name: str) -> keras.KerasTensor:
    return layers.UpSampling2D(scale, interpolation="bilinear", name=f"{name}_enlarge")(tensor)
