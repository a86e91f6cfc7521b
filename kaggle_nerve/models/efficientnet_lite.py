"""EfficientNet-Lite: EfficientNet for processors and phones, without squeeze-and-excitation, with ReLU6.

After Tan, Le 2019 (arXiv:1905.11946) and the variants that Google published in 2020 as
tensorflow/tpu/models/official/efficientnet/lite. Layers are named after the published weights, except that the
normalisation of a block's expanded channels has ``expand`` in its name.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import keras
import numpy as np
from keras import layers

from kaggle_nerve.models.layers import FusedBatchNormalization

EPSILON = 1e-3
"""Epsilon of the normalisations, as published."""

MOMENTUM = 0.95
"""Momentum of the normalisations: runs on a processor have too few steps for a higher one."""


@dataclass(frozen=True)
class Stage:
    """Blocks of one kind: number of blocks, kernel, stride of the first, expansion factor, channels."""

    blocks: int
    kernel: int
    stride: int
    widen: int
    channels: int


STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)
EXPAND_NORM = "_expand_bn0"
"""Name of that normalisation: a decoder reads the maps before a block expands them."""

STEM, HEAD = 32, 1280
"""Channels of the first and of the last convolution, the same in every variant."""

VARIANTS = {
    "efficientnet-lite0": (1.0, 1.0),
    "efficientnet-lite1": (1.0, 1.1),
    "efficientnet-lite2": (1.1, 1.2),
}
"""Factors on the channels and on the blocks of a stage."""


def build(variant: str, input_shape: tuple[int, int, int]) -> keras.Model:
    """Build the network with random weights, without classifier: (height, width, 3) to 1280 channels at stride 32."""
    wider, deeper = VARIANTS[variant]
    image = keras.Input(input_shape, name="image")
    tensor = _convolution(image, STEM, "_conv_stem", "_bn0", kernel=3, stride=2)
    number = 0
    for place, stage in enumerate(STAGES):
        # The number of blocks in the first and the last stage is never scaled.
        inner = 0 < place < len(STAGES) - 1
        for repeat in range(math.ceil(stage.blocks * deeper) if inner else stage.blocks):
            stride = 1 if repeat else stage.stride
            tensor = _block(
                tensor, stage, stride, _round_channels(stage.channels * wider), f"_blocks.{number}."
            )
            number += 1
    tensor = _convolution(tensor, HEAD, "_conv_head", "_bn1")
    return keras.Model(image, tensor, name=variant)


def load_published(model: keras.Model, arrays: Mapping[str, np.ndarray]) -> None:
    """Load the published weights, with PyTorch's names and order of axes, into a ``model`` from `build`.

    Raise KeyError for a missing array, ValueError for one of another shape.
    """
    for layer in model.layers:
        if isinstance(layer, FusedBatchNormalization):
            names = ("weight", "bias", "running_mean", "running_var")
            published = layer.name.replace(EXPAND_NORM, "_bn0")
            layer.set_weights([arrays[f"{published}.{name}"] for name in names])
        elif isinstance(layer, layers.DepthwiseConv2D):
            layer.set_weights([arrays[f"{layer.name}.weight"].transpose(2, 3, 0, 1)])
        elif isinstance(layer, layers.Conv2D):
            layer.set_weights([arrays[f"{layer.name}.weight"].transpose(2, 3, 1, 0)])


def _block(
    tensor: keras.KerasTensor, stage: Stage, stride: int, channels: int, prefix: str
) -> keras.KerasTensor:
    """Apply an inverted residual (Sandler and others 2018, arXiv:1801.04381): expand, convolve by channel, project."""
    before = tensor
    if stage.widen > 1:
        wide = tensor.shape[-1] * stage.widen
        tensor = _convolution(tensor, wide, f"{prefix}_expand_conv", f"{prefix}{EXPAND_NORM}")
    name = f"{prefix}_depthwise_conv"
    tensor = layers.DepthwiseConv2D(stage.kernel, stride, padding="same", use_bias=False, name=name)(tensor)
    tensor = _relu6(_batch_norm(tensor, f"{prefix}_bn1"), name)
    tensor = layers.Conv2D(channels, 1, use_bias=False, name=f"{prefix}_project_conv")(tensor)
    tensor = _batch_norm(tensor, f"{prefix}_bn2")
    if stride == 1 and before.shape[-1] == channels:
        tensor = layers.Add(name=f"{prefix}_sum")([before, tensor])
    return tensor


def _convolution(
    tensor: keras.KerasTensor, channels: int, name: str, norm: str, kernel: int = 1, stride: int = 1
) -> keras.KerasTensor:
    tensor = layers.Conv2D(channels, kernel, stride, padding="same", use_bias=False, name=name)(tensor)
    return _relu6(_batch_norm(tensor, norm), name)


def _batch_norm(tensor: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return FusedBatchNormalization(momentum=MOMENTUM, epsilon=EPSILON, name=name)(tensor)


def _relu6(tensor: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return layers.ReLU(6.0, name=f"{name}_relu6")(tensor)


def _round_channels(channels: float) -> int:
    """Round to a multiple of 8, but never to less than nine tenths of ``channels``."""
    whole = max(8, int(channels + 4) // 8 * 8)
    return whole + 8 if whole < 0.9 * channels else whole
