"""Out-of-fold predictions: a fold's model on its held-out frames, after training or with other views."""

from pathlib import Path

import keras
import numpy as np

from kaggle_nerve.data import folds as folding
from kaggle_nerve.data.cache import Cache, open_training
from kaggle_nerve.data.frames import locate
from kaggle_nerve.disk import require_space
from kaggle_nerve.errors import NerveError
from kaggle_nerve.locks import hold_lock
from kaggle_nerve.prediction.ensemble import load_fold
from kaggle_nerve.prediction.forward import probabilities
from kaggle_nerve.progress import SILENT, Reporter
from kaggle_nerve.runs import Fold, OofFacts, Run
from kaggle_nerve.runs.models import require_model
from kaggle_nerve.runs.run import LOCK
from kaggle_nerve.storage import atomic_path, write_text

MAP_TYPE = np.float16


def predict_oof(
    run: Run, data_dir: Path, *, force: bool = False, reporter: Reporter = SILENT, workers: int = 2
) -> None:
    """Write the out-of-fold predictions of every finished fold of a run such as ``small@flips``.

    A run with its own views has them from training, so nothing is done. Folds already predicted with their
    current model are not predicted again. Raise NerveError if ``data_dir`` holds other training data than
    the folds were trained on.
    """
    if not run.views:
        return
    message = f"Another process predicts the held-out frames of run {run.name}; wait for it."
    with hold_lock(run.views_folder / LOCK, message):
        inputs = {fold: _inputs(fold) for fold in run.require_finished_folds()}
        missing = [fold for fold in inputs if force or fold.oof_facts() != inputs[fold]]
        if not missing:
            reporter.say(f"The out-of-fold predictions of run {run.name} are there already.")
            return
        cache = open_training(locate(data_dir), run.settings.size, reporter=reporter, workers=workers)
        for fold in missing:
            if cache.source != inputs[fold].source:
                raise NerveError(
                    f"Fold {fold.number} of run {run.name} was trained on other data than that in {data_dir}; "
                    f"name its own with --data."
                )
        folds = folding.load(run.folds_csv)
        for fold in missing:
            fold.reopen_oof()
            _, held_rows = folding.split(cache.table, folds, fold.number)
            predict_held_out(fold, load_fold(fold), cache, held_rows, reporter)
            fold.finish_oof(inputs[fold])


def predict_held_out(
    fold: Fold, model: keras.Model, cache: Cache, rows: np.ndarray, reporter: Reporter
) -> None:
    """Write the out-of-fold maps and table of ``fold``, for ``rows`` of the cache.

    The table has the columns subject, img, fold, presence, agreement and spread (see `ModelOutput`). Raise NerveError
    at once if the disk lacks the space.
    """
    fold.oof_folder.mkdir(parents=True, exist_ok=True)
    require_space(
        fold.oof_folder,
        map_bytes(len(rows), cache.frames.shape[1:]),
        f"the predictions of fold {fold.number}",
    )
    settings = fold.run.settings.prediction
    frames = cache.frames[rows]
    masks = np.empty(frames.shape, MAP_TYPE)
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


def map_bytes(count: int, size: tuple[int, int]) -> int:
    """Return the bytes of ``count`` stored maps of ``size`` (height, width)."""
    return count * size[0] * size[1] * np.dtype(MAP_TYPE).itemsize


def _inputs(fold: Fold) -> OofFacts:
    """Return the inputs of a fold's predictions."""
    return OofFacts(fold.require_facts().source, fold.run.settings.digest(), require_model(fold))
