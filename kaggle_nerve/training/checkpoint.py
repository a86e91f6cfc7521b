"""Where an unfinished fold stands, on disk after each epoch, whole at every moment.

``state.json`` is the only pointer: model files of an epoch are written first, then the pointer is
replaced, then older files go. A kill between any two of these steps leaves a state that can be read.
"""

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras

from kaggle_nerve.errors import NerveError
from kaggle_nerve.storage import atomic_path, read_json, write_json

FOLDER = "checkpoint"


@dataclass
class State:
    """Finished epochs, the schedule's progress, the best epoch so far, and one history row an epoch."""

    epoch: int = 0
    epochs: int = 0
    progress: float = 0.0
    best_epoch: int = 0
    best_dice: float = -1.0
    seconds: float = 0.0
    history: list[dict[str, Any]] = field(default_factory=list)


class Checkpoint:
    """The checkpoint of one fold's folder."""

    def __init__(self, fold_folder: Path):
        self.folder = fold_folder / FOLDER
        self.pointer = self.folder / "state.json"

    def save(self, model: keras.Model, state: State) -> None:
        """Store ``model`` with its optimiser, and ``state``; the best epoch's weights are kept too."""
        with atomic_path(self._model(state.epoch)) as path:
            model.save(path)
        if state.best_epoch == state.epoch:
            with atomic_path(self._best(state.epoch)) as path:
                model.save_weights(path)
        write_json(self.pointer, _without_nan(asdict(state)))
        keep = {self.pointer, self._model(state.epoch), self._best(state.best_epoch)}
        for path in self.folder.iterdir():
            if path not in keep:
                path.unlink(missing_ok=True)

    def restore(self) -> tuple[keras.Model, State] | None:
        """The model, compiled and with its optimiser, and the state; None where there is none."""
        if not self.pointer.is_file():
            return None
        state = State(**read_json(self.pointer))
        path = self._model(state.epoch)
        try:
            return keras.saving.load_model(path), state
        except (OSError, ValueError) as fault:
            raise NerveError(
                f"{path} cannot be loaded ({str(fault).splitlines()[0]}); delete {self.folder} to start the fold anew."
            ) from fault

    def load_best(self, model: keras.Model, state: State) -> None:
        """Put the best epoch's weights into ``model``."""
        model.load_weights(self._best(state.best_epoch))

    def remove(self) -> None:
        """Delete the checkpoint of a finished fold."""
        if self.folder.is_dir():
            for path in self.folder.iterdir():
                path.unlink(missing_ok=True)
            self.folder.rmdir()

    def _model(self, epoch: int) -> Path:
        return self.folder / f"epoch-{epoch:05d}.keras"

    def _best(self, epoch: int) -> Path:
        return self.folder / f"best-{epoch:05d}.weights.h5"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_nan(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
