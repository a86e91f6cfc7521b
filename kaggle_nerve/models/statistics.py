"""Recompute batch-normalisation statistics, which averaged weights lack."""

from collections.abc import Callable, Iterable, Iterator

import keras
import numpy as np


def recompute(model: keras.Model, batches: Iterable[np.ndarray]) -> None:
    """Set each batch normalisation's moving mean and variance to the mean over ``batches`` of frames.

    ``batches``: float32 (batch, height, width, 1), grey values from 0 to 255. As for stochastic weight
    averaging (Izmailov and others 2018, arXiv:1803.05407).
    """
    norms = list(_batch_norms(model))
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    sums = [np.zeros(variable.shape, np.float64) for norm in norms for variable in _moving(norm)]
    count = 0
    for norm in norms:
        norm.momentum = 0.0  # each pass replaces the statistics by those of its own batch
    try:
        update = _compile_update(model)
        for frames in batches:
            update(frames)
            count += 1
            for total, variable in zip(sums, (v for norm in norms for v in _moving(norm)), strict=True):
                total += keras.ops.convert_to_numpy(variable)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    for total, variable in zip(sums, (v for norm in norms for v in _moving(norm)), strict=True):
        variable.assign(total / max(count, 1))


def _compile_update(model: keras.Model) -> Callable[[np.ndarray], None]:
    """Compile a function that calls ``model`` on frames as in training. Keras compiles no call without a loss."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        graph = tf.function(lambda frames: model(frames, training=True))

        def update(frames: np.ndarray) -> None:
            graph(tf.constant(frames))

        return update
    import jax

    compiled = jax.jit(lambda *values: model.stateless_call(*values, training=True)[1])

    def update_from_outside(frames: np.ndarray) -> None:
        groups = model.trainable_variables, model.non_trainable_variables
        values = ([variable.value for variable in group] for group in groups)
        for variable, value in zip(groups[1], compiled(*values, frames), strict=True):
            variable.assign(value)

    return update_from_outside


def _batch_norms(model: keras.Model) -> Iterator[keras.layers.BatchNormalization]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _batch_norms(layer)
        elif isinstance(layer, keras.layers.BatchNormalization):
            yield layer


def _moving(norm: keras.layers.BatchNormalization) -> tuple[keras.Variable, keras.Variable]:
    return norm.moving_mean, norm.moving_variance
