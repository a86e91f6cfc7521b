"""Find twins: near-identical frames, within a subject and across subjects.

The ultrasound machine stored some frames twice or nearly so (data page: "identical or very similar
images"). Small copies of the frames select candidate pairs, which are then compared at full size.
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
"""Size of the small copies: a seventh of the competition's."""

LEAST = 0.95
"""Minimum correlation of the grey levels of twins, at full size. Of 50 real frames of one subject, 13 pairs reach
it; all show the same structures at the same place."""

SLACK = 0.02
"""Margin below the minimum correlation for small copies. In practice they correlate more than the frames, since
shrinking averages speckle away: by 0.0002 to 0.086 in each of those frames' 1225 pairs."""

BLOCK = 512
"""Frames compared with all others at a time: 12 MB of correlations on the competition's 5635 frames."""

CACHED_FRAMES = 256
"""Frames cached in memory at full size, 62 MB: all of two subjects."""


def twins(
    cache: Cache, least: float = LEAST, *, reporter: Reporter = SILENT, workers: int = 2
) -> pd.DataFrame:
    """Find all pairs of frames whose grey levels correlate by ``least`` or more at full size, most similar first.

    Columns: row < other (rows of ``cache.table``), correlation (-1 to 1), and difference: the mean absolute
    difference in grey levels, 0 if every pixel is equal. Raise NerveError for a frame that cannot be read.
    """
    pairs = candidates(cache.frames, least - SLACK)
    subjects = cache.table.subject.to_numpy()
    # Subject by subject, so that a frame is usually still cached for its next pair.
    pairs = pairs[np.lexsort((*pairs.T[::-1], *subjects[pairs].T[::-1]))]
    paths = cache.table.path.to_list()
    read = lru_cache(CACHED_FRAMES)(lambda row: read_grey(paths[row]))
    likeness = _compare(pairs, read, reporter, workers)
    table = pd.DataFrame({"row": pairs[:, 0], "other": pairs[:, 1]})
    table = table.assign(correlation=likeness[:, 0], difference=likeness[:, 1])
    table = table[table.correlation >= least]
    order = ["correlation", "difference", "row", "other"]
    return table.sort_values(order, ascending=[False, True, True, True], ignore_index=True)


def candidates(frames: np.ndarray, least: float) -> np.ndarray:
    """Find pairs of ``frames`` (n, height, width) that correlate by ``least`` or more: int64 (pairs, 2), ascending."""
    vectors = _standardise(frames)
    pairs = [np.empty((0, 2), np.int64)]
    for start in range(0, len(vectors), BLOCK):
        correlations = vectors[start : start + BLOCK] @ vectors[start:].T
        places = np.argwhere(correlations >= least)
        pairs.append(places[places[:, 0] < places[:, 1]] + start)
    return np.concatenate(pairs)


def likeness(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Compute correlation (-1 to 1) and mean absolute difference (grey levels) of two frames, uint8 (height, width).

    Equal frames correlate by 1; a uniform frame correlates with any other by 0.
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
    """Compute the `likeness` of each of ``pairs``, float64 (pairs, 2); ``read`` returns the frame of a row."""
    results = np.empty((len(pairs), 2))
    with ThreadPoolExecutor(workers) as pool, reporter.bar("Comparing frames", len(pairs), "pair") as bar:
        for place, value in enumerate(pool.map(lambda pair: likeness(*map(read, pair)), pairs.tolist())):
            results[place] = value
            bar.update()
    return results


def _standardise(frames: np.ndarray) -> np.ndarray:
    """Convert each frame to a vector of length 1 and, unless it is uniform, mean 0; float32 (n, pixels).

    So products are correlations, and uniform frames, which have none, count as equal to each other.
    """
    flat = frames.reshape(len(frames), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(flat, axis=1, keepdims=True)
    flat[lengths[:, 0] < 1e-3] = 1
    lengths[lengths < 1e-3] = np.sqrt(flat.shape[1])
    flat /= lengths
    return flat
