"""One fold from start, or from where it was killed, to its model and out-of-fold predictions."""

import dataclasses
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import keras
import pandas as pd

from kaggle_nerve.data import folds as folding
from kaggle_nerve.data.cache import Cache
from kaggle_nerve.data.folds import split
from kaggle_nerve.data.noise import Marks
from kaggle_nerve.progress import SILENT, Reporter
from kaggle_nerve.runs import Run
from kaggle_nerve.settings import Settings
from kaggle_nerve.settings.schema import ALL, FoldName
from kaggle_nerve.storage import atomic_path, completed, completed_facts, digest_file, mark_complete
from kaggle_nerve.training import averaging, oof, stage, start
from kaggle_nerve.training.checkpoint import Checkpoint, State, without_nan
from kaggle_nerve.training.optimisers import chosen_precision, compiled, untrained
from kaggle_nerve.training.stage import Stage
from kaggle_nerve.training.validation import score_epoch

FIGURES = ("dice", "pixel_dice", "iou", "pixel_accuracy")
"""What is told about a finished fold: fields of an epoch's score."""


@dataclass(frozen=True)
class FoldResult:
    """How a fold ended: finished, or stopped by the user after ``epochs`` epochs. ``fold``: its number, or `ALL`.

    ``dice`` and what follows are those of the final model, which is what ``average`` says, on the
    held-out subjects; None is a figure that is not known, as all are while the fold is unfinished, and of the
    fold that holds nobody out.
    ``best_dice`` was the best epoch's.
    """

    fold: FoldName
    finished: bool
    epochs: int
    best_epoch: int
    best_dice: float
    average: str
    dice: float | None = None
    pixel_dice: float | None = None
    iou: float | None = None
    pixel_accuracy: float | None = None

    @property
    def told(self) -> str:
        """The same in a sentence."""
        if not self.finished:
            best = f"; the best so far has {self.best_dice:.4f}" if self.best_epoch else ""
            return f"Fold {self.fold} stopped after {self.epochs} epochs{best}"
        if self.fold == ALL:
            return f"Fold {ALL} finished after {self.epochs} epochs; it holds nobody out, so it has no score of its own"
        best = self.average == "best"
        weights = f"epoch {self.best_epoch}" if best else self.average
        return (
            f"Fold {self.fold} finished after {self.epochs} epochs: {'best ' * best}mean Dice on its held-out "
            f"subjects {self.dice:.4f} ({weights}); over all pixels Dice {self.pixel_dice:.4f}, IoU {self.iou:.4f}, "
            f"accuracy {self.pixel_accuracy:.4f}"
        )


@dataclass(frozen=True)
class FoldJob:
    """What a fold is trained on, and who is told. ``budget``: seconds for all of it, or None.

    ``stop`` is asked after each epoch whether the user wants to end here. ``warm``: the same frames at
    ``training.warm_size``, where the settings want that. ``noise``: the labels that are doubted.
    """

    run: Run
    cache: Cache
    folds: pd.DataFrame
    fold: FoldName
    budget: float | None = None
    reporter: Reporter = SILENT
    stop: Callable[[], bool] = lambda: False
    warm: Cache | None = None
    noise: Marks | None = None

    @property
    def folder(self) -> Path:
        """The fold's folder."""
        return self.run.fold_folder(self.fold)

    @property
    def label(self) -> str:
        """What bars and messages call it."""
        return f"Fold {self.fold}"

    @property
    def seed(self) -> int:
        """What everything random in this fold follows from."""
        return self.run.settings.seed + (folding.count(self.folds) if self.fold == ALL else self.fold)


def train_fold(job: FoldJob) -> FoldResult:
    """Train one fold and write model.keras, history.csv, oof.npy, oof.csv and complete.json.

    A finished fold is not trained again; an unfinished one goes on after its last whole epoch, with
    the optimiser and the schedule that it had. A stage at ``training.warm_size`` leaves its own
    history in the sub-folder ``warm``, its epochs numbered from 1 there and again in ``history.csv``.

    The fold `ALL` has no out-of-fold predictions, and the epochs that the run's folds were found to need.
    """
    began = time.monotonic()
    done = completed(job.folder)
    if done:
        Checkpoint(job.folder).remove()
        return _result(job, done)
    main = _stage(job, began)
    keras.utils.clear_session()  # the graphs of the fold before would stay in memory
    keras.utils.set_random_seed(job.seed)
    found = Checkpoint(job.folder).restore(main.settings) or _begin(job, main, began)
    if found is None:
        return _unfinished(job, State())
    model, state = found
    stage.train(main, model, state, job.stop)
    if not state.ended(main.settings):
        return _unfinished(job, state)
    return _finish(job, main, model, state)


def _stage(job: FoldJob, began: float) -> Stage:
    rows, held = split(job.cache.table, job.folds, job.fold)
    return Stage(
        label=job.label,
        folder=job.folder,
        settings=_settings(job),
        cache=job.cache,
        rows=rows,
        held=held,
        seed=job.seed,
        noise=job.noise,
        deadline=None if job.budget is None else began + job.budget,
        last=True,
        reporter=job.reporter,
    )


