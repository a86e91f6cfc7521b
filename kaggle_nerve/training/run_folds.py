"""Train all folds of a run within one time budget, one after the other or side by side in processes."""

import math
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from kaggle_nerve import devices, runs
from kaggle_nerve.competition import facts
from kaggle_nerve.data import folds as folding
from kaggle_nerve.disk import require_space
from kaggle_nerve.errors import NerveError
from kaggle_nerve.prediction.held_out import map_bytes
from kaggle_nerve.progress import SILENT, Reporter
from kaggle_nerve.runs import Fold, FoldResult, Run
from kaggle_nerve.runs.run import is_run
from kaggle_nerve.settings import Settings
from kaggle_nerve.settings.schema import ALL, FoldName
from kaggle_nerve.training import initial_weights
from kaggle_nerve.training.fold import train_fold
from kaggle_nerve.training.job import FoldJob, Frames, check_new, load_folds, open_frames
from kaggle_nerve.training.machine import environment
from kaggle_nerve.training.parallel import (
    Machines,
    MachinesLostError,
    ParallelTraining,
    ThisMachine,
    failure_sentence,
)


class FoldsError(NerveError):
    """Some folds failed while the others were trained; ``failures`` has a sentence for each failed fold.

    ``results`` are those of the other folds. ``lost``: the error of a fold whose machines have gone, or None.
    """

    def __init__(self, run: Run, results: list[FoldResult], failures: dict[FoldName, NerveError]):
        self.run, self.results = run, results
        self.failures: dict[FoldName, str] = {
            number: failure_sentence(number, failures[number]) for number in sorted(failures, key=_sort_key)
        }
        lost = (fault for fault in failures.values() if isinstance(fault, MachinesLostError))
        self.lost: MachinesLostError | None = next(lost, None)
        super().__init__("\n".join(self.failures.values()))


def train_folds(
    data_dir: Path,
    runs_dir: Path,
    name: str,
    settings: Settings,
    *,
    fold: FoldName | tuple[FoldName, ...] | None = None,
    time_budget: float | None = None,
    reporter: Reporter = SILENT,
    stop: Callable[[], bool] = lambda: False,
    workers: int = 2,
    jobs: int | None = None,
    isolate: bool = False,
    machines: Machines | None = None,
) -> tuple[Run, list[FoldResult]]:
    """Train the folds of run ``name``, or only ``fold`` (a number, `ALL`, or several of them); skip finished ones.

    ``time_budget``: seconds for everything, including caching, divided among the folds still to be trained. One by
    one, each fold's share is proportional to its training frames; side by side, each round of ``jobs`` folds gets an
    equal share. ``stop`` is called at least after each epoch; once it returns True, the remaining folds are left for
    later. ``jobs``: how many folds are trained side by side, each in its own process; None means one for each visible
    GPU. A single job runs in this process, unless ``isolate`` gives it one of its own as well, whose death is then that
    fold's failure alone; this process must not have used a GPU. ``machines``, such as a cluster's, train the folds
    instead of this one; then ``jobs`` is not used.

    Raise FoldsError after the last fold if some failed; with a single ``fold``, raise that fold's own error.
    """
    deadline = None if time_budget is None else time.monotonic() + time_budget
    if settings.training.start and not (runs_dir / name).is_dir():
        # Check now: later, a typo would leave an empty run behind.
        initial_weights.locate_source(settings.training.start, runs_dir)
    frames = open_frames(data_dir, settings, reporter=reporter, workers=workers)
    if machines is None:
        jobs = jobs or max(1, len(devices.multiple_gpus()))
        machines = ThisMachine(jobs) if isolate or jobs > 1 else None
    if not is_run(runs_dir / name):
        check_new(settings, frames)
    run = _create_run(runs_dir, name, settings, frames, machines, reporter)
    _warn_of_one_kind(frames, reporter)
    table = load_folds(run, frames)
    folds = [run.fold(number) for number in _folds_to_train(folding.count(table), fold, settings.trains_all)]
    unfinished = [each for each in folds if not each.facts()]
    if len(unfinished) < len(folds):
        further = f"; --run NEW --start-from {name} trains them further" * (not unfinished)
        reporter.say(f"{len(folds) - len(unfinished)} of {len(folds)} folds are finished already{further}.")
    _require_disk(run, unfinished, frames, table)
    if unfinished and machines:
        jobs = machines.jobs(len(unfinished))
        if jobs > 1:
            reporter.say(f"{jobs} folds are trained side by side.")
        pool = ParallelTraining(machines, data_dir, jobs, deadline=deadline, reporter=reporter, stop=stop)
        failures = pool.train(unfinished, time_portions(unfinished, jobs, folding.count(table)))
    else:
        failures = _one_by_one(unfinished, frames, table, deadline, reporter, stop)
    if fold in failures:
        raise failures[fold]
    results = [each.result() for each in folds if each.number not in failures]
    if failures:
        raise FoldsError(run, results, failures)
    return run, results


