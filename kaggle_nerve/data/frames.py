"""The competition's frames as tables: what lies in a data directory, and what the CSV says of it."""

import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kaggle_nerve.competition import facts, rle
from kaggle_nerve.errors import NerveError


@dataclass(frozen=True)
class Layout:
    """Where the parts of a data directory lie. ``train_csv`` and ``sample_csv`` may be missing files."""

    root: Path
    train: Path
    test: Path
    train_csv: Path
    sample_csv: Path


def locate(data_dir: Path) -> Layout:
    """The layout of ``data_dir``; old unpackings with ``train/train/`` inside are understood.

    Raises NerveError where there is no such directory or no training folder in it.
    """
    root = Path(data_dir)
    if not root.is_dir():
        raise NerveError(
            f"There is no data directory {root}; run `kaggle-nerve fetch` or name it with --data."
        )
    train, test = (_unnested(root / name) for name in (facts.TRAIN_FOLDER, facts.TEST_FOLDER))
    if not train.is_dir():
        raise NerveError(
            f"{root} has no folder {facts.TRAIN_FOLDER}/; run `kaggle-nerve fetch` or mend --data."
        )
    return Layout(root, train, test, root / facts.TRAIN_CSV, root / facts.SAMPLE_CSV)


def read_train_csv(path: Path) -> pd.DataFrame:
    """``train_masks.csv`` as subject, img (int) and pixels (str, empty where there is no mask)."""
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
    twice = table[table.duplicated(["subject", "img"])]
    if len(twice):
        row = twice.iloc[0]
        raise NerveError(f"{path} has frame {row.subject}_{row.img} twice; fetch it again.")
    return table


def training_frames(layout: Layout) -> pd.DataFrame:
    """One row per row of the CSV: subject, img, path, mask_path, pixels, has_mask, area (pixels).

    Sorted by subject and img. Raises NerveError where a frame of the CSV has no file.
    """
    table = read_train_csv(layout.train_csv).sort_values(["subject", "img"], ignore_index=True)
    stems = table.subject.astype(str) + "_" + table.img.astype(str)
    present = {path.name for path in layout.train.iterdir()}
    missing = [stem for stem in stems if f"{stem}.tif" not in present]
    if missing:
        raise NerveError(
            f"{layout.train} lacks {len(missing)} of {len(table)} frames of {layout.train_csv.name}, the first "
            f"is {missing[0]}.tif; run `kaggle-nerve fetch` again."
        )
    return table.assign(
        path=[layout.train / f"{stem}.tif" for stem in stems],
        mask_path=[layout.train / f"{stem}_mask.tif" for stem in stems],
        has_mask=table.pixels != "",
        area=[rle.area(text) for text in table.pixels],
    )


def test_frames(layout: Layout) -> pd.DataFrame:
    """One row per test frame: img, path; in rising order of img, whatever the names' text order."""
    if not layout.test.is_dir():
        raise NerveError(f"{layout.root} has no folder {facts.TEST_FOLDER}/; run `kaggle-nerve fetch` again.")
    found = [(int(match["img"]), path) for path in layout.test.iterdir() if (match := _test_name(path))]
    if not found:
        raise NerveError(f"{layout.test} has no test frames; run `kaggle-nerve fetch` again.")
    found.sort()
    return pd.DataFrame({"img": [img for img, _ in found], "path": [path for _, path in found]})


def _test_name(path: Path) -> re.Match[str] | None:
    return facts.TEST_FRAME.match(path.name)


def _unnested(folder: Path) -> Path:
    inner = folder / folder.name
    return inner if inner.is_dir() else folder