def _settings(job: FoldJob) -> Settings:
    """The settings of the stage at the working size."""
    settings = stage.full_settings(job.run.settings)
    if job.fold != ALL:
        return settings
    facts = [completed_facts(job.run.fold_folder(fold)) for fold in job.run.finished_folds()]
    key = "best_epoch" if settings.training.average == "best" else "epochs"
    epochs = round(median(fact[key] for fact in facts)) if facts else settings.training.epochs
    return stage.without_scores(settings, max(1, epochs))


def _begin(job: FoldJob, main: Stage, began: float) -> tuple[keras.Model, State] | None:
    """The network before its first epoch at the working size; None where the user stopped before that."""
    precision = chosen_precision(main.settings)
    state = State(precision=precision)
    if job.warm is not None:
        weights = _warm_up(job, job.warm, main, began)
        if weights is None:
            return None
        keras.utils.clear_session()
        keras.utils.set_random_seed(job.seed)
        model = untrained(main.settings, precision)
        start.put(model, weights)
        return model, state
    return _first_model(job, main, precision), state


def _first_model(job: FoldJob, first: Stage, precision: str) -> keras.Model:
    """The network before any epoch: new, or with the weights of ``training.start``."""
    if not first.settings.training.start:
        return compiled(first.settings, precision)
    source = start.find(first.settings.training.start, job.run, job.fold)
    model = untrained(first.settings, precision)
    taken, wanted = start.put(model, source.path)
    part = "" if taken == wanted else f" Only {taken} of the network's {wanted} arrays of weights match it."
    job.reporter.say(source.told + part)
    return model


def _warm_up(job: FoldJob, cache: Cache, main: Stage, began: float) -> Path | None:
    """Train at the smaller size; returns the file of the last epoch's weights, None where the user stopped."""
    folder = job.folder / "warm"
    weights = folder / "last.weights.h5"
    checkpoint = Checkpoint(folder)
    if not completed(folder):
        settings = stage.warm_settings(job.run.settings)
        share = job.run.settings.training.warm_share
        warm = dataclasses.replace(
            main,
            label=f"{job.label} at {settings.size[0]}x{settings.size[1]}",
            folder=folder,
            settings=settings,
            cache=cache,
            deadline=None if job.budget is None else began + share * job.budget,
            last=False,
        )
        found = checkpoint.restore(settings)
        if found is None:
            precision = chosen_precision(settings)
            found = _first_model(job, warm, precision), State(precision=precision)
        model, state = found
        stage.train(warm, model, state, job.stop)
        if not state.ended(settings):
            return None
        with atomic_path(weights) as path:
            model.save_weights(path)
        mark_complete(folder, {"epochs": state.epoch, "seconds": round(state.seconds, 1)})
    checkpoint.remove()
    return weights


def _finish(job: FoldJob, main: Stage, model: keras.Model, state: State) -> FoldResult:
    """The final model, its score and its out-of-fold predictions; then the fold is complete."""
    settings, checkpoint = main.settings, Checkpoint(job.folder)
    final = averaging.final_model(model, state, checkpoint, settings, main.batches(model))
    if final is not model:
        final.compile(jit_compile=settings.training.jit_compile)
    figures = {}
    if job.fold != ALL:
        figures = _figures(main, final, state)
        oof.predict(job.folder, final, job.cache, main.held, settings.prediction, job.fold, job.reporter)
    # Without the optimiser the file is a third of the size.
    final.compile(jit_compile=settings.training.jit_compile)
    with atomic_path(job.folder / "model.keras") as path:
        keras.saving.save_model(final, path)
    done = {
        "source": job.cache.source,
        "settings": job.run.settings.digest(),
        "model": digest_file(job.folder / "model.keras"),
        "epochs": state.epoch,
        "best_epoch": state.best_epoch,
        "best_dice": state.best_dice,
        "average": settings.training.average,
        **without_nan(figures),
        "seconds": round(state.seconds, 1),
    }
    mark_complete(job.folder, done)
    checkpoint.remove()
    (job.folder / "warm" / "last.weights.h5").unlink(missing_ok=True)
    return _result(job, done)


def _figures(main: Stage, final: keras.Model, state: State) -> dict[str, float]:
    """The final model's score; the best epoch has been scored already."""
    if main.settings.training.average == "best":
        row = next(row for row in state.history if row["epoch"] == state.best_epoch)
    else:
        settings = main.settings
        options = {"batch": settings.prediction.batch, "conditional": settings.loss.is_conditional}
        row = asdict(score_epoch(final, main.cache.frames[main.held], main.truths(), **options))
    return {name: row[name] for name in FIGURES}


def _unfinished(job: FoldJob, state: State) -> FoldResult:
    average = job.run.settings.training.average
    return FoldResult(job.fold, False, state.epoch, state.best_epoch, max(0.0, state.best_dice), average)


def _result(job: FoldJob, done: dict[str, Any]) -> FoldResult:
    figures = {name: done.get(name) for name in FIGURES}
    # An earlier version left out some of these.
    best = done.get("best_epoch", 0), done.get("best_dice", 0.0)
    return FoldResult(job.fold, True, done["epochs"], *best, done.get("average", "best"), **figures)
