"""Layers that Keras has not: max pooling that remembers where, and its inverse.

As SegNet passes them from encoder to decoder (Badrinarayanan, Kendall, Cipolla 2015, arXiv:1511.00561).
"""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("kaggle_nerve")
class PoolWithPositions(keras.layers.Layer):
    """2x2 max pooling that also returns which pixel of each window was taken.

    Input: (batch, h, w, channels), h and w even. Output: the largest values and their positions, both
    (batch, h/2, w/2, channels); positions are uint8: 0 and 1 for the upper row, 2 and 3 for the lower.
    Of equal values the first is taken, and it alone receives the gradient.

    Example: [[1, 7], [7, 3]] gives the value 7 at the position 1.
    """

    def call(self, tensor: Any) -> tuple[Any, Any]:
        """(values, positions) of ``tensor``."""
        upper, upper_right = _larger(tensor[:, ::2, ::2], tensor[:, ::2, 1::2])
        lower, lower_right = _larger(tensor[:, 1::2, ::2], tensor[:, 1::2, 1::2])
        values, below = _larger(upper, lower)
        right = ops.where(below, lower_right, upper_right)
        return values, 2 * ops.cast(below, "uint8") + ops.cast(right, "uint8")


@keras.saving.register_keras_serializable("kaggle_nerve")
class Unpool(keras.layers.Layer):
    """The inverse of ``PoolWithPositions``: each value at its position in a 2x2 window, 0 elsewhere.

    Input: values and positions, both (batch, h, w, channels). Output: (batch, 2h, 2w, channels).

    Example: the value 5 at the position 1 gives [[0, 5], [0, 0]].
    """

    def call(self, values: Any, positions: Any) -> Any:
        """``values`` spread over windows of twice the height and width."""
        _, height, width, channels = values.shape
        pixels = [ops.where(positions == place, values, ops.zeros_like(values)) for place in range(4)]
        upper, lower = ops.stack(pixels[:2], axis=3), ops.stack(pixels[2:], axis=3)
        return ops.reshape(ops.stack([upper, lower], axis=2), (-1, 2 * height, 2 * width, channels))


def _larger(first: Any, second: Any) -> tuple[Any, Any]:
    """The larger of two tensors, and where it is the second."""
    chosen = second > first
    return ops.where(chosen, second, first), chosen
