"""Initial weights from another run's fold of the same number, or from any model file."""

import io
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import h5py
import keras
import numpy as np

from kaggle_nerve.data import folds as folding
from kaggle_nerve.errors import NerveError
from kaggle_nerve.runs import Fold, Run
from kaggle_nerve.runs.run import is_run

WEIGHTS_MEMBER = "model.weights.h5"
"""Name of the weights file within a .keras archive."""


@dataclass(frozen=True)
class Source:
    """Weights file, and a sentence about it for the user."""

    path: Path
    sentence: str


def locate_source(start: str, runs_dir: Path) -> Path:
    """Return the model file or the run's folder that ``training.start`` names; raise NerveError if it is neither."""
    path = Path(start)
    if path.is_file():
        return path
    for folder in (path, runs_dir / start):
        if is_run(folder):
            return folder
    raise NerveError(
        f"training.start={start} is neither a model file nor a run in {runs_dir}; correct the setting."
    )


def find_weights(start: str, fold: Fold) -> Source:
    """Find the weights file that ``training.start`` names for ``fold``.

    ``start`` is a .keras or .weights.h5 file, a run's folder, or the name of a run beside this one.
    From a run, use the fold of the same number; raise NerveError if it does not hold out the same subjects,
    since that network would have been trained on some of this fold's held-out subjects. For a file, the user must
    rule out such leakage.
    """
    path = locate_source(start, fold.run.folder.parent)
    if path.is_file():
        return Source(
            path, f"Starting from {path}: make sure that it never saw this fold's held-out subjects."
        )
    source_fold = Run(path, fold.run.settings).fold(fold.number)
    if not source_fold.model.is_file():
        raise NerveError(
            f"training.start={start} has no finished fold {fold.number}; train that run's fold first."
        )
    if _held_subjects(source_fold) != _held_subjects(fold):
        raise NerveError(
            f"Fold {fold.number} of training.start={start} held out other subjects, so it has seen some of those "
            f"held out here; start from a run with the same {fold.run.folds_csv.name}."
        )
    return Source(source_fold.model, f"Starting from fold {fold.number} of run {path.name}.")


def load_matching(model: keras.Model, path: Path) -> tuple[int, int]:
    """Load the weights in ``path`` into ``model`` where layer names and shapes match.

    Return how many arrays were loaded, and how many ``model`` has. Raise NerveError if none matches or
    the file cannot be read.
    """
    with tempfile.TemporaryDirectory() as folder:
        own_path = Path(folder) / "own.weights.h5"
        model.save_weights(own_path)
        with _open(path) as source, h5py.File(own_path, "r+") as target:
            stored, own_arrays = _arrays(source), _arrays(target)
            loaded = 0
            for name, dataset in own_arrays.items():
                if name in stored and stored[name].shape == dataset.shape:
                    dataset[...] = np.asarray(stored[name])
                    loaded += 1
        if not loaded:
            raise NerveError(
                f"{path} has no weights for this network; start from one with the same architecture."
            )
        model.load_weights(own_path)
    return loaded, len(own_arrays)


def _held_subjects(fold: Fold) -> set[int]:
    folds = folding.load(fold.run.folds_csv)
    return set(folds.subject[folds.fold == fold.number])


def _open(path: Path) -> h5py.File:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return h5py.File(io.BytesIO(archive.read(WEIGHTS_MEMBER)), "r")
        return h5py.File(path, "r")
    except (OSError, KeyError) as fault:
        raise NerveError(
            f"{path} is no Keras model file ({fault}); name a .keras or .weights.h5 file."
        ) from fault


def _arrays(file: h5py.File) -> dict[str, h5py.Dataset]:
    """Return the file's arrays by path, with layers called by their names instead of the file's running numbers."""
    arrays: dict[str, h5py.Dataset] = {}

    def visit(path: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset) and not path.startswith("optimizer/"):
            arrays[_readable_name(file, path.split("/"))] = item

    file.visititems(visit)
    return arrays


def _readable_name(file: h5py.File, parts: list[str]) -> str:
    names = []
    for index, part in enumerate(parts):
        is_layer = index > 0 and parts[index - 1] == "layers"
        group = file.get("/".join([*parts[: index + 1], "vars"])) if is_layer else None
        names.append(group.attrs.get("name", part) if group is not None else part)
    return "/".join(names)
