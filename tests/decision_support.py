"""Predictions for the tests of the decision: noisy discs, some of them where there is no nerve."""

import numpy as np
import pandas as pd

from kaggle_nerve.competition import rle
from kaggle_nerve.data.fullsize import enlarge
from kaggle_nerve.prediction.stored import Stored

SMALL = (42, 58)


def stored(
    subjects: int = 4, frames: int = 8, seed: int = 0, shift: int = 2, name: str = "made"
) -> tuple[Stored, pd.DataFrame]:
    """Predictions, and the true masks as subject, img and pixels, in the same order.

    Every second frame has a mask; the map shows it ``shift`` pixels of working size off. The presence
    tells the truth most of the time. The same ``seed`` and sizes mean the same true masks.
    """
    random, noise = np.random.default_rng(seed), np.random.default_rng(seed + 100 + shift)
    rows, maps, presences = [], [], []
    for subject in range(1, subjects + 1):
        for img in range(1, frames + 1):
            present = img % 2 == 0
            truth = np.zeros(SMALL, np.float32)
            if present:
                row, column = random.integers(10, 30), random.integers(10, 45)
                truth[row - 6 : row + 6, column - 6 : column + 6] = 1
            maps.append(np.roll(truth, shift, axis=1) * 0.9 + noise.random(SMALL, np.float32) * 0.08)
            presences.append(np.clip(0.5 + (0.3 if present else -0.3) + noise.normal(0, 0.15), 0, 1))
            rows.append((subject, img, rle.encode(enlarge(truth) >= 0.5)))
    truth_table = pd.DataFrame(rows, columns=["subject", "img", "pixels"])
    table = truth_table[["subject", "img"]].assign(agreement=1.0, spread=0.0)
    maps = np.array(maps, np.float16)
    places = np.arange(len(table))
    found = Stored(table, np.array(presences)[:, None], (maps,), (places,), f"{name}-source", (name,))
    return found, truth_table
