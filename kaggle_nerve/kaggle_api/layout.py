"""Where each file of the competition belongs, however the archive has it.

Kaggle has shipped this competition as one archive of files, as an archive of archives (``train.zip``,
``train_masks.csv.zip``), and with folders doubled (``train/train/``). All become the one layout.
"""

from pathlib import PurePosixPath

from kaggle_nerve.competition import facts

TABLES = (facts.TRAIN_CSV, facts.SAMPLE_CSV)
FOLDERS = (facts.TRAIN_FOLDER, facts.TEST_FOLDER)
JUNK = ("__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini")


def target(name: str, within: str = "") -> PurePosixPath | None:
    """The place under the data directory of a member ``name``, or None for a folder or litter.

    ``within`` is the name of the inner archive that holds it, such as ``train.zip``.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not parts or name.endswith("/") or any(part in JUNK for part in parts):
        return None
    *folders, base = parts
    if base in TABLES:
        return PurePosixPath(base)
    if base.lower().endswith(".tif"):
        outer = PurePosixPath(within).stem
        return PurePosixPath(_folder(base, [outer, *folders]), base)
    return PurePosixPath(*parts)


def is_container(name: str) -> bool:
    """Whether a member is an archive itself."""
    return name.lower().endswith(".zip")


def _folder(base: str, folders: list[str]) -> str:
    """The nearest folder called train or test; without one, the name tells."""
    for folder in reversed(folders):
        if folder in FOLDERS:
            return folder
    return facts.TEST_FOLDER if facts.TEST_FRAME.match(base) else facts.TRAIN_FOLDER
