"""Which weights a finished fold has: the best epoch's, a mean, or an ensemble (``training.average``).

But for ``best`` nothing is picked by a score on the fold that it is then scored on. Batch-norm
statistics belong to the weights that made them: weights that were averaged get new ones.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import keras
import numpy as np
from keras import layers

from kaggle_nerve.data.batches import Batches
from kaggle_nerve.models import statistics
from kaggle_nerve.settings import Settings
from kaggle_nerve.training import schedule
from kaggle_nerve.training.checkpoint import Checkpoint, State, Weights

MEANS = ("ema", "swa", "top")
"""The ways that end in weights which no batch has seen."""

STATISTICS_BATCHES = 32
"""Training batches whose statistics averaged weights get."""


def kept_epochs(state: State, settings: Settings, cycle_ended: bool) -> list[int]:
    """The epochs whose weights are needed later on, after one more row of ``state.history``.

    ``best``: the best; ``top``: the best ones; ``snapshots``: those at the ends of cycles.
    """
    training = settings.training
    if training.average == "best":
        return [state.best_epoch] if state.best_epoch else []
    if training.average == "top":
        scored = [row for row in state.history if row.get("dice") is not None]
        ranked = sorted(scored, key=lambda row: row["dice"], reverse=True)
        return sorted(row["epoch"] for row in ranked[: training.top])
    if training.average == "snapshots":
        return [*state.kept, state.epoch] if cycle_ended else state.kept
    return []


def joins_mean(state: State, settings: Settings) -> bool:
    """Whether the epoch just finished is of those that stochastic weight averaging takes the mean of."""
    training = settings.training
    return training.average == "swa" and state.progress >= 1 - training.swa_share - schedule.CLOSE


def running_mean(mean: Weights | None, count: int, weights: Weights) -> Weights:
    """The mean of ``count`` weights with one more (Izmailov and others 2018, arXiv:1803.05407)."""
    if mean is None:
        return [np.array(values) for values in weights]
    return [
        (old + (new.astype(np.float64) - old) / (count + 1)).astype(old.dtype)
        for old, new in zip(mean, weights, strict=True)
    ]


@contextmanager
def scored_weights(model: keras.Model, settings: Settings) -> Iterator[None]:
    """Within, ``model`` has the weights that an epoch is scored with: under ``ema`` the exponential means.

    Batch-norm statistics stay those of the raw weights here: to measure them anew takes as long as
    the score itself, and by the end of the schedule, where it counts, the two hardly differ.
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
    """``model`` after the last epoch, turned into what ``training.average`` says, or an ensemble.

    ``best`` is the epoch that scored best, and so is tuned on the held-out subjects by that choice; the last
    one where none was scored.
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
    """One network that runs ``model`` with each of the weights and returns the mean of the outputs.

    Without members it is ``model`` as it is.
    """
    if len(members) < 2:
        for weights in members:
            model.set_weights(weights)
        return model
    frames = keras.Input(model.input_shape[1:], name="frames")
    outputs: dict[str, list[keras.KerasTensor]] = {name: [] for name in model.output}
    for number, weights in enumerate(members):
        member = type(model).from_config({**model.get_config(), "name": f"snapshot{number}"})
        member.set_weights(weights)
        for name, values in member(frames).items():
            outputs[name].append(values)
    means = {name: layers.Average(dtype="float32", name=name)(values) for name, values in outputs.items()}
    return keras.Model(frames, means, name="snapshots")


def _put_exponential_means(model: keras.Model) -> None:
    model.optimizer.finalize_variable_values(model.trainable_variables)
    for variable in model.trainable_variables:
        # On JAX the mean's own array is now the weight's too, and a forward pass gives it away.
        variable.assign(np.array(keras.ops.convert_to_numpy(variable)))


def _frames(batches: Batches, epoch: int) -> Iterable[np.ndarray]:
    batches.start_epoch(epoch)
    return (batches[index][0] for index in range(min(STATISTICS_BATCHES, len(batches))))
