"""Load Keras with its backend, quietly, and explain in a sentence why it cannot be loaded."""

import json
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kaggle_nerve import devices
from kaggle_nerve.errors import NerveError

BACKENDS = ("tensorflow", "jax")
VARIABLE = "KERAS_BACKEND"
LONGEST = 300
"""Characters of a reason to show."""


def load_keras(*, deterministic: bool = False, device: bool = True) -> None:
    """Import Keras and initialise its device without the backend's start-up lines.

    No GPU is initialised without ``device``, nor if there are several: doing so takes its memory, and each GPU is for
    a process of its own. ``deterministic`` takes effect at the first use of the device. Raises NerveError if Keras,
    its backend or the device does not work.
    """
    # TensorFlow warns of repeated tracing when several models are each traced once.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    devices.prepare_environment()
    with _silence():
        try:
            import keras
        except Exception as fault:
            raise NerveError(_explain_import(fault)) from fault
        try:
            if deterministic:
                devices.make_deterministic()
            if device and not devices.multiple_gpus():
                keras.ops.convert_to_numpy(keras.ops.zeros(1))
        except Exception as fault:
            raise NerveError(
                f"The backend {keras.backend.backend()} cannot use its device ({_reason(fault)}): check the driver, "
                "CUDA_VISIBLE_DEVICES and JAX_PLATFORMS, and run the same command again."
            ) from fault


@contextmanager
def _silence() -> Iterator[None]:
    """Discard what is written straight to the process's standard error, as TensorFlow does before its log level
    takes effect."""
    sys.stderr.flush()
    stderr_copy = os.dup(2)
    with tempfile.TemporaryFile() as lines:
        os.dup2(lines.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr_copy, 2)
            os.close(stderr_copy)


def _explain_import(fault: Exception) -> str:
    """Say why Keras cannot be imported, where that was set, and what to do."""
    if isinstance(fault, ModuleNotFoundError) and fault.name == "keras":
        return "Keras is not installed: run `pip install keras`, and the same command again."
    backend, place = _chosen_backend()
    choice = f"set {VARIABLE} to {' or '.join(BACKENDS)}"
    if backend not in BACKENDS:
        return f"The backend {backend!r} of {place} cannot be used: {choice}, and run the same command again."
    if isinstance(fault, ImportError):
        return (
            f"The backend {backend} of {place} cannot be imported ({_reason(fault)}): run `pip install {backend}`, or "
            f"{choice}, and run the same command again."
        )
    return (
        f"Keras cannot be imported ({_reason(fault)}): correct or delete {_config_path()} if it exists, or install "
        "Keras and its backend anew, and run the same command again."
    )


def _chosen_backend() -> tuple[str, str]:
    """Return the backend that Keras would use, and the place that says so."""
    if backend := os.environ.get(VARIABLE):
        return backend, VARIABLE
    path = _config_path()
    try:
        backend = json.loads(path.read_text(encoding="utf-8")).get("backend")
    except (OSError, ValueError, AttributeError):
        backend = None
    return (str(backend), str(path)) if backend else (BACKENDS[0], "Keras's default")


def _config_path() -> Path:
    """Return the path of the user's keras.json."""
    home = os.environ.get("KERAS_HOME")
    return (Path(home) if home else Path("~/.keras").expanduser()) / "keras.json"


def _reason(fault: Exception) -> str:
    lines = str(fault).split("\n")
    return f"{type(fault).__name__}: {lines[0]}"[:LONGEST]
