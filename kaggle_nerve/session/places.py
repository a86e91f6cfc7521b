"""Folders of a Kaggle notebook: attached inputs, which are read-only, and the working folder."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from kaggle_nerve.competition import facts
from kaggle_nerve.data.cache import FOLDER_VARIABLE
from kaggle_nerve.errors import NerveError
from kaggle_nerve.runs.adopting import adopt
from kaggle_nerve.runs.run import ENVIRONMENT, SETTINGS

KAGGLE = Path("/kaggle")


@dataclass(frozen=True)
class Places:
    """``input`` holds everything attached; files written into ``working`` are the notebook's output."""

    input: Path
    working: Path

    @property
    def runs(self) -> Path:
        """Folder of runs, with the same layout as that of `kaggle-nerve` elsewhere."""
        return self.working / "runs"

    @property
    def submission(self) -> Path:
        """File that a notebook submits."""
        return self.working / "submission.csv"


def find_places() -> Places:
    """Return this notebook's folders: Kaggle's, or else those beside the current folder. Caches go to
    neither."""
    # Inputs are read-only, and the working folder counts against Kaggle's limit on output.
    os.environ.setdefault(FOLDER_VARIABLE, str(Path(tempfile.gettempdir()) / "kaggle-nerve"))
    working = KAGGLE / "working"
    if not working.is_dir():
        working = Path.cwd()
    return Places(working.parent / "input", working)


def find_data(places: Places) -> Path:
    """Return the competition's folder: where Kaggle puts it, or wherever its training table is.

    Raises NerveError if it is not attached.
    """
    candidates = [places.input / "competitions" / facts.SLUG, places.input / facts.SLUG]
    folders = [folder for folder in candidates if (folder / facts.TRAIN_CSV).is_file()]
    folders += sorted(path.parent for path in places.input.rglob(facts.TRAIN_CSV)) if not folders else []
    if not folders:
        raise NerveError(
            f"The competition's data is not attached: there is no {facts.TRAIN_CSV} under {places.input}; press "
            f"'Add Input' and choose the competition {facts.SLUG} (accept its rules first)."
        )
    return folders[0]


def attached_runs(places: Places, data: Path) -> list[Path]:
    """List folders of runs among the inputs outside ``data``, sorted: a dataset's, or another notebook's
    output."""
    folders = {path.parent for path in places.input.rglob(SETTINGS) if not path.is_relative_to(data)}
    return sorted(folder for folder in folders if (folder / ENVIRONMENT).is_file())


def copy_attached_runs(places: Places, data: Path) -> list[str]:
    """Copy finished and unfinished folds of attached runs into the working folder's runs.

    Returns a line for each run.
    """
    return [line for folder in attached_runs(places, data) for line in adopt(folder, places.runs)]
