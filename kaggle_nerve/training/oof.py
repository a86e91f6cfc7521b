"""What a fold's model says about the frames that it was not trained on."""

import keras
import numpy as np

from kaggle_nerve.data.cache import Cache
from kaggle_nerve.models.forward import probabilities
from kaggle_nerve.progress import Reporter
from kaggle_nerve.runs import Fold
from kaggle_nerve.storage import atomic_path, write_text


def predict(fold: Fold, model: keras.Model, cache: Cache, rows: np.ndarray, reporter: Reporter) -> None:
    """Write the out-of-fold maps and table of ``fold``, for ``rows`` of the cache.

    The table has the columns subject, img, fold, presence, agreement and spread (see `Predicted`).
    """
    settings = fold.run.settings.prediction
    frames = cache.frames[rows]
    masks = np.empty(frames.shape, np.float16)
    figures = {name: np.empty(len(frames)) for name in ("presence", "agreement", "spread")}
    options = {"batch": settings.batch, "tta": settings.tta, "combine": settings.combine}
    row = 0
    with reporter.bar(f"{fold.label} out-of-fold", len(frames)) as bar:
        for part in probabilities(model, frames, **options):
            place = slice(row, row + len(part.masks))
            masks[place] = part.masks
            for name, values in figures.items():
                values[place] = getattr(part, name)
            row = place.stop
            bar.update(len(part.masks))
    with atomic_path(fold.oof_maps) as path:
        np.save(path, masks)
    table = cache.table.iloc[rows][["subject", "img"]].assign(fold=fold.number, **figures)
    write_text(fold.oof_table, table.round({"agreement": 6, "spread": 6}).to_csv(index=False))
