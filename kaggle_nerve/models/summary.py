"""Summary of a network as a table."""

from typing import NamedTuple

import keras


class Row(NamedTuple):
    """One layer: its name, its class, its output's (h, w, channels) as text, and its parameters."""

    name: str
    kind: str
    shape: str
    parameters: int


class Counts(NamedTuple):
    """Number of parameters trained by gradients, and of the others (such as moving means)."""

    trainable: int
    fixed: int


def layer_table(model: keras.Model) -> list[Row]:
    """List a row for each layer of ``model``, in order; a nested network, such as an encoder, is one row.

    The shape is without the batch: ``24 x 32 x 8``, or ``1`` for a single number; several outputs are
    separated by commas.
    """
    return [
        Row(layer.name, type(layer).__name__, _shape(layer), layer.count_params()) for layer in model.layers
    ]


def parameter_counts(model: keras.Model) -> Counts:
    """Count the parameters of ``model``."""
    trainable = sum(_size(weight) for weight in model.trainable_weights)
    return Counts(trainable, model.count_params() - trainable)


def _shape(layer: keras.layers.Layer) -> str:
    outputs = keras.tree.flatten(layer.output)
    return ", ".join(" x ".join(str(length) for length in tensor.shape[1:]) for tensor in outputs)


def _size(weight: keras.Variable) -> int:
    size = 1
    for length in weight.shape:
        size *= length
    return size
