"""Frames that are all but the same picture, within a subject and across subjects.

The machine that took the frames wrote some of them twice or nearly so (data page: "identical or very
similar images"). A small copy of each frame says which pairs may be such; those are compared in full.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

import cv2
import numpy as np
import pandas as pd

from kaggle_nerve.data.cache import Cache
from kaggle_nerve.data.tiff import read_grey
from kaggle_nerve.progress import SILENT, Reporter

SIZE = (60, 83)
"""Working size of the small copies: a seventh of the competition's."""

LEAST = 0.95
"""Correlation of grey levels, at full size, from which two frames count as twins. Of 50 real frames of one
subject 13 pairs reach it; all show the same structures at the same place."""

SLACK = 0.02
"""How much less than twins their small copies may correlate. In truth they correlate more, for shrinking averages
speckle away: in each of those frames' 1225 pairs by 0.0002 to 0.086."""

BLOCK = 512
"""Frames compared with all others at a time: 12 MB of correlations on the competition's 5635 frames."""

KEPT = 256
"""Frames kept in memory at full size, 62 MB: all of two subjects."""


def twins(
    cache: Cache, least: float = LEAST, *, reporter: Reporter = SILENT, workers: int = 2
) -> pd.DataFrame:
    """All pairs of frames whose grey levels correlate by ``least`` or more at full size, the likest first.

    Columns: row < other (rows of ``cache.table``), correlation (-1 to 1), and difference: the mean
    absolute one, in grey levels; 0 where every pixel is equal. Raises NerveError for a frame that
    cannot be read.
    """
    pairs = candidates(cache.frames, least - SLACK)
    subjects = cache.table.subject.to_numpy()
    # Subject by subject, so that a frame is mostly still in memory when its next pair comes.
    pairs = pairs[np.lexsort((*pairs.T[::-1], *subjects[pairs].T[::-1]))]
    paths = cache.table.path.to_list()
    read = lru_cache(KEPT)(lambda row: read_grey(paths[row]))
    likeness = _compare(pairs, read, reporter, workers)
    found = pd.DataFrame({"row": pairs[:, 0], "other": pairs[:, 1]})
    found = found.assign(correlation=likeness[:, 0], difference=likeness[:, 1])
    found = found[found.correlation >= least]
    order = ["correlation", "difference", "row", "other"]
    return found.sort_values(order, ascending=[False, True, True, True], ignore_index=True)


def candidates(frames: np.ndarray, least: float) -> np.ndarray:
    """Pairs of ``frames`` (n, height, width) that correlate by ``least`` or more: int64 (pairs, 2), rising."""
    vectors = _standardised(frames)
    found = [np.empty((0, 2), np.int64)]
    for start in range(0, len(vectors), BLOCK):
        alike = vectors[start : start + BLOCK] @ vectors[start:].T
        places = np.argwhere(alike >= least)
        found.append(places[places[:, 0] < places[:, 1]] + start)
    return np.concatenate(found)


def likeness(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Correlation (-1 to 1) and mean absolute difference (grey levels) of two frames, uint8 (height, width).

    Equal frames correlate by 1; an even one with any other by 0.
    """
    difference = cv2.norm(first, second, cv2.NORM_L1) / first.size
    if not difference:
        return 1.0, 0.0
    first, second = (frame.astype(np.float32).ravel() - np.float32(frame.mean()) for frame in (first, second))
    scale = float(np.linalg.norm(first)) * float(np.linalg.norm(second))
    return (float(first @ second) / scale if scale else 0.0), difference


def _compare(
    pairs: np.ndarray, read: Callable[[int], np.ndarray], reporter: Reporter, workers: int
) -> np.ndarray:
    """`likeness` of each of ``pairs``, float64 (pairs, 2); ``read`` gives the frame of a row."""
    found = np.empty((len(pairs), 2))
    with ThreadPoolExecutor(workers) as pool, reporter.bar("Comparing frames", len(pairs), "pair") as bar:
        for place, value in enumerate(pool.map(lambda pair: likeness(*map(read, pair)), pairs.tolist())):
            found[place] = value
            bar.update()
    return found


def _standardised(frames: np.ndarray) -> np.ndarray:
    """Each frame as a vector of length 1 and, unless it is even, mean 0; float32 (n, pixels).

    So products are correlations, and even frames, which have none, are alike among themselves.
    """
    flat = frames.reshape(len(frames), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(flat, axis=1, keepdims=True)
    flat[lengths[:, 0] < 1e-3] = 1
    lengths[lengths < 1e-3] = np.sqrt(flat.shape[1])
    flat /= lengths
    return flat
