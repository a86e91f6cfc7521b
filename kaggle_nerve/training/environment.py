"""What a run and each of its folds ran on, kept beside their results."""

import os
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import keras

from kaggle_nerve import __version__, devices
from kaggle_nerve.runs import Fold
from kaggle_nerve.storage import write_json
from kaggle_nerve.training.optimisers import chosen_precision


def environment(names: list[str]) -> dict[str, Any]:
    """Versions and machine of this session; ``names`` are the devices that it uses."""
    backend = keras.backend.backend()
    packages = ["keras", "numpy", "opencv-python-headless", "pandas", "scikit-learn", backend]
    return {
        "kaggle_nerve": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "backend": backend,
        "devices": names,
        "versions": {package: _version(package) for package in packages},
    }


@contextmanager
def recorded(fold: Fold, jobs: int) -> Iterator[None]:
    """Write the fold's environment when the block begins, and how long it took when it succeeds.

    ``jobs`` is how many folds are trained side by side. The file tells of the latest session:
    ``seconds`` and ``peak_memory`` (bytes on the accelerator, null where nobody counts) are null until
    it has ended.
    """
    began = time.monotonic()
    found = {
        **environment(devices.names()),
        "precision": _precision(fold),
        "deterministic": fold.run.settings.training.deterministic,
        "jobs": jobs,
        "peak_memory": None,
        "seconds": None,
    }
    write_json(fold.environment, found)
    yield
    ended = {"peak_memory": devices.peak_memory(), "seconds": round(time.monotonic() - began, 1)}
    write_json(fold.environment, found | ended)


def _precision(fold: Fold) -> str:
    """The dtype policy of the network: an unfinished fold keeps the one that it began with."""
    progress = fold.progress()
    return progress.precision if progress else chosen_precision(fold.run.settings)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
