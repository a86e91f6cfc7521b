"""Predictions for the tests of the decision: noisy discs, some of them where there is no nerve."""

from pathlib import Path

import numpy as np
import pandas as pd

from kaggle_nerve.competition import rle
from kaggle_nerve.data import folds as folding
from kaggle_nerve.maps.fullsize import enlarge
from kaggle_nerve.prediction.stored import Predictions
from kaggle_nerve.settings import load_preset, save_settings
from kaggle_nerve.storage import mark_complete, write_text

SMALL = (42, 58)
COUNT = 3


def stored(
    subjects: int = 4, frames: int = 8, seed: int = 0, shift: int = 2, name: str = "made"
) -> tuple[Predictions, pd.DataFrame]:
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
    found = Predictions(table, np.array(presences)[:, None], (maps,), (places,), f"{name}-source", (name,))
    return found, truth_table


def write_run(folder: Path, shift: int = 2) -> None:
    """A run of three folds as training leaves it, but for the models."""
    found, table = stored(subjects=6, frames=8, shift=shift, name=folder.name)
    save_settings(load_preset("tiny", ["size=[42, 58]"]), folder / "settings.toml")
    has_mask = table.assign(has_mask=table.pixels != "")
    folds = folding.assign(has_mask, str(COUNT), 0)
    folding.save(folds, folder / "folds.csv")
    for fold in range(COUNT):
        rows = np.flatnonzero(table.subject.isin(folds.subject[folds.fold == fold]))
        inside = folder / f"fold-{fold}"
        inside.mkdir()
        np.save(inside / "oof.npy", found.parts[0][rows])
        index = found.table.iloc[rows].assign(fold=fold, presence=found.presence[rows])
        write_text(inside / "oof.csv", index.to_csv(index=False))
        mark_complete(inside, {"source": "made", "settings": f"of {folder.name}"})
