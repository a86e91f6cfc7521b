"""Probability maps for benchmarks that need no trained run."""

import numpy as np
import pandas as pd

from kaggle_nerve.competition import rle
from kaggle_nerve.prediction.stored import Predictions


def synthetic(frames: int, size: tuple[int, int]) -> Predictions:
    """Soft discs of the real masks' size on 41 % of the frames."""
    random = np.random.default_rng(0)
    maps = np.zeros((frames, *size), np.float16)
    rows, columns = np.ogrid[: size[0], : size[1]]
    presence = (random.random(frames) < 0.41).astype(float)
    for index in np.flatnonzero(presence):
        centre = random.uniform(0.25, 0.75, 2) * size
        distance = np.hypot(rows - centre[0], columns - centre[1])
        maps[index] = 1 / (1 + np.exp(distance - 0.11 * size[0]))
    imgs = np.arange(1, frames + 1)
    table = pd.DataFrame({"subject": (imgs - 1) // 120 + 1, "img": imgs, "agreement": 1.0, "spread": 0.0})
    heads = np.clip(0.5 + 0.4 * (presence - 0.5) + random.normal(0, 0.15, frames), 0, 1)
    return Predictions(table, heads[:, None], (maps,), (np.arange(frames),), "synthetic")


def truth(stored: Predictions) -> pd.DataFrame:
    """Masks of the maps from a probability of 0.4 on: subject, img and pixels."""
    pixels = [rle.encode(stored.full(row) >= np.float32(0.4)) for row in range(len(stored))]
    return stored.table[["subject", "img"]].assign(pixels=pixels)
