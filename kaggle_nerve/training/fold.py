"""One fold from start, or from where it was killed, to its model and out-of-fold predictions."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import keras
import numpy as np
import pandas as pd

from kaggle_nerve.data.batches import Batches
from kaggle_nerve.data.cache import Cache
from kaggle_nerve.data.folds import split
from kaggle_nerve.data.fullsize import Truths
from kaggle_nerve.models import registry
from kaggle_nerve.models.forward import probabilities
from kaggle_nerve.progress import SILENT, Reporter
from kaggle_nerve.runs import Run
from kaggle_nerve.settings import OptimiserSettings, Settings
from kaggle_nerve.storage import atomic_path, completed, mark_complete, write_text
from kaggle_nerve.training.callbacks import Clock, EpochKeeper, PaceKeeper
from kaggle_nerve.training.checkpoint import Checkpoint, State
from kaggle_nerve.training.losses import MaskLoss
from kaggle_nerve.training.schedule import Pace
from kaggle_nerve.training.speed import Speed, measure

RESERVE = 1.1
"""Factor on the measured time of what follows the last epoch, kept free of a time budget."""


@dataclass(frozen=True)
class FoldResult:
    """How a fold ended: finished, or stopped by the user after ``epochs`` epochs."""

    fold: int
    finished: bool
    epochs: int
    best_epoch: int
    dice: float


@dataclass(frozen=True)
class FoldJob:
    """What a fold is trained on, and who is told. ``budget``: seconds for all of it, or None.

    ``stop`` is asked after each epoch whether the user wants to end here.
    """

    run: Run
    cache: Cache
    folds: pd.DataFrame
    fold: int
    budget: float | None = None
    reporter: Reporter = SILENT
    stop: Callable[[], bool] = lambda: False


def train_fold(job: FoldJob) -> FoldResult:
    """Train one fold and write model.keras, history.csv, oof.npy, oof.csv and complete.json.

    A finished fold is not trained again; an unfinished one goes on after its last whole epoch, with
    the optimiser and the schedule that it had.
    """
    deadline = None if job.budget is None else time.monotonic() + job.budget
    done = completed(job.run.fold_folder(job.fold))
    if done:
        return FoldResult(job.fold, True, done["epochs"], done["best_epoch"], done["dice"])
    rows, held = split(job.cache.table, job.folds, job.fold)
    settings = job.run.settings
    model, state = _model(job)
    if not _ended(state, settings):
        batches, frames = _batches(job, rows), job.cache.frames[held]
        truths = Truths(list(job.cache.table.pixels.iloc[held]))
        speed = measure(model, batches, frames, settings)
        _announce(job, speed, len(batches), state)
        clock = Clock(deadline, speed.epoch(len(batches)))
        if deadline is not None:
            clock.deadline = deadline - RESERVE * (speed.finish + speed.validation)
        interrupted = _fit(job, model, state, batches, (frames, truths), clock)
        if interrupted and not _ended(state, settings):
            return FoldResult(job.fold, False, state.epoch, state.best_epoch, state.best_dice)
    _finish(job, model, state, held)
    return FoldResult(job.fold, True, state.epoch, state.best_epoch, state.best_dice)


def compiled(settings: Settings) -> keras.Model:
    """A new network of ``settings``, ready for training."""
    model = registry.build(settings)
    loss = {"mask": MaskLoss(settings.loss.dice, settings.loss.bce, settings.loss.smooth)}
    weights = {"mask": 1.0}
    if settings.model.presence:
        loss["presence"] = keras.losses.BinaryCrossentropy(name="presence_loss")
        weights["presence"] = settings.loss.presence
    model.compile(
        optimizer=_optimiser(settings.optimiser),
        loss=loss,
        loss_weights=weights,
        jit_compile=settings.training.jit,
    )
    return model


def _optimiser(settings: OptimiserSettings) -> keras.optimizers.Optimizer:
    options = {"learning_rate": settings.learning_rate, "global_clipnorm": settings.clip_norm or None}
    if settings.name == "adam":
        return keras.optimizers.Adam(**options)
    optimiser = keras.optimizers.AdamW(weight_decay=settings.weight_decay, **options)
    # Decay pulls convolutions towards 0; on biases and normalisation it only does harm.
    optimiser.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimiser


def _model(job: FoldJob) -> tuple[keras.Model, State]:
    keras.utils.clear_session()  # the graphs of the fold before would stay in memory
    keras.utils.set_random_seed(job.run.settings.seed + job.fold)
    restored = Checkpoint(job.run.fold_folder(job.fold)).restore()
    return restored or (compiled(job.run.settings), State())


def _batches(job: FoldJob, rows: np.ndarray) -> Batches:
    settings = job.run.settings
    return Batches(
        job.cache.frames,
        job.cache.masks,
        job.cache.table.has_mask.to_numpy(),
        rows,
        batch=settings.training.batch,
        seed=settings.seed + job.fold,
        ranges=settings.augmentation,
        presence=settings.model.presence,
    )


def _ended(state: State, settings: Settings) -> bool:
    """Whether the schedule ran to its end, or patience did."""
    patience = settings.training.patience
    waited = bool(patience) and state.epoch - state.best_epoch >= patience
    return bool(state.epoch) and (state.epoch >= state.epochs or waited)


def _announce(job: FoldJob, speed: Speed, steps: int, state: State) -> None:
    epochs = job.run.settings.training.epochs - state.epoch
    seconds = epochs * speed.epoch(steps)
    again = f", going on after epoch {state.epoch}" if state.epoch else ""
    fits = ""
    if job.budget is not None:
        fitting = min(epochs, max(1, int((job.budget - speed.finish) / speed.epoch(steps))))
        fits = f"; the time budget of {job.budget / 60:.1f} min holds about {fitting}"
    job.reporter.say(
        f"Fold {job.fold}{again}: {speed.step * 1000:.0f} ms a step, {epochs} epochs of {steps} steps would take "
        f"about {seconds / 60:.1f} min{fits}"
    )


def _fit(
    job: FoldJob,
    model: keras.Model,
    state: State,
    batches: Batches,
    held: tuple[np.ndarray, Truths],
    clock: Clock,
) -> bool:
    """Train until the schedule, the deadline or the user ends it; returns whether it was the user."""
    settings = job.run.settings
    pace = Pace(settings.training.epochs, len(batches), epoch=state.epoch, progress=state.progress)
    total = (settings.training.epochs - state.epoch) * len(batches)
    with job.reporter.bar(f"Fold {job.fold}", total, "step") as bar:
        folder = job.run.fold_folder(job.fold)
        keeper = EpochKeeper(folder, state, pace, settings, held, clock, bar, job.stop)
        model.fit(
            batches,
            initial_epoch=state.epoch,
            epochs=settings.training.epochs,
            verbose=0,
            shuffle=False,
            callbacks=[PaceKeeper(pace, batches, settings, clock, bar), keeper],
        )
    return keeper.interrupted


def _finish(job: FoldJob, model: keras.Model, state: State, held: np.ndarray) -> None:
    folder, settings = job.run.fold_folder(job.fold), job.run.settings
    checkpoint = Checkpoint(folder)
    checkpoint.load_best(model, state)
    frames = job.cache.frames[held]
    masks = np.empty((len(held), *settings.size), np.float16)
    presence = np.empty(len(held))
    row = 0
    options = asdict(settings.prediction)
    with job.reporter.bar(f"Fold {job.fold} out-of-fold", len(held)) as bar:
        for mask, present in probabilities(model, frames, **options):
            masks[row : row + len(mask)], presence[row : row + len(mask)] = mask, present
            row += len(mask)
            bar.update(len(mask))
    with atomic_path(folder / "oof.npy") as path:
        np.save(path, masks)
    table = job.cache.table.iloc[held][["subject", "img"]].assign(fold=job.fold, presence=presence)
    write_text(folder / "oof.csv", table.to_csv(index=False))
    with atomic_path(folder / "model.keras") as path:
        keras.saving.save_model(model, path)
    mark_complete(
        folder,
        {
            "source": job.cache.source,
            "settings": settings.digest(),
            "epochs": state.epoch,
            "best_epoch": state.best_epoch,
            "dice": state.best_dice,
            "seconds": round(state.seconds, 1),
        },
    )
    checkpoint.remove()
