"""Recompute batch-normalisation statistics, which averaged weights lack."""

from collections.abc import Iterable, Iterator

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
        for frames in batches:
            model(frames, training=True)
            count += 1
            for total, variable in zip(sums, (v for norm in norms for v in _moving(norm)), strict=True):
                total += keras.ops.convert_to_numpy(variable)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    for total, variable in zip(sums, (v for norm in norms for v in _moving(norm)), strict=True):
        variable.assign(total / max(count, 1))


def _batch_norms(model: keras.Model) -> Iterator[keras.layers.BatchNormalization]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _batch_norms(layer)
        elif isinstance(layer, keras.layers.BatchNormalization):
            yield layer


def _moving(norm: keras.layers.BatchNormalization) -> tuple[keras.Variable, keras.Variable]:
    return norm.moving_mean, norm.moving_variance
