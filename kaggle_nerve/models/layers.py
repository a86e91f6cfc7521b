"""Layers that Keras lacks: max pooling with positions, its inverse, and batch normalisation in one kernel.

SegNet passes the positions from encoder to decoder (Badrinarayanan, Kendall, Cipolla 2015, arXiv:1511.00561).
Only the batch normalisation depends on a particular framework; nothing else in the networks does.
"""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("kaggle_nerve")
class PoolWithPositions(keras.layers.Layer):
    """2x2 max pooling that also returns the position of each window's maximum.

    Input: (batch, h, w, channels), h and w even. Output: the largest values and their positions, both
    (batch, h/2, w/2, channels); positions are uint8: 0 and 1 for the upper row, 2 and 3 for the lower.
    Of equal values the first is the maximum, and only it receives the gradient.

    Example: [[1, 7], [7, 3]] gives the value 7 at the position 1.
    """

    def call(self, tensor: Any) -> tuple[Any, Any]:
        """Return (values, positions) of ``tensor``."""
        upper, upper_right = _larger(tensor[:, ::2, ::2], tensor[:, ::2, 1::2])
        lower, lower_right = _larger(tensor[:, 1::2, ::2], tensor[:, 1::2, 1::2])
        values, below = _larger(upper, lower)
        right = ops.where(below, lower_right, upper_right)
        return values, 2 * ops.cast(below, "uint8") + ops.cast(right, "uint8")


@keras.saving.register_keras_serializable("kaggle_nerve")
class Unpool(keras.layers.Layer):
    """Inverse of ``PoolWithPositions``: each value at its position in a 2x2 window, 0 elsewhere.

    Input: values and positions, both (batch, h, w, channels). Output: (batch, 2h, 2w, channels).

    Example: the value 5 at the position 1 gives [[0, 5], [0, 0]].
    """

    def call(self, values: Any, positions: Any) -> Any:
        """Place ``values`` in windows, for twice the height and width."""
        _, height, width, channels = values.shape
        pixels = [ops.where(positions == place, values, ops.zeros_like(values)) for place in range(4)]
        upper, lower = ops.stack(pixels[:2], axis=3), ops.stack(pixels[2:], axis=3)
        return ops.reshape(ops.stack([upper, lower], axis=2), (-1, 2 * height, 2 * width, channels))


@keras.saving.register_keras_serializable("kaggle_nerve")
class FusedBatchNormalization(keras.layers.BatchNormalization):
    """Drop-in `keras.layers.BatchNormalization` of (batch, height, width, channels), faster in training."""

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalise by the batch's own statistics in training, otherwise by the moving ones."""
        if not training or not self.trainable or mask is not None:
            return super().call(inputs, training=training, mask=mask)
        normalised = _batch_normalise(inputs, self.gamma, self.beta, self.epsilon)
        if normalised is None:
            return super().call(inputs, training=training, mask=mask)
        outputs, *statistics = normalised
        for moving, value in zip((self.moving_mean, self.moving_variance), statistics, strict=True):
            moving.assign(
                moving * self.momentum + keras.ops.cast(value, moving.dtype) * (1.0 - self.momentum)
            )
        return outputs


def _larger(first: Any, second: Any) -> tuple[Any, Any]:
    """Return the elementwise maximum of two tensors, and a mask of where it is the second."""
    is_second = second > first
    return ops.where(is_second, second, first), is_second


def _batch_normalise(inputs: Any, gamma: Any, beta: Any, epsilon: float) -> tuple[Any, Any, Any] | None:
    """Normalise ``inputs`` (batch, height, width, channels) by their own statistics: (outputs, mean, variance).

    The variance is the biased one, as in Keras. Return None on backends without such a kernel, or without
    need for it because the compiler fuses the operations.

    Keras uses a dozen elementwise operations. On a processor they take a third of the time of the convolutions
    between them, since each reads the memory again; PyTorch, which has one kernel, was that much faster.
    """
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=inputs,
        scale=tf.cast(gamma, tf.float32),
        offset=tf.cast(beta, tf.float32),
        mean=tf.zeros([0]),
        variance=tf.zeros([0]),
        epsilon=epsilon,
        is_training=True,
    )
    count = tf.cast(tf.size(inputs) / tf.shape(inputs)[-1], tf.float32)
    return outputs, mean, variance * (count - 1) / count
