"""All folds of a run, one after the other, within one time budget."""

import os
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import pandas as pd

from kaggle_nerve import __version__, runs
from kaggle_nerve.data import cache as caches
from kaggle_nerve.data import folds as folding
from kaggle_nerve.data.frames import locate
from kaggle_nerve.errors import NerveError
from kaggle_nerve.progress import SILENT, Reporter
from kaggle_nerve.runs import Run
from kaggle_nerve.settings import Settings
from kaggle_nerve.storage import completed, locked
from kaggle_nerve.training.fold import FoldJob, FoldResult, train_fold


def train_folds(
    data_dir: Path,
    runs_dir: Path,
    name: str,
    settings: Settings,
    *,
    fold: int | None = None,
    time_budget: float | None = None,
    reporter: Reporter = SILENT,
    stop: Callable[[], bool] = lambda: False,
    workers: int = 2,
) -> tuple[Run, list[FoldResult]]:
    """Train the folds of run ``name``, or only ``fold``; what is finished is skipped.

    ``time_budget``: seconds for everything, caching included, dealt evenly over the folds still to
    be trained. ``stop`` is asked after each epoch; once true, the remaining folds are left for later.
    """
    deadline = None if time_budget is None else time.monotonic() + time_budget
    cache = caches.open_training(locate(data_dir), settings.size, reporter=reporter, workers=workers)
    machine = environment()
    run = runs.create(runs_dir, name, settings, machine, cache.source)
    reporter.say(f"Run {name} on {', '.join(machine['devices'])} ({machine['backend']})")
    folds = _folds(run, cache.table)
    numbers = _numbers(folds, fold)
    left = [number for number in numbers if not completed(run.fold_folder(number))]
    if len(left) < len(numbers):
        reporter.say(f"{len(numbers) - len(left)} of {len(numbers)} folds are finished already.")
    results = []
    for number in numbers:
        budget = None
        if deadline is not None and number in left:
            budget = (deadline - time.monotonic()) / (len(left) - left.index(number))
        told = f"Another process trains fold {number} of run {name}; wait for it, or name another --fold."
        with locked(run.fold_folder(number) / ".lock", told):
            results.append(train_fold(FoldJob(run, cache, folds, number, budget, reporter, stop)))
        if not results[-1].finished:
            break
    return run, results


def environment() -> dict[str, Any]:
    """Versions and machine of this session, for environment.json."""
    backend = keras.backend.backend()
    packages = ["keras", "numpy", "opencv-python-headless", "pandas", "scikit-learn", backend]
    return {
        "kaggle_nerve": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "backend": backend,
        "devices": keras.distribution.list_devices(),
        "versions": {package: _version(package) for package in packages},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except ModuleNotFoundError:
        return None


def _folds(run: Run, frames: pd.DataFrame) -> pd.DataFrame:
    if run.folds_csv.is_file():
        return folding.load(run.folds_csv)
    folds = folding.assign(frames, run.settings.folds, run.settings.seed)
    folding.save(folds, run.folds_csv)
    return folds


def _numbers(folds: pd.DataFrame, fold: int | None) -> list[int]:
    number = folding.count(folds)
    if fold is None:
        return list(range(number))
    if not 0 <= fold < number:
        raise NerveError(f"There is no fold {fold}: this run has the folds 0 to {number - 1}.")
    return [fold]
