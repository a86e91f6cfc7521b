"""Checkpoint of an unfinished fold, written after each epoch and consistent at every moment.

The state file is the only pointer: an epoch's files are written first, then the state file is replaced,
then older files are deleted. A kill between any two of these steps leaves a readable checkpoint.
"""

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kaggle_nerve.errors import NerveError
from kaggle_nerve.models.model_file import UNREADABLE, load_matching, read_model_file
from kaggle_nerve.models.opening import open_model
from kaggle_nerve.runs.run import read_state, state_file
from kaggle_nerve.settings import Settings
from kaggle_nerve.storage import atomic_path, write_json
from kaggle_nerve.training import optimisers

Weights = list[np.ndarray]
"""The values of ``model.weights``, in that order."""


@dataclass
class State:
    """Finished epochs, the schedule's progress, the best epoch so far, and one history row per epoch.

    ``epochs``: expected total. ``kept``: epochs whose weights stay on disk for the final model.
    ``averaged``: epochs in the running mean of weights. ``precision``: the dtype policy of the network.
    ``seeds``: the states of its random generators.
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
        """Return whether the schedule is complete or patience is exhausted."""
        patience = settings.training.patience
        waited = bool(patience) and self.epoch - self.best_epoch >= patience
        return bool(self.epoch) and (self.epoch >= self.epochs or waited)


class Checkpoint:
    """Checkpoint of the training stage in ``folder``."""

    def __init__(self, folder: Path):
        self._stage_folder = folder
        self.pointer = state_file(folder)
        self.folder = self.pointer.parent

    def save(self, model: keras.Model, state: State, mean: Weights | None = None) -> None:
        """Store ``model`` with its optimiser, ``state``, and the running ``mean`` of weights.

        Store this epoch's weights as well if it is one of ``state.kept``.
        """
        current_files = {self.pointer, self._model(state.epoch), *map(self._weights, state.kept)}
        with atomic_path(self._model(state.epoch)) as path:
            model.save(path)
        if state.epoch in state.kept:
            _write(self._weights(state.epoch), model.get_weights())
        if mean is not None:
            _write(self._mean(state.epoch), mean)
            current_files.add(self._mean(state.epoch))
        state.seeds = [keras.ops.convert_to_numpy(seed).tolist() for seed in _seeds(model)]
        write_json(self.pointer, without_nan(asdict(state)))
        for path in self.folder.iterdir():
            if path not in current_files:
                path.unlink(missing_ok=True)

    def restore(self, settings: Settings) -> tuple[keras.Model, State] | None:
        """Load the model, with its optimiser ready to continue, and the state; None if there is no checkpoint."""
        try:
            stored = read_state(self._stage_folder)
            if stored is None:
                return None
            state = State(**stored)
            path = self._model(state.epoch)
        except (ValueError, TypeError) as fault:
            raise NerveError(f"{self.pointer} is damaged ({_first_line(fault)}); {self._remedy}.") from fault
        if not path.is_file():
            raise NerveError(f"{path} is missing; {self._remedy}.")
        file = read_model_file(path, self._remedy)
        model = open_model(file, settings)
        optimisers.compile_for_training(model, settings, state.precision)
        if not load_matching(model, file, with_optimiser=True).is_exact:
            raise NerveError(
                f"Keras {file.keras_version} wrote {path}, and Keras {keras.__version__} keeps another optimiser's "
                f"state: `pip install keras=={file.keras_version}` to go on."
            )
        for variable, value in zip(_seeds(model), state.seeds, strict=True):
            variable.assign(np.array(value, variable.dtype))
        return model, state

    def weights(self, epoch: int) -> Weights:
        """Load the stored weights of a kept epoch."""
        return self._read(self._weights(epoch))

    def mean(self, state: State) -> Weights | None:
        """Load the running mean of weights; None before its first epoch."""
        return self._read(self._mean(state.epoch)) if state.averaged else None

    def remove(self) -> None:
        """Delete the checkpoint of a finished fold."""
        if self.folder.is_dir():
            for path in self.folder.iterdir():
                path.unlink(missing_ok=True)
            self.folder.rmdir()

    def _read(self, path: Path) -> Weights:
        try:
            with np.load(path) as stored:
                return [stored[f"arr_{number}"] for number in range(len(stored.files))]
        except UNREADABLE as fault:
            raise NerveError(f"{path} is damaged ({_first_line(fault)}); {self._remedy}.") from fault

    @property
    def _remedy(self) -> str:
        """What to do about a damaged file, as the end of a sentence."""
        return f"restore it from a copy, or delete {self.folder} to start the fold anew"

    def _model(self, epoch: int) -> Path:
        return self.folder / f"epoch-{epoch:05d}.keras"

    def _weights(self, epoch: int) -> Path:
        return self.folder / f"weights-{epoch:05d}.npz"

    def _mean(self, epoch: int) -> Path:
        return self.folder / f"mean-{epoch:05d}.npz"


def without_nan(value: Any) -> Any:
    """Replace NaN and infinities, which JSON lacks, by None."""
    if isinstance(value, dict):
        return {key: without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _seeds(model: keras.Model) -> list[keras.Variable]:
    """Return the states of the random generators (of dropout), which model files do not hold."""
    stored = {id(variable) for variable in model.weights}
    return [variable for variable in model.variables if id(variable) not in stored]


def _write(path: Path, weights: Weights) -> None:
    with atomic_path(path) as temporary:
        np.savez(temporary, *weights)


def _first_line(fault: Exception) -> str:
    return (str(fault).strip().splitlines() or [type(fault).__name__])[0]
