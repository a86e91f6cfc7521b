"""Initial weights from another run's fold of the same number, or from any model file."""

from dataclasses import dataclass
from pathlib import Path

import keras

from kaggle_nerve.data import folds as folding
from kaggle_nerve.errors import NerveError
from kaggle_nerve.models.model_file import Match, load_matching, read_model_file
from kaggle_nerve.runs import Fold, Run
from kaggle_nerve.runs.models import require_model
from kaggle_nerve.runs.run import is_run

REMEDY = "name a whole .keras or .weights.h5 file"
"""What to do about a damaged file, as the end of a sentence."""


@dataclass(frozen=True)
class Source:
    """Weights file, and a sentence about it for the user."""

    path: Path
    sentence: str


def locate_source(start: str, runs_dir: Path) -> Path:
    """Return the model file or the run's folder that ``training.start`` names.

    Raise NerveError if it is neither, or if the file is damaged.
    """
    path = Path(start)
    if path.is_file():
        read_model_file(path, REMEDY)
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
    if not source_fold.facts():
        raise NerveError(
            f"training.start={start} has no finished fold {fold.number}; train that run's fold first."
        )
    if _held_subjects(source_fold) != _held_subjects(fold):
        raise NerveError(
            f"Fold {fold.number} of training.start={start} held out other subjects, so it has seen some of those "
            f"held out here; start from a run with the same {fold.run.folds_csv.name}."
        )
    require_model(source_fold)
    return Source(source_fold.model, f"Starting from fold {fold.number} of run {path.name}.")


def load_initial(model: keras.Model, path: Path) -> Match:
    """Load the weights in ``path`` into ``model`` where layer names and shapes match.

    Raise NerveError if none matches or the file is damaged.
    """
    match = load_matching(model, read_model_file(path, REMEDY))
    if not match.loaded:
        raise NerveError(
            f"{path} has no weights for this network; start from one with the same architecture."
        )
    return match


def _held_subjects(fold: Fold) -> set[int]:
    folds = folding.load(fold.run.folds_csv)
    return set(folds.subject[folds.fold == fold.number])
