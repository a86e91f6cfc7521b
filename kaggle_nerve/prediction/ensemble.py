"""The test frames through every finished fold of a run: their combined probabilities, streamed to disk."""

from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np

import kaggle_nerve.training.losses  # noqa: F401  registers the loss that saved models name
from kaggle_nerve.arrays import GrowingArrays
from kaggle_nerve.blending import Mixer
from kaggle_nerve.data.cache import Cache, open_test
from kaggle_nerve.data.frames import locate
from kaggle_nerve.errors import NerveError
from kaggle_nerve.models.forward import Predicted, probabilities
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
    figures = _stream(run, cache, [load_fold(run, fold) for fold in folds], key, reporter)
    table = cache.table[["img"]].assign(**figures).round({"agreement": 6, "spread": 6})
    write_text(run.test_folder / "index.csv", table.to_csv(index=False))
    mark_complete(run.test_folder, {"key": key, "source": cache.source, "folds": folds, "frames": len(table)})
    return run.test_folder


def load_fold(run: Run, fold: int) -> keras.Model:
    """The model of a finished fold; NerveError where its file cannot be loaded."""
    path = run.fold_folder(fold) / "model.keras"
    try:
        model = keras.saving.load_model(path, compile=False)
    except (OSError, ValueError) as fault:
        raise NerveError(
            f"{path} cannot be loaded ({str(fault).splitlines()[0]}); delete {path.parent} and train the fold again."
        ) from fault
    model.compile(jit_compile=run.settings.training.jit_compile)
    return model


def _stream(
    run: Run, cache: Cache, models: list[keras.Model], key: str, reporter: Reporter
) -> dict[str, np.ndarray]:
    """Fill probabilities.npy; returns the presence, agreement and spread of each frame."""
    settings, count = run.settings.prediction, len(cache.frames)
    shapes = {"probabilities": ((count, *run.settings.size), np.float16)}
    shapes |= dict.fromkeys(("presence", "agreement", "spread"), ((count,), np.float32))
    growing = GrowingArrays(run.test_folder, shapes, key)
    step = CHUNK * settings.batch
    options = {"batch": settings.batch, "tta": settings.tta, "combine": settings.combine}
    with reporter.bar("Predicting", count) as bar:
        bar.update(growing.done)
        for start in range(growing.done, count, step):
            frames = cache.frames[start : start + step]
            streams = [probabilities(model, frames, **options) for model in models]
            row = start
            while row < start + len(frames):
                together = _together((next(stream) for stream in streams), settings.combine)
                place = slice(row, row + len(together.masks))
                for array, values in zip(growing.arrays.values(), together, strict=True):
                    array[place] = values
                row = place.stop
            growing.note(row)
            bar.update(len(frames))
    figures = {name: np.array(values) for name, values in growing.arrays.items() if values.ndim == 1}
    growing.finish()
    return figures


def _together(folds: Iterator[Predicted], combine: str) -> Predicted:
    """What the folds say about a batch, combined; agreement and spread are means of what each has by itself.

    How far the folds differ is left out: an out-of-fold frame has one fold's model alone, so that nothing
    can be learned there from it.
    """
    mixer, agreements, spreads = Mixer(combine), [], []
    for one in folds:
        mixer.add(one.masks, one.presence)
        agreements.append(one.agreement)
        spreads.append(one.spread)
    return Predicted(*mixer.result(), np.mean(agreements, axis=0), np.mean(spreads, axis=0))


def _listed(folds: list[int]) -> str:
    return ", ".join(map(str, folds))
