"""Tables of the competition's frames, from a data directory and its CSV."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kaggle_nerve.competition import facts, rle, submission
from kaggle_nerve.errors import NerveError


@dataclass(frozen=True)
class Layout:
    """Paths in a data directory. The files ``train_csv`` and ``sample_csv`` may be missing."""

    root: Path
    train: Path
    test: Path
    train_csv: Path
    sample_csv: Path


def locate(data_dir: Path) -> Layout:
    """Return the layout of ``data_dir``, with or without a nested ``train/train/``.

    Raise NerveError if there is no such directory or no training folder in it.
    """
    root = Path(data_dir)
    if not root.is_dir():
        raise NerveError(
            f"There is no data directory {root}; run `kaggle-nerve fetch` or name it with --data."
        )
    train, test = (_unnest(root / name) for name in (facts.TRAIN_FOLDER, facts.TEST_FOLDER))
    if not train.is_dir():
        raise NerveError(
            f"{root} has no folder {facts.TRAIN_FOLDER}/; run `kaggle-nerve fetch` or mend --data."
        )
    return Layout(root, train, test, root / facts.TRAIN_CSV, root / facts.SAMPLE_CSV)


def read_train_csv(path: Path) -> pd.DataFrame:
    """Read ``train_masks.csv`` as subject, img (int), pixels (str, empty for an empty mask) and area (pixels).

    Every mask is checked; raise NerveError with the line and the frame of one that breaks the rules.
    """
    if not path.is_file():
        raise NerveError(f"{path} is missing; run `kaggle-nerve fetch` again.")
    try:
        table = pd.read_csv(path, dtype={"pixels": str}, keep_default_na=False, encoding="utf-8")
        if tuple(table.columns) != facts.TRAIN_HEADER:
            raise ValueError(f"its header is {','.join(map(str, table.columns))}")
        table = table.astype({"subject": int, "img": int})
    except (ValueError, UnicodeDecodeError) as fault:
        raise NerveError(
            f"{path} is not the competition's training table: {fault}; fetch it again."
        ) from fault
    if table.empty:
        raise NerveError(f"{path} has no rows; fetch it again.")
    duplicates = table[table.duplicated(["subject", "img"])]
    if len(duplicates):
        row = duplicates.iloc[0]
        raise NerveError(f"{path} has frame {row.subject}_{row.img} twice; fetch it again.")
    areas = []
    for row in table.itertuples():
        try:
            areas.append(rle.area(row.pixels))
        except rle.RunLengthError as fault:
            raise NerveError(
                f"{path} line {row.Index + 2}, frame {row.subject}_{row.img}: {fault}; fetch it again."
            ) from fault
    return table.assign(area=areas)


def training_frames(layout: Layout) -> pd.DataFrame:
    """Return one row per row of the CSV: subject, img, path, mask_path, pixels, has_mask, area (pixels).

    Sorted by subject and img. Raise NerveError if a frame of the CSV has no file, or a file no row.
    """
    table = read_train_csv(layout.train_csv).sort_values(["subject", "img"], ignore_index=True)
    stems = table.subject.astype(str) + "_" + table.img.astype(str)
    names = sorted(path.name for path in layout.train.iterdir())
    frames = [name for name in names if facts.TRAIN_FRAME.match(name)]
    doubt = ": it was cut off, or these are other data"
    _require_same_frames(
        layout.train, names, frames, layout.train_csv, [f"{stem}.tif" for stem in stems], doubt
    )
    return table.assign(
        path=[layout.train / f"{stem}.tif" for stem in stems],
        mask_path=[layout.train / f"{stem}_mask.tif" for stem in stems],
        has_mask=table.pixels != "",
    )


def test_frames(layout: Layout) -> pd.DataFrame:
    """Return one row per test frame: img, path; sorted by img as a number.

    Raise NerveError if there are other frames than in the sample submission, so that no work is done in vain.
    """
    if not layout.test.is_dir():
        raise NerveError(f"{layout.root} has no folder {facts.TEST_FOLDER}/; run `kaggle-nerve fetch` again.")
    names = [path.name for path in layout.test.iterdir()]
    imgs = sorted(int(match["img"]) for name in names if (match := facts.TEST_FRAME.match(name)))
    if not imgs:
        refuse_other_endings(layout.test, names)
        raise NerveError(f"{layout.test} has no test frames; run `kaggle-nerve fetch` again.")
    if layout.sample_csv.is_file():
        frames = [f"{img}.tif" for img in imgs]
        expected = [f"{img}.tif" for img in sorted(set(submission.read(layout.sample_csv).img))]
        _require_same_frames(layout.test, names, frames, layout.sample_csv, expected)
    return pd.DataFrame({"img": imgs, "path": [layout.test / f"{img}.tif" for img in imgs]})


def _require_same_frames(
    folder: Path, names: list[str], frames: list[str], csv: Path, expected: list[str], doubt: str = ""
) -> None:
    """Raise NerveError if ``frames``, those among the ``names`` in ``folder``, are not those ``expected`` by ``csv``.

    ``doubt``: what may be wrong with ``csv`` if it lacks some. Both lists are in order.
    """
    present, listed = set(frames), set(expected)
    if missing := [name for name in expected if name not in present]:
        refuse_other_endings(folder, names)
        raise NerveError(
            f"{folder} lacks {len(missing)} of {len(expected)} frames of {csv.name}, the first is {missing[0]}; run "
            "`kaggle-nerve fetch` again."
        )
    if rowless := [name for name in frames if name not in listed]:
        raise NerveError(
            f"{csv} has no row for {len(rowless)} of the frames in {folder}, the first is {rowless[0]}{doubt}; run "
            "`kaggle-nerve fetch` again, or remove them."
        )


def other_endings(names: Iterable[str]) -> dict[str, str]:
    """Map file names of frames and masks that end in ``.TIF`` or ``.tiff`` to the competition's spelling."""
    spelling = {name: re.sub(r"(?i)\.tiff?$", ".tif", name) for name in names}
    return {
        name: proper
        for name, proper in spelling.items()
        if name != proper and any(pattern.match(proper) for pattern in facts.FRAME_FILES)
    }


def describe_other_endings(folder: Path, names: Iterable[str]) -> str:
    """Return a sentence about ``names``, the files of `other_endings` in ``folder``."""
    names = sorted(names)
    return f"{folder} has {len(names)} files such as {names[0]}; rename them so that all end in .tif."


def refuse_other_endings(folder: Path, names: Iterable[str]) -> None:
    """Raise NerveError if any of ``names`` in ``folder`` is one of `other_endings`."""
    if other := other_endings(names):
        raise NerveError(describe_other_endings(folder, other))


def _unnest(folder: Path) -> Path:
    """Return the folder of the same name in ``folder`` if the frames are there."""
    inner = folder / folder.name
    is_nested = inner.is_dir() and not _has_frames(folder) and _has_frames(inner)
    return inner if is_nested else folder


def _has_frames(folder: Path) -> bool:
    patterns = (facts.TRAIN_FRAME, facts.TEST_FRAME)
    return any(pattern.match(path.name) for path in folder.iterdir() for pattern in patterns)