def _create_run(
    runs_dir: Path,
    name: str,
    settings: Settings,
    frames: Frames,
    machines: Machines | None,
    reporter: Reporter,
) -> Run:
    """Create run ``name``, or open it if it exists; report this session's devices."""
    machine = environment(machines.devices() if machines else devices.names())
    run = runs.create(runs_dir, name, settings, machine, frames.cache.source)
    reporter.say(f"Run {name} on {', '.join(machine['devices'])} ({machine['backend']})")
    return run


def _warn_of_one_kind(frames: Frames, reporter: Reporter) -> None:
    """Say if there is nothing to learn: all frames have a mask, or none has."""
    present = frames.cache.table.has_mask
    if present.nunique() > 1:
        return
    fact = (
        "every frame of the training data has a mask, so presence cannot be learned"
        if present.all()
        else "no frame of the training data has a mask, so nothing can be learned, and empty masks score 1"
    )
    reporter.say(f"Warning: {fact}; check {facts.TRAIN_CSV}, for example with `kaggle-nerve verify`.")


def _require_disk(run: Run, folds: list[Fold], frames: Frames, table: pd.DataFrame) -> None:
    """Raise NerveError now, and not before the last fold, if the disk cannot hold the predictions of ``folds``."""
    rows = [folding.split(frames.cache.table, table, fold.number)[1] for fold in folds]
    needed = map_bytes(sum(map(len, rows)), run.settings.size)
    require_space(run.folder, needed, f"the predictions of {len(folds)} folds")


def _one_by_one(
    folds: list[Fold],
    frames: Frames,
    table: pd.DataFrame,
    deadline: float | None,
    reporter: Reporter,
    stop: Callable[[], bool],
) -> dict[FoldName, NerveError]:
    """Train ``folds`` in this process; return the errors of those that failed. A failure does not stop the others."""
    failures: dict[FoldName, NerveError] = {}
    is_stopped = False

    def ask() -> bool:
        nonlocal is_stopped
        is_stopped = is_stopped or stop()
        return is_stopped

    for index, (fold, portion) in enumerate(
        zip(folds, time_portions(folds, 1, folding.count(table)), strict=True)
    ):
        now = time.monotonic()
        end = None if deadline is None else now + (deadline - now) * portion
        try:
            train_fold(FoldJob(fold, frames, table, end, reporter, ask))
        except NerveError as fault:
            failures[fold.number] = fault
            if index < len(folds) - 1:
                reporter.say(failure_sentence(fold.number, fault))
            continue
        if is_stopped:
            break
    return failures


def time_portions(folds: list[Fold], jobs: int, count: int) -> list[float]:
    """Return for each fold the portion of the time left, from 0 to 1, that it gets when it starts.

    Side by side, each round of ``jobs`` folds gets the same. One by one, the time is divided by the frames: with
    ``count`` ordinary folds, the fold of all subjects has count / (count - 1) times as many as each of them. Beside a
    single hold-out it gets the same.
    """
    if jobs > 1:
        rounds = math.ceil(len(folds) / jobs)
        return [1 / (rounds - index // jobs) for index in range(len(folds))]
    shares = [count / (count - 1) if fold.number == ALL and count > 1 else 1.0 for fold in folds]
    return [share / sum(shares[index:]) for index, share in enumerate(shares)]


def _sort_key(fold: FoldName) -> float:
    """Return a sort key: folds by their number, the fold of all subjects last."""
    return math.inf if fold == ALL else fold


def _folds_to_train(
    count: int, fold: FoldName | tuple[FoldName, ...] | None, with_all: bool
) -> list[FoldName]:
    """Return the folds to train. The fold of all subjects comes last: its epochs depend on the other folds."""
    if fold is None:
        return [*range(count), ALL] if with_all else list(range(count))
    names = fold if isinstance(fold, tuple) else (fold,)
    for name in names:
        if name != ALL and not 0 <= name < count:
            raise NerveError(f"There is no fold {name}: this run has the folds 0 to {count - 1}.")
    return sorted(names, key=_sort_key)
