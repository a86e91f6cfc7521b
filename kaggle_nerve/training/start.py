"""Weights to start from: of a run's fold of the same number, or of any model file."""

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

INSIDE = "model.weights.h5"
"""The weights within a .keras file."""


@dataclass(frozen=True)
class Source:
    """A file of weights, and a sentence about it for the user."""

    path: Path
    sentence: str


def locate(start: str, runs_dir: Path) -> Path:
    """The model file or the run's folder that ``training.start`` names; NerveError where it is neither."""
    path = Path(start)
    if path.is_file():
        return path
    for folder in (path, runs_dir / start):
        if is_run(folder):
            return folder
    raise NerveError(
        f"training.start={start} is neither a model file nor a run in {runs_dir}; mend the setting."
    )


def find(start: str, fold: Fold) -> Source:
    """The file that ``training.start`` names for ``fold``.

    ``start`` is a .keras or .weights.h5 file, a run's folder, or the name of a run beside this one.
    From a run the fold of the same number is taken, which must hold out the same subjects:
    NerveError where it has seen some of them. What a file was trained on is the user's matter.
    """
    found = locate(start, fold.run.folder.parent)
    if found.is_file():
        return Source(
            found, f"Starting from {found}: make sure that it never saw this fold's held-out subjects."
        )
    theirs = Run(found, fold.run.settings).fold(fold.number)
    if not theirs.model.is_file():
        raise NerveError(
            f"training.start={start} has no finished fold {fold.number}; train that run's fold first."
        )
    if _held(theirs) != _held(fold):
        raise NerveError(
            f"Fold {fold.number} of training.start={start} held out other subjects, so it has seen some of those "
            f"held out here; start from a run with the same {fold.run.folds_csv.name}."
        )
    return Source(theirs.model, f"Starting from fold {fold.number} of run {found.name}.")


def put(model: keras.Model, path: Path) -> tuple[int, int]:
    """Put the weights in ``path`` into ``model`` where layer names and shapes match.

    Returns how many arrays were taken, of how many that ``model`` has. NerveError where none matches
    or the file cannot be read.
    """
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder) / "own.weights.h5"
        model.save_weights(own)
        with _open(path) as source, h5py.File(own, "r+") as target:
            found, wanted = _arrays(source), _arrays(target)
            taken = 0
            for name, dataset in wanted.items():
                if name in found and found[name].shape == dataset.shape:
                    dataset[...] = np.asarray(found[name])
                    taken += 1
        if not taken:
            raise NerveError(
                f"{path} has no weights for this network; start from one with the same architecture."
            )
        model.load_weights(own)
    return taken, len(wanted)


def _held(fold: Fold) -> set[int]:
    folds = folding.load(fold.run.folds_csv)
    return set(folds.subject[folds.fold == fold.number])


def _open(path: Path) -> h5py.File:
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                return h5py.File(io.BytesIO(archive.read(INSIDE)), "r")
        return h5py.File(path, "r")
    except (OSError, KeyError) as fault:
        raise NerveError(
            f"{path} is no Keras model file ({fault}); name a .keras or .weights.h5 file."
        ) from fault


def _arrays(file: h5py.File) -> dict[str, h5py.Dataset]:
    """The network's arrays by a name made of its layers' names: the file counts layers of a kind instead."""
    found: dict[str, h5py.Dataset] = {}

    def visit(path: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset) and not path.startswith("optimizer/"):
            found[_named(file, path.split("/"))] = item

    file.visititems(visit)
    return found


def _named(file: h5py.File, parts: list[str]) -> str:
    names = []
    for place, part in enumerate(parts):
        listed = place > 0 and parts[place - 1] == "layers"
        group = file.get("/".join([*parts[: place + 1], "vars"])) if listed else None
        names.append(group.attrs.get("name", part) if group is not None else part)
    return "/".join(names)
