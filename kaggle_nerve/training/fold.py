"""Train one fold, from scratch or from its checkpoint, to its model and out-of-fold predictions."""

import time
from dataclasses import asdict
from pathlib import Path

import keras

from kaggle_nerve import devices, memory
from kaggle_nerve.disk import require_space
from kaggle_nerve.errors import NerveError
from kaggle_nerve.prediction import held_out
from kaggle_nerve.runs import FoldFacts, FoldResult
from kaggle_nerve.runs.facts import FIGURES
from kaggle_nerve.settings.schema import ALL
from kaggle_nerve.storage import atomic_path, digest_file, mark_complete, read_completion
from kaggle_nerve.training import averaging, initial_weights
from kaggle_nerve.training.checkpoint import Checkpoint, State
from kaggle_nerve.training.deaths import memory_sentence
from kaggle_nerve.training.epochs import Epochs
from kaggle_nerve.training.job import FoldJob, Stage, main_stage, warm_stage
from kaggle_nerve.training.machine import record_environment
from kaggle_nerve.training.optimisers import build_compiled, build_without_pretrained, resolve_precision
from kaggle_nerve.training.validation import score_epoch


def train_fold(job: FoldJob, jobs: int = 1) -> FoldResult:
    """Train one fold, or resume it; write its model, history and out-of-fold predictions.

    A fold killed at any moment resumes after its last complete epoch, with the same optimiser state and schedule. A
    finished fold is not trained again. ``jobs``, how many folds are trained side by side, is only recorded in the
    fold's environment file.

    The fold `ALL` has no out-of-fold predictions. Raise NerveError if another process trains the fold, or if memory
    runs out.
    """
    fold = job.fold
    with fold.lock():
        if fold.facts():
            Checkpoint(fold.folder).remove()  # a kill may have left it
            return fold.result()
        if job.settings.training.deterministic:
            devices.make_deterministic()
        with record_environment(fold, jobs):
            is_exhausted = _runs_out_of_memory(job)
    if is_exhausted:
        raise NerveError(memory_sentence(fold, jobs))
    return fold.result()


def _runs_out_of_memory(job: FoldJob) -> bool:
    """Train as `_train` does; return whether memory ran out.

    The exception would hold the arrays that the next fold needs the memory of.
    """
    try:
        _train(job)
    except Exception as fault:
        if not memory.is_exhausted(fault):
            raise
        return True
    return False


def _train(job: FoldJob) -> None:
    """Train until the fold is finished or ``job.stop`` ends it."""
    stage = main_stage(job)
    keras.utils.clear_session()  # frees the graphs of the previous fold
    keras.utils.set_random_seed(job.seed)
    restored = Checkpoint(stage.folder).restore(stage.settings) or _build_main_model(job, stage)
    if restored is None:
        return
    model, state = restored
    _require_disk(stage, model, state)
    Epochs(stage, model, state).run()
    if state.ended(stage.settings):
        _finish(stage, model, state)


def _require_disk(stage: Stage, model: keras.Model, state: State) -> None:
    """Raise NerveError now, and not after hours, if the disk cannot hold what the fold will write."""
    # The optimiser has two values for each weight. A checkpoint is written before the old one is deleted.
    checkpoint = 3 * 4 * model.count_params()
    predictions = held_out.map_bytes(len(stage.held_rows), stage.settings.size)
    needed = checkpoint * (1 if state.epoch else 2) + predictions
    require_space(stage.folder, needed, f"the checkpoints and predictions of fold {stage.job.fold.number}")


def _build_main_model(job: FoldJob, stage: Stage) -> tuple[keras.Model, State] | None:
    """Build the network for the first epoch of the main ``stage``, with the weights of the warm stage if there is one.

    Train the warm stage first if it is unfinished; return None if the user stopped it.
    """
    precision = resolve_precision(stage.settings)
    warm = warm_stage(job, time.monotonic())
    if warm is None:
        return _build_initial_model(stage, precision), State(precision=precision)
    weights = _train_warm_stage(warm)
    if weights is None:
        return None
    keras.utils.clear_session()
    keras.utils.set_random_seed(job.seed)
    model = build_without_pretrained(stage.settings, precision)
    _check_warm_weights(warm.folder)
    initial_weights.load_initial(model, weights)
    return model, State(precision=precision)


