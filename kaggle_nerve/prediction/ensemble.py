"""Predict the test frames with every finished fold of a run, and stream the combined probabilities to disk."""

from pathlib import Path

import keras
import numpy as np

from kaggle_nerve.arrays import GrowingArrays
from kaggle_nerve.data.cache import Cache, open_test
from kaggle_nerve.data.frames import locate
from kaggle_nerve.locks import hold_lock
from kaggle_nerve.maps import levels
from kaggle_nerve.maps.blending import Mixer
from kaggle_nerve.models.model_file import read_model_file
from kaggle_nerve.models.opening import open_model
from kaggle_nerve.prediction.forward import ModelOutput, probabilities
from kaggle_nerve.progress import SILENT, Reporter
from kaggle_nerve.runs import Fold, Run, TestFacts
from kaggle_nerve.runs.models import remedy, require_model
from kaggle_nerve.runs.run import LOCK
from kaggle_nerve.storage import digest_text, write_text

FORMAT = "2"
"""Version of the stored predictions: older ones are predicted again."""

CHUNK = 4
"""Batches between two saves of the progress."""


def predict_test(
    run: Run, data_dir: Path, *, force: bool = False, reporter: Reporter = SILENT, workers: int = 2
) -> Path:
    """Write the run's test probabilities and return their folder; do not repeat finished work.

    Use the finished folds, and the model of all subjects if there is one. If more folds have finished
    since, or one was trained again, predict everything again.
    """
    message = f"Another process predicts with run {run.name}; wait for it."
    with hold_lock(run.test_folder / LOCK, message):
        return _predict(run, data_dir, force, reporter, workers)


def _predict(run: Run, data_dir: Path, force: bool, reporter: Reporter, workers: int) -> Path:
    run.require_finished_folds()
    folds = run.test_folds()
    cache = open_test(locate(data_dir), run.settings.size, reporter=reporter, workers=workers)
    models = run.models()
    key = digest_text(FORMAT, cache.source, run.settings.digest(), *models)
    facts = run.test_facts()
    if facts and facts.key == key and not force:
        reporter.say(
            f"The test probabilities of run {run.name} are there already (folds {_join_numbers(folds)})."
        )
        return run.test_folder
    run.reopen_test()
    reporter.say(f"Predicting with folds {_join_numbers(folds)} of run {run.name}")
    figures = _stream(run, cache, [load_fold(fold) for fold in folds], key, reporter)
    table = cache.table[["img"]].assign(**figures).round({"agreement": 6, "spread": 6})
    write_text(run.test_table, table.to_csv(index=False))
    run.finish_test(TestFacts(key, cache.source, [fold.number for fold in folds], models, len(table)))
    return run.test_folder


def load_fold(fold: Fold) -> keras.Model:
    """Load the model of a finished fold; raise NerveError if its file is damaged or cannot be opened."""
    require_model(fold)
    model = open_model(read_model_file(fold.model, remedy(fold)), fold.run.settings)
    model.compile(jit_compile=fold.run.settings.training.jit_compile)
    return model


def _stream(
    run: Run, cache: Cache, models: list[keras.Model], key: str, reporter: Reporter
) -> dict[str, np.ndarray]:
    """Fill the arrays of the test folder; return the presence, agreement and spread of each frame."""
    settings, count = run.settings.prediction, len(cache.frames)
    folds = len(run.finished_folds())
    shapes = _shapes(count, run.settings.size, folds)
    stored = GrowingArrays(run.test_folder, shapes, key, "the predictions of the test frames")
    options = {"batch": settings.batch, "tta": settings.tta, "combine": settings.combine}
    with reporter.bar("Predicting", count) as bar:
        bar.update(stored.done)
        row = stored.done
        streams = [probabilities(model, cache.frames[row:], **options) for model in models]
        for number, outputs in enumerate(zip(*streams, strict=True), 1):
            combined = combine_models(list(outputs), folds, settings.combine)
            stored.write(row, combined)
            row += len(combined["presence"])
            if number % CHUNK == 0 or row == count:
                stored.note(row)
            bar.update(len(combined["presence"]))
    figures = {name: stored.read(name) for name in ("presence", "agreement", "spread")}
    stored.finish()
    return figures


def _shapes(count: int, size: tuple[int, int], folds: int) -> dict[str, tuple[tuple[int, ...], type]]:
    """Return name -> (shape, type) of all stored arrays, one row per frame: see `combine_models`."""
    shapes = {"probabilities": ((count, *size), np.float16), "fold_presences": ((count, folds), np.float32)}
    shapes |= dict.fromkeys(("presence", "agreement", "spread"), ((count,), np.float32))
    return shapes | dict.fromkeys(("levels", "fold_levels"), ((count, levels.COUNT), np.int32))


def combine_models(models: list[ModelOutput], folds: int, combine: str) -> dict[str, np.ndarray]:
    """Combine the models' outputs for a batch; agreement and spread are means of each model's own.

    The first ``folds`` models are those of folds; one of all subjects may follow.

    The difference between folds is not stored: an out-of-fold frame is predicted by one fold's model only, so
    no rule could learn from it. ``levels`` and ``fold_levels`` count a frame's pixels of each level, in the
    combined map and in the maps of all folds; `matching` needs them and ``fold_presences``. ``fold_levels`` and
    ``fold_presences`` leave out the model of all subjects, since rules are learned on the folds' predictions.
    """
    mixer = Mixer(combine)
    for output in models:
        mixer.add(output.masks, output.presence)
    masks, presence = mixer.result()
    return {
        "probabilities": masks,
        "presence": presence,
        "agreement": np.mean([output.agreement for output in models], axis=0),
        "spread": np.mean([output.spread for output in models], axis=0),
        "fold_presences": np.stack([output.presence for output in models[:folds]], axis=1),
        "levels": _histograms(masks),
        "fold_levels": np.sum([_histograms(output.masks) for output in models[:folds]], axis=0),
    }


def _histograms(masks: np.ndarray) -> np.ndarray:
    return np.stack([levels.histogram(levels.quantise(mask)) for mask in masks])


def _join_numbers(folds: list[Fold]) -> str:
    return ", ".join(str(fold.number) for fold in folds)
