"""Hardware and software that a run and each of its folds ran on, stored beside their results."""

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
from kaggle_nerve.training.optimisers import resolve_precision


def environment(device_names: list[str]) -> dict[str, Any]:
    """Return the versions and the machine of this session; ``device_names`` are the devices that it uses."""
    backend = keras.backend.backend()
    packages = ["keras", "numpy", "opencv-python-headless", "pandas", "scikit-learn", backend]
    return {
        "kaggle_nerve": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "backend": backend,
        "devices": device_names,
        "versions": {package: _version(package) for package in packages},
    }


@contextmanager
def record_environment(fold: Fold, jobs: int) -> Iterator[None]:
    """Write the fold's environment when the block begins, and its duration when the block succeeds.

    ``jobs`` is how many folds are trained side by side. The file describes the latest session:
    ``seconds`` and ``peak_memory`` (bytes on the accelerator, null if the backend does not report it)
    are null until the session ends.
    """
    started = time.monotonic()
    values = {
        **environment(devices.names()),
        "precision": _precision(fold),
        "deterministic": fold.run.settings.training.deterministic,
        "jobs": jobs,
        "peak_memory": None,
        "seconds": None,
    }
    write_json(fold.environment, values)
    yield
    results = {"peak_memory": devices.peak_memory(), "seconds": round(time.monotonic() - started, 1)}
    write_json(fold.environment, values | results)


def _precision(fold: Fold) -> str:
    """Return the network's dtype policy: an unfinished fold keeps the one that it started with."""
    progress = fold.progress()
    return progress.precision if progress else resolve_precision(fold.run.settings)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
