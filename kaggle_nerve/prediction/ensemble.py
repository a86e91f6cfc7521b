"""The test frames through every finished fold of a run: their combined probabilities, streamed to disk."""

from pathlib import Path

import keras
import numpy as np

import kaggle_nerve.models  # noqa: F401  registers the layers that saved models name
from kaggle_nerve.arrays import GrowingArrays
from kaggle_nerve.data.cache import Cache, open_test
from kaggle_nerve.data.frames import locate
from kaggle_nerve.errors import NerveError
from kaggle_nerve.maps import levels
from kaggle_nerve.maps.blending import Mixer
from kaggle_nerve.prediction.forward import Predicted, probabilities
from kaggle_nerve.progress import SILENT, Reporter
from kaggle_nerve.runs import Fold, Run, TestFacts
from kaggle_nerve.runs.run import LOCK
from kaggle_nerve.storage import digest_text, locked, write_text

FORMAT = "2"
"""Changes where what is stored changes: older predictions are made anew."""

CHUNK = 4
"""Batches between two notes of how far the prediction has come."""


def predict_test(
    run: Run, data_dir: Path, *, force: bool = False, reporter: Reporter = SILENT, workers: int = 2
) -> Path:
    """Write the run's test probabilities and return their folder; finished work is not redone.

    Uses the folds that are complete, and the model of all subjects where there is one; when more have been
    finished since, or one was trained again, all is predicted anew.
    """
    told = f"Another process predicts with run {run.name}; wait for it."
    with locked(run.test_folder / LOCK, told):
        return _predict(run, data_dir, force, reporter, workers)


def _predict(run: Run, data_dir: Path, force: bool, reporter: Reporter, workers: int) -> Path:
    run.needs_finished_folds()
    folds = run.test_folds()
    cache = open_test(locate(data_dir), run.settings.size, reporter=reporter, workers=workers)
    models = run.models()
    key = digest_text(FORMAT, cache.source, run.settings.digest(), *models)
    done = run.test_facts()
    if done and done.key == key and not force:
        reporter.say(f"The test probabilities of run {run.name} are there already (folds {_listed(folds)}).")
        return run.test_folder
    run.reopen_test()
    reporter.say(f"Predicting with folds {_listed(folds)} of run {run.name}")
    figures = _stream(run, cache, [load_fold(fold) for fold in folds], key, reporter)
    table = cache.table[["img"]].assign(**figures).round({"agreement": 6, "spread": 6})
    write_text(run.test_table, table.to_csv(index=False))
    run.finish_test(TestFacts(key, cache.source, [fold.number for fold in folds], models, len(table)))
    return run.test_folder


def load_fold(fold: Fold) -> keras.Model:
    """The model of a finished fold; NerveError where its file cannot be loaded."""
    try:
        model = keras.saving.load_model(fold.model, compile=False)
    except (OSError, ValueError) as fault:
        raise NerveError(
            f"{fold.model} cannot be loaded ({str(fault).splitlines()[0]}); delete {fold.folder} and train the fold "
            "again."
        ) from fault
    model.compile(jit_compile=fold.run.settings.training.jit_compile)
    return model


def _stream(
    run: Run, cache: Cache, models: list[keras.Model], key: str, reporter: Reporter
) -> dict[str, np.ndarray]:
    """Fill the arrays of the test folder; returns the presence, agreement and spread of each frame."""
    settings, count = run.settings.prediction, len(cache.frames)
    folds = len(run.finished_folds())
    growing = GrowingArrays(run.test_folder, _shapes(count, run.settings.size, folds), key)
    step = CHUNK * settings.batch
    options = {"batch": settings.batch, "tta": settings.tta, "combine": settings.combine}
    with reporter.bar("Predicting", count) as bar:
        bar.update(growing.done)
        for start in range(growing.done, count, step):
            frames = cache.frames[start : start + step]
            streams = [probabilities(model, frames, **options) for model in models]
            row = start
            while row < start + len(frames):
                said = together([next(stream) for stream in streams], folds, settings.combine)
                place = slice(row, row + len(said["presence"]))
                for name, values in said.items():
                    growing.arrays[name][place] = values
                row = place.stop
            growing.note(row)
            bar.update(len(frames))
    figures = {name: np.array(growing.arrays[name]) for name in ("presence", "agreement", "spread")}
    growing.finish()
    return figures


def _shapes(count: int, size: tuple[int, int], folds: int) -> dict[str, tuple[tuple[int, ...], type]]:
    """Name -> (shape, type) of all that is stored, a frame a row: see `together`."""
    shapes = {"probabilities": ((count, *size), np.float16), "fold_presences": ((count, folds), np.float32)}
    shapes |= dict.fromkeys(("presence", "agreement", "spread"), ((count,), np.float32))
    return shapes | dict.fromkeys(("levels", "fold_levels"), ((count, levels.COUNT), np.int32))


def together(models: list[Predicted], folds: int, combine: str) -> dict[str, np.ndarray]:
    """What the models say about a batch, combined; agreement and spread are means of what each has by itself.

    The first ``folds`` models are those of folds; one of all subjects may follow.

    How far the folds differ is left out: an out-of-fold frame has one fold's model alone, so that nothing
    can be learned there from it. ``levels`` and ``fold_levels`` count how many pixels of a frame have each
    level, in the combined map and in those of all folds: `matching` needs them, and ``fold_presences``. The
    model of all subjects is in neither: rules are learned on what folds say.
    """
    mixer = Mixer(combine)
    for one in models:
        mixer.add(one.masks, one.presence)
    masks, presence = mixer.result()
    return {
        "probabilities": masks,
        "presence": presence,
        "agreement": np.mean([one.agreement for one in models], axis=0),
        "spread": np.mean([one.spread for one in models], axis=0),
        "fold_presences": np.stack([one.presence for one in models[:folds]], axis=1),
        "levels": _histograms(masks),
        "fold_levels": np.sum([_histograms(one.masks) for one in models[:folds]], axis=0),
    }


def _histograms(masks: np.ndarray) -> np.ndarray:
    return np.stack([levels.histogram(levels.quantise(mask)) for mask in masks])


def _listed(folds: list[Fold]) -> str:
    return ", ".join(map(str, folds))
