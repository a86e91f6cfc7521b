"""Cache frames and masks at the working size as memory-mapped uint8 arrays.

A cache is a folder: ``frames.npy`` (n, height, width), for training frames ``masks.npy`` of the same
shape (255 times the share of a working pixel that the mask covers), ``index.csv`` and
``manifest.json``. Its name contains the size and a digest of the source files, so that other or changed
data gets another cache.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

from kaggle_nerve.arrays import GrowingArrays, open_array
from kaggle_nerve.competition import facts, rle
from kaggle_nerve.data.frames import Layout, test_frames, training_frames
from kaggle_nerve.data.tiff import read_grey
from kaggle_nerve.errors import NerveError
from kaggle_nerve.locks import wait_for_lock
from kaggle_nerve.progress import SILENT, Reporter
from kaggle_nerve.storage import (
    digest_text,
    mark_complete,
    read_completion,
    user_cache,
    write_json,
    write_text,
)

FOLDER_VARIABLE = "KAGGLE_NERVE_CACHE"
"""Environment variable for the folder of caches, by default beside the data."""

FORMAT = "1"
CHUNK = 128
"""Frames between two saves of a build's progress; a killed build loses at most these."""


@dataclass(frozen=True)
class Cache:
    """Arrays of the training or the test frames, opened read-only.

    ``source``: digest of the data, independent of its folder. ``frames``: uint8 (n, height, width).
    ``masks``: the same shape, or None for test frames. ``table``: the table of the frames from
    `training_frames` or `test_frames`.
    """

    folder: Path
    source: str
    frames: np.ndarray
    masks: np.ndarray | None
    table: pd.DataFrame


def open_training(
    layout: Layout, size: tuple[int, int], *, reporter: Reporter = SILENT, workers: int = 2
) -> Cache:
    """Open the cache of the training frames at ``size`` (height, width); build it if it is missing."""
    return _open(training_frames(layout), layout, size, facts.TRAIN_FOLDER, reporter, workers)


def open_test(
    layout: Layout, size: tuple[int, int], *, reporter: Reporter = SILENT, workers: int = 2
) -> Cache:
    """Open the cache of the test frames at ``size`` (height, width); build it if it is missing."""
    return _open(test_frames(layout), layout, size, facts.TEST_FOLDER, reporter, workers)


def training_source(layout: Layout) -> str:
    """Compute the ``source`` of a cache of the training frames, without building it."""
    return _source(training_frames(layout), facts.TRAIN_FOLDER)


def shrink(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Shrink ``image`` (uint8) to ``size`` (height, width) by averaging pixels."""
    return cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)


def _open(
    table: pd.DataFrame,
    layout: Layout,
    size: tuple[int, int],
    part: str,
    reporter: Reporter,
    workers: int,
) -> Cache:
    source = _source(table, part)
    digest = _digest(table, size, source)
    folder = _root(layout) / f"{size[0]}x{size[1]}-{digest[:12]}"
    with_masks = part == facts.TRAIN_FOLDER
    # The lock makes a second process wait for the first one's arrays instead of building them, too.
    with wait_for_lock(folder / ".lock", f"builds {folder}", reporter):
        if not read_completion(folder):
            _build(folder, table, size, with_masks, digest, reporter, workers)
            _describe(folder, table, size, part, source)
    try:
        masks = open_array(folder / "masks.npy") if with_masks else None
        return Cache(folder, source, open_array(folder / "frames.npy"), masks, table)
    except (FileNotFoundError, ValueError) as fault:
        raise NerveError(
            f"{folder} is damaged ({fault}); delete it and run the same command again."
        ) from fault


def _build(
    folder: Path,
    table: pd.DataFrame,
    size: tuple[int, int],
    with_masks: bool,
    digest: str,
    reporter: Reporter,
    workers: int,
) -> None:
    names = ["frames", "masks"] if with_masks else ["frames"]
    shape = (len(table), *size)
    advice = f", or set {FOLDER_VARIABLE} to a folder on another disk"
    shapes = dict.fromkeys(names, (shape, np.uint8))
    cache_arrays = GrowingArrays(folder, shapes, digest, f"frames at {size[0]}x{size[1]}", advice)
    rows = list(table.itertuples(index=False))
    label = f"Caching at {size[0]}x{size[1]}"
    with ThreadPoolExecutor(workers) as pool, reporter.bar(label, len(rows)) as bar:
        bar.update(cache_arrays.done)
        for start in range(cache_arrays.done, len(rows), CHUNK):
            chunk = rows[start : start + CHUNK]
            images = []
            for values in pool.map(lambda row: _read(row, size, with_masks), chunk):
                images.append(values)
                bar.update()
            columns = zip(names, zip(*images, strict=True), strict=True)
            cache_arrays.write(start, {name: np.stack(values) for name, values in columns})
            cache_arrays.note(start + len(chunk))
    cache_arrays.finish()


def _read(row: Any, size: tuple[int, int], with_mask: bool) -> list[np.ndarray]:
    values = [shrink(read_grey(row.path), size)]
    if with_mask:
        values.append(shrink(rle.decode(row.pixels, facts.SIZE) * np.uint8(255), size))
    return values


def _describe(folder: Path, table: pd.DataFrame, size: tuple[int, int], part: str, source: str) -> None:
    columns = [name for name in ("subject", "img", "area") if name in table]
    write_text(folder / "index.csv", table[columns].to_csv(index=False))
    manifest = {"format": FORMAT, "part": part, "size": list(size), "frames": len(table), "source": source}
    write_json(folder / "manifest.json", manifest)
    mark_complete(folder, manifest)


def _source(table: pd.DataFrame, part: str) -> str:
    files = [f"{path.name} {path.stat().st_size}" for path in table.path]
    return digest_text(part, *files, *(table.pixels if "pixels" in table else ()))


def _digest(table: pd.DataFrame, size: tuple[int, int], source: str) -> str:
    # A file changed in place may keep its size, so include its modification time.
    times = [str(path.stat().st_mtime_ns) for path in table.path]
    return digest_text(FORMAT, str(tuple(size)), source, *times)


def _root(layout: Layout) -> Path:
    """Return the folder in KAGGLE_NERVE_CACHE; else one beside the data, or the user's cache if that is read-only."""
    if folder := os.environ.get(FOLDER_VARIABLE):
        return Path(folder)
    beside = layout.root / ".cache"
    try:
        beside.mkdir(exist_ok=True)
        if os.access(beside, os.W_OK):
            return beside
    except OSError:
        pass
    home = user_cache()
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as fault:
        raise NerveError(f"Neither {beside} nor {home} can be written; set XDG_CACHE_HOME.") from fault
    return home
