"""Map the archive's file names to the competition's layout.

Kaggle has shipped this competition as one archive of files, as an archive of archives (``train.zip``,
``train_masks.csv.zip``), and with doubled folders (``train/train/``). All map to the same layout.
"""

from pathlib import PurePosixPath

from kaggle_nerve.competition import facts

TABLES = (facts.TRAIN_CSV, facts.SAMPLE_CSV)
FOLDERS = (facts.TRAIN_FOLDER, facts.TEST_FOLDER)


def target(name: str, container: str = "") -> PurePosixPath | None:
    """Return the path of member ``name`` under the data directory, or None for a folder or litter.

    ``container`` is the name of the nested archive that holds it, such as ``train.zip``.
    """
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if not parts or name.endswith("/") or any(map(facts.LITTER.fullmatch, parts)):
        return None
    *folders, base = parts
    if base in TABLES:
        return PurePosixPath(base)
    if base.lower().endswith(".tif"):
        outer = PurePosixPath(container).stem
        return PurePosixPath(_folder(base, [outer, *folders]), base)
    return PurePosixPath(*parts)


def is_frame(name: str) -> bool:
    """Tell whether ``name`` is that of a frame or a mask of the competition."""
    return any(pattern.match(name) for pattern in facts.FRAME_FILES)


def is_container(name: str) -> bool:
    """Tell whether a member is an archive itself."""
    return name.lower().endswith(".zip")


def _folder(base: str, folders: list[str]) -> str:
    """Return the nearest folder called train or test; without one, decide by the file's name."""
    for folder in reversed(folders):
        if folder in FOLDERS:
            return folder
    return facts.TEST_FOLDER if facts.TEST_FRAME.match(base) else facts.TRAIN_FOLDER
