"""Frames of a subject that look alike and are labelled unlike: one has a mask, the other has none."""

import numpy as np
import pandas as pd

from kaggle_nerve.data.cache import Cache

SIZE = (60, 83)
"""Working size at which frames are compared: a seventh of the competition's."""

LEAST = 0.95
"""Correlation of grey levels from which two frames count as alike."""


def contradictions(cache: Cache, least: float = LEAST) -> pd.DataFrame:
    """For each frame with a mask the likest one without, where they correlate by ``least`` or more.

    Columns: subject, with_mask and without_mask (imgs), row and other (rows of ``cache.table``), and
    correlation of the grey levels (-1 to 1); the likest first.
    """
    found = []
    areas = cache.table.area.to_numpy()
    for subject, rows in cache.table.groupby("subject").indices.items():
        present, empty = rows[areas[rows] > 0], rows[areas[rows] == 0]
        if not len(present) or not len(empty):
            continue
        alike = _standardised(cache.frames[present]) @ _standardised(cache.frames[empty]).T
        likest = alike.argmax(axis=1)
        for place, row in enumerate(present):
            found.append((subject, row, empty[likest[place]], alike[place, likest[place]]))
    table = pd.DataFrame(found, columns=["subject", "row", "other", "correlation"])
    table = table[table.correlation >= least].sort_values("correlation", ascending=False, ignore_index=True)
    imgs = cache.table.img.to_numpy()
    return table.assign(with_mask=imgs[table.row.to_numpy(int)], without_mask=imgs[table.other.to_numpy(int)])


def _standardised(frames: np.ndarray) -> np.ndarray:
    """Each frame as a vector of mean 0 and length 1, float32 (n, pixels); an even one stays 0."""
    flat = frames.reshape(len(frames), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6)
