"""Final weights of a fold: the best epoch's, a mean of weights, or an ensemble (``training.average``).

``best`` and ``top`` select epochs by their score on the held-out subjects, so the fold's own score is optimistic.
Batch-norm statistics fit one set of weights, so averaged weights get new statistics.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import keras
import numpy as np

from kaggle_nerve.data.batches import Batches, prefetch
from kaggle_nerve.models import snapshots, statistics
from kaggle_nerve.settings import Settings
from kaggle_nerve.training import schedule
from kaggle_nerve.training.checkpoint import Checkpoint, State, Weights
from kaggle_nerve.training.validation import rank

MEANS = ("ema", "swa", "top")
"""The methods whose weights are a mean, so that their batch-norm statistics must be recomputed."""

STATISTICS_BATCHES = 32
"""Training batches used to recompute the batch-norm statistics of averaged weights."""


def epochs_to_keep(state: State, settings: Settings, cycle_ended: bool) -> list[int]:
    """Return the epochs whose weights must stay on disk, given the latest ``state.history``.

    ``best``: the best epoch; ``top``: the best few; ``snapshots``: the last epoch of each cycle.
    """
    training = settings.training
    if training.average == "best":
        return [state.best_epoch] if state.best_epoch else []
    if training.average == "top":
        scored = [row for row in state.history if row.get("dice") is not None]
        ranked = sorted(scored, key=rank, reverse=True)
        return sorted(row["epoch"] for row in ranked[: training.top])
    if training.average == "snapshots":
        return [*state.kept, state.epoch] if cycle_ended else state.kept
    return []


def joins_mean(state: State, settings: Settings) -> bool:
    """Return whether stochastic weight averaging includes the epoch just finished."""
    training = settings.training
    return training.average == "swa" and state.progress >= 1 - training.swa_share - schedule.TOLERANCE


def running_mean(mean: Weights | None, count: int, weights: Weights) -> Weights:
    """Update the mean of ``count`` sets of weights with one more (Izmailov and others 2018, arXiv:1803.05407)."""
    if mean is None:
        return [np.array(values) for values in weights]
    return [
        (old + (new.astype(np.float64) - old) / (count + 1)).astype(old.dtype)
        for old, new in zip(mean, weights, strict=True)
    ]


@contextmanager
def scoring_weights(model: keras.Model, settings: Settings) -> Iterator[None]:
    """Give ``model`` the weights to score an epoch with, and restore the raw ones afterwards.

    These are the exponential means with ``ema``, the raw weights otherwise. Batch-norm statistics stay
    those of the raw weights: recomputing them takes as long as the score itself, and by the end of the
    schedule, when the score matters, the two hardly differ.
    """
    if settings.training.average != "ema":
        yield
        return
    raw = [np.array(keras.ops.convert_to_numpy(variable)) for variable in model.trainable_variables]
    _put_exponential_means(model)
    try:
        yield
    finally:
        for variable, value in zip(model.trainable_variables, raw, strict=True):
            variable.assign(value)


def final_model(
    model: keras.Model, state: State, checkpoint: Checkpoint, settings: Settings, batches: Batches
) -> keras.Model:
    """Give ``model`` its final weights according to ``training.average``, or build an ensemble.

    ``best``: the best-scored epoch (the last if none was scored), so its score is optimistic. ``snapshots``: an
    ensemble. Others: mean weights with new batch-norm statistics.
    """
    average = settings.training.average
    if average == "best":
        if state.best_epoch:
            model.set_weights(checkpoint.weights(state.best_epoch))
        return model
    if average == "snapshots":
        return ensemble(model, [checkpoint.weights(epoch) for epoch in state.kept])
    if average == "ema":
        _put_exponential_means(model)
    elif average == "top":
        mean: Weights | None = None
        for count, epoch in enumerate(state.kept):
            mean = running_mean(mean, count, checkpoint.weights(epoch))
        model.set_weights(mean)
    elif (mean := checkpoint.mean(state)) is not None:
        model.set_weights(mean)
    statistics.recompute(model, _frames(batches, state.epoch))
    return model


def ensemble(model: keras.Model, members: list[Weights]) -> keras.Model:
    """Build one network that runs ``model`` with each set of weights and averages the outputs.

    With fewer than two members, return ``model`` itself, with the only member's weights if there is one.
    """
    if len(members) < 2:
        for weights in members:
            model.set_weights(weights)
        return model
    combined = snapshots.combine(model, len(members))
    for number, weights in enumerate(members):
        combined.get_layer(snapshots.member_name(number)).set_weights(weights)
    return combined


def _put_exponential_means(model: keras.Model) -> None:
    model.optimizer.finalize_variable_values(model.trainable_variables)
    for variable in model.trainable_variables:
        # Copy: on JAX the mean and the weight would share one buffer, which Keras lets a forward pass overwrite.
        variable.assign(np.array(keras.ops.convert_to_numpy(variable)))


def _frames(batches: Batches, epoch: int) -> Iterator[np.ndarray]:
    batches.start_epoch(epoch)
    return prefetch(lambda index: batches[index][0], min(STATISTICS_BATCHES, len(batches)))
