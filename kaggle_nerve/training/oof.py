"""What a fold's model says about the frames that it was not trained on."""

from pathlib import Path

import keras
import numpy as np

from kaggle_nerve.data.cache import Cache
from kaggle_nerve.models.forward import probabilities
from kaggle_nerve.progress import Reporter
from kaggle_nerve.settings import PredictionSettings
from kaggle_nerve.storage import atomic_path, write_text


def predict(
    folder: Path,
    model: keras.Model,
    cache: Cache,
    rows: np.ndarray,
    settings: PredictionSettings,
    fold: int,
    reporter: Reporter,
) -> None:
    """Write oof.npy (float16, n x height x width) and oof.csv into ``folder``, for ``rows`` of the cache.

    oof.csv has the columns subject, img, fold, presence, agreement and spread (see `Predicted`).
    """
    frames = cache.frames[rows]
    masks = np.empty(frames.shape, np.float16)
    figures = {name: np.empty(len(frames)) for name in ("presence", "agreement", "spread")}
    options = {"batch": settings.batch, "tta": settings.tta, "combine": settings.combine}
    row = 0
    with reporter.bar(f"Fold {fold} out-of-fold", len(frames)) as bar:
        for part in probabilities(model, frames, **options):
            place = slice(row, row + len(part.masks))
            masks[place] = part.masks
            for name, values in figures.items():
                values[place] = getattr(part, name)
            row = place.stop
            bar.update(len(part.masks))
    with atomic_path(folder / "oof.npy") as path:
        np.save(path, masks)
    table = cache.table.iloc[rows][["subject", "img"]].assign(fold=fold, **figures)
    write_text(folder / "oof.csv", table.round({"agreement": 6, "spread": 6}).to_csv(index=False))
