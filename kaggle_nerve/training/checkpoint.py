"""Where an unfinished fold stands, on disk after each epoch, whole at every moment.

The state is the only pointer: files of an epoch are written first, then the pointer is replaced,
then older files go. A kill between any two of these steps leaves a state that can be read.
"""

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kaggle_nerve.errors import NerveError
from kaggle_nerve.runs.run import state_file, stored_state
from kaggle_nerve.settings import Settings
from kaggle_nerve.storage import atomic_path, write_json
from kaggle_nerve.training import optimisers

Weights = list[np.ndarray]
"""The values of ``model.weights``, in that order."""


@dataclass
class State:
    """Finished epochs, the schedule's progress, the best epoch so far, and one history row an epoch.

    ``epochs``: how many there will be, as far as is known. ``kept``: the epochs whose weights are
    stored, for what comes after training. ``averaged``: epochs in the running mean of weights.
    ``precision``: the dtype policy that the network was built under. ``seeds``: the states of its
    random generators.
    """

    epoch: int = 0
    epochs: int = 0
    progress: float = 0.0
    best_epoch: int = 0
    best_dice: float = -1.0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    averaged: int = 0
    precision: str = "float32"
    seeds: list[list[int]] = field(default_factory=list)

    def ended(self, settings: Settings) -> bool:
        """Whether the schedule ran to its end, or patience did."""
        patience = settings.training.patience
        waited = bool(patience) and self.epoch - self.best_epoch >= patience
        return bool(self.epoch) and (self.epoch >= self.epochs or waited)


class Checkpoint:
    """The checkpoint of the stage that is trained in ``folder``."""

    def __init__(self, folder: Path):
        self._stage = folder
        self.pointer = state_file(folder)
        self.folder = self.pointer.parent

    def save(self, model: keras.Model, state: State, mean: Weights | None = None) -> None:
        """Store ``model`` with its optimiser, ``state``, and the running ``mean`` of weights.

        Of the epochs that ``state`` keeps, this one's weights are stored too.
        """
        wanted = {self.pointer, self._model(state.epoch), *map(self._weights, state.kept)}
        with atomic_path(self._model(state.epoch)) as path:
            model.save(path)
        if state.epoch in state.kept:
            _write(self._weights(state.epoch), model.get_weights())
        if mean is not None:
            _write(self._mean(state.epoch), mean)
            wanted.add(self._mean(state.epoch))
        state.seeds = [keras.ops.convert_to_numpy(seed).tolist() for seed in _seeds(model)]
        write_json(self.pointer, without_nan(asdict(state)))
        for path in self.folder.iterdir():
            if path not in wanted:
                path.unlink(missing_ok=True)

    def restore(self, settings: Settings) -> tuple[keras.Model, State] | None:
        """The model, ready to go on with its optimiser where it was, and the state; None where there is none."""
        try:
            stored = stored_state(self._stage)
            if stored is None:
                return None
            state = State(**stored)
            model = keras.saving.load_model(self._model(state.epoch))
        except (OSError, ValueError, TypeError) as fault:
            raise NerveError(
                f"{self.folder} cannot be read ({str(fault).splitlines()[0]}); delete it to start the fold anew."
            ) from fault
        values = [np.array(keras.ops.convert_to_numpy(variable)) for variable in model.optimizer.variables]
        # Compiled anew: a loaded optimiser has forgotten which weights it must not decay.
        optimisers.make_ready(model, settings, state.precision)
        for variable, value in zip(model.optimizer.variables, values, strict=True):
            variable.assign(value)
        for variable, value in zip(_seeds(model), state.seeds, strict=True):
            variable.assign(np.array(value, variable.dtype))
        return model, state

    def weights(self, epoch: int) -> Weights:
        """The stored weights of a kept epoch."""
        return _read(self._weights(epoch))

    def mean(self, state: State) -> Weights | None:
        """The running mean of weights, None before its first epoch."""
        return _read(self._mean(state.epoch)) if state.averaged else None

    def remove(self) -> None:
        """Delete the checkpoint of a finished fold."""
        if self.folder.is_dir():
            for path in self.folder.iterdir():
                path.unlink(missing_ok=True)
            self.folder.rmdir()

    def _model(self, epoch: int) -> Path:
        return self.folder / f"epoch-{epoch:05d}.keras"

    def _weights(self, epoch: int) -> Path:
        return self.folder / f"weights-{epoch:05d}.npz"

    def _mean(self, epoch: int) -> Path:
        return self.folder / f"mean-{epoch:05d}.npz"


def without_nan(value: Any) -> Any:
    """``value`` with None for every number that JSON has not: NaN and the infinities."""
    if isinstance(value, dict):
        return {key: without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _seeds(model: keras.Model) -> list[keras.Variable]:
    """The states of the random generators (of dropout), which no model file holds."""
    held = {id(variable) for variable in model.weights}
    return [variable for variable in model.variables if id(variable) not in held]


def _write(path: Path, weights: Weights) -> None:
    with atomic_path(path) as temporary:
        np.savez(temporary, *weights)


def _read(path: Path) -> Weights:
    try:
        with np.load(path) as stored:
            return [stored[f"arr_{number}"] for number in range(len(stored.files))]
    except (OSError, ValueError) as fault:
        raise NerveError(
            f"{path} cannot be read ({fault}); delete {path.parent} to start the fold anew."
        ) from fault