def _build_initial_model(stage: Stage, precision: str) -> keras.Model:
    """Build the network for the very first epoch: new, or with the weights of ``training.start``."""
    if not stage.settings.training.start:
        return build_compiled(stage.settings, precision)
    source = initial_weights.find_weights(stage.settings.training.start, stage.job.fold)
    model = build_without_pretrained(stage.settings, precision)
    match = initial_weights.load_initial(model, source.path)
    part = ""
    if match.loaded < match.total:
        part = f" Only {match.loaded} of the network's {match.total} arrays of weights match it."
    stage.job.reporter.say(source.sentence + part)
    return model


def _train_warm_stage(stage: Stage) -> Path | None:
    """Train the warm stage; return the file of the last epoch's weights, None if the user stopped."""
    weights, checkpoint = _warm_weights(stage.folder), Checkpoint(stage.folder)
    if not read_completion(stage.folder):
        restored = checkpoint.restore(stage.settings)
        if restored is None:
            precision = resolve_precision(stage.settings)
            restored = _build_initial_model(stage, precision), State(precision=precision)
        model, state = restored
        Epochs(stage, model, state).run()
        if not state.ended(stage.settings):
            return None
        with atomic_path(weights) as path:
            model.save_weights(path)
        facts = {"epochs": state.epoch, "seconds": round(state.seconds, 1), "weights": digest_file(weights)}
        mark_complete(stage.folder, facts)
    checkpoint.remove()
    return weights


def _finish(stage: Stage, model: keras.Model, state: State) -> None:
    """Store the final model, its score and its out-of-fold predictions; mark the fold as complete."""
    job, fold, settings = stage.job, stage.job.fold, stage.settings
    checkpoint = Checkpoint(stage.folder)
    final = averaging.final_model(model, state, checkpoint, settings, stage.batches(model))
    if final is not model:
        # Compile for prediction: an averaged ensemble is a new, uncompiled model.
        final.compile(jit_compile=settings.training.jit_compile)
    figures = {}
    if fold.number != ALL:
        figures = _figures(stage, final, state)
        held_out.predict_held_out(fold, final, stage.cache, stage.held_rows, job.reporter)
    # Compile again without the optimiser: the file is then a third of the size.
    final.compile(jit_compile=settings.training.jit_compile)
    with atomic_path(fold.model) as path:
        keras.saving.save_model(final, path)
    fold.finish(
        FoldFacts(
            source=stage.cache.source,
            settings=job.settings.digest(),
            model=digest_file(fold.model),
            epochs=state.epoch,
            best_epoch=state.best_epoch,
            best_dice=state.best_dice,
            average=settings.training.average,
            seconds=round(state.seconds, 1),
            **figures,
        )
    )
    checkpoint.remove()
    if warm := warm_stage(job, time.monotonic()):
        _warm_weights(warm.folder).unlink(missing_ok=True)


def _figures(stage: Stage, final: keras.Model, state: State) -> dict[str, float]:
    """Score the final model; with ``best``, reuse the best epoch's score."""
    settings = stage.settings
    if settings.training.average == "best":
        row = next(row for row in state.history if row["epoch"] == state.best_epoch)
    else:
        options = {"batch": settings.prediction.batch, "conditional": settings.loss.is_conditional}
        row = asdict(score_epoch(final, stage.held_frames, stage.truths, **options))
    return {name: row[name] for name in FIGURES}


def _check_warm_weights(folder: Path) -> None:
    """Raise NerveError if the weights of the finished warm stage in ``folder`` are missing or damaged."""
    weights, facts = _warm_weights(folder), read_completion(folder) or {}
    # An early version recorded no digest.
    if not weights.is_file() or facts.get("weights") not in (None, digest_file(weights)):
        raise NerveError(f"{weights} is missing or damaged; delete {folder} to train that stage anew.")


def _warm_weights(folder: Path) -> Path:
    return folder / "last.weights.h5"
