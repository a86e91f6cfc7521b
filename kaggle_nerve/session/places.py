"""Where things lie in a Kaggle notebook: attached inputs, which cannot be written to, and the working folder."""

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
    """``input`` holds whatever is attached; what is written into ``working`` is the notebook's output."""

    input: Path
    working: Path

    @property
    def runs(self) -> Path:
        """The folder of runs, as `kaggle-nerve` has it on a laptop."""
        return self.working / "runs"

    @property
    def submission(self) -> Path:
        """The file that a notebook submits."""
        return self.working / "submission.csv"


def here() -> Places:
    """The places of this notebook: Kaggle's, elsewhere those beside the current folder. Caches go to neither."""
    # Inputs are read-only, and what is in the working folder counts against what Kaggle keeps.
    os.environ.setdefault(FOLDER_VARIABLE, str(Path(tempfile.gettempdir()) / "kaggle-nerve"))
    working = KAGGLE / "working"
    if not working.is_dir():
        working = Path.cwd()
    return Places(working.parent / "input", working)


def find_data(places: Places) -> Path:
    """The competition's folder: where Kaggle puts it, or wherever its training table lies.

    NerveError where it is not attached.
    """
    known = [places.input / "competitions" / facts.SLUG, places.input / facts.SLUG]
    found = [folder for folder in known if (folder / facts.TRAIN_CSV).is_file()]
    found += sorted(path.parent for path in places.input.rglob(facts.TRAIN_CSV)) if not found else []
    if not found:
        raise NerveError(
            f"The competition's data is not attached: there is no {facts.TRAIN_CSV} under {places.input}; press "
            f"'Add Input' and choose the competition {facts.SLUG} (accept its rules first)."
        )
    return found[0]


def attached_runs(places: Places, data: Path) -> list[Path]:
    """Folders of runs among the inputs but ``data``, sorted: a dataset's, or another notebook's output."""
    found = {path.parent for path in places.input.rglob(SETTINGS) if not path.is_relative_to(data)}
    return sorted(folder for folder in found if (folder / ENVIRONMENT).is_file())


def take_over(places: Places, data: Path) -> list[str]:
    """Copy what attached runs have, finished folds and begun ones, into the working folder's runs.

    Returns a line for each run.
    """
    return [line for folder in attached_runs(places, data) for line in adopt(folder, places.runs)]
