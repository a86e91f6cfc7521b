"""The test frames through every finished fold of a run: mean probabilities, streamed to disk."""

from pathlib import Path

import keras
import numpy as np

import kaggle_nerve.training.losses  # noqa: F401  registers the loss that saved models name
from kaggle_nerve.arrays import GrowingArrays
from kaggle_nerve.data.cache import Cache, open_test
from kaggle_nerve.data.frames import locate
from kaggle_nerve.errors import NerveError
from kaggle_nerve.models.forward import probabilities
from kaggle_nerve.progress import SILENT, Reporter
from kaggle_nerve.runs import Run
from kaggle_nerve.storage import completed, digest_text, locked, mark_complete, write_text

CHUNK = 4
"""Batches between two notes of how far the prediction has come."""


def predict_test(
    run: Run, data_dir: Path, *, force: bool = False, reporter: Reporter = SILENT, workers: int = 2
) -> Path:
    """Write the run's test probabilities and return their folder; finished work is not redone.

    Uses the folds that are complete; when more have been finished since, all is predicted anew.
    """
    told = f"Another process predicts with run {run.name}; wait for it."
    with locked(run.test_folder / ".lock", told):
        return _predict(run, data_dir, force, reporter, workers)


def _predict(run: Run, data_dir: Path, force: bool, reporter: Reporter, workers: int) -> Path:
    folds = run.needs_finished_folds()
    cache = open_test(locate(data_dir), run.settings.size, reporter=reporter, workers=workers)
    key = digest_text(cache.source, run.settings.digest(), *map(str, folds))
    done = completed(run.test_folder)
    if done and done["key"] == key and not force:
        reporter.say(f"The test probabilities of run {run.name} are there already (folds {_listed(folds)}).")
        return run.test_folder
    if done:
        (run.test_folder / "complete.json").unlink()
    reporter.say(f"Predicting with folds {_listed(folds)} of run {run.name}")
    presence = _stream(run, cache, [_load(run, fold) for fold in folds], key, reporter)
    table = cache.table[["img"]].assign(presence=presence)
    write_text(run.test_folder / "index.csv", table.to_csv(index=False))
    mark_complete(run.test_folder, {"key": key, "source": cache.source, "folds": folds, "frames": len(table)})
    return run.test_folder


def _load(run: Run, fold: int) -> keras.Model:
    path = run.fold_folder(fold) / "model.keras"
    try:
        model = keras.saving.load_model(path, compile=False)
    except (OSError, ValueError) as fault:
        raise NerveError(
            f"{path} cannot be loaded ({str(fault).splitlines()[0]}); delete {path.parent} and train the fold again."
        ) from fault
    model.compile(jit_compile=run.settings.training.jit_compile)
    return model


def _stream(run: Run, cache: Cache, models: list[keras.Model], key: str, reporter: Reporter) -> np.ndarray:
    """Fill probabilities.npy; returns the presence of each frame."""
    settings = run.settings.prediction
    count = len(cache.frames)
    shapes = {"probabilities": ((count, *run.settings.size), np.float16), "presence": ((count,), np.float32)}
    growing = GrowingArrays(run.test_folder, shapes, key)
    maps, presence = growing.arrays["probabilities"], growing.arrays["presence"]
    step = CHUNK * settings.batch
    with reporter.bar("Predicting", count) as bar:
        bar.update(growing.done)
        for start in range(growing.done, count, step):
            frames = cache.frames[start : start + step]
            mask_sum = np.zeros(frames.shape, np.float32)
            presence_sum = np.zeros(len(frames), np.float32)
            for model in models:
                row = 0
                for masks, present in probabilities(model, frames, batch=settings.batch, tta=settings.tta):
                    mask_sum[row : row + len(masks)] += masks
                    presence_sum[row : row + len(masks)] += present
                    row += len(masks)
            maps[start : start + len(frames)] = mask_sum / len(models)
            presence[start : start + len(frames)] = presence_sum / len(models)
            growing.note(start + len(frames))
            bar.update(len(frames))
    values = np.array(presence)
    growing.finish()
    return values


def _listed(folds: list[int]) -> str:
    return ", ".join(map(str, folds))
