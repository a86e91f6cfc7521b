"""Pretrained weights of encoders: where their files are looked for, and how they are loaded."""

import os
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import keras
from filelock import FileLock

from kaggle_nerve.errors import NerveError

FOLDER_VARIABLE = "KAGGLE_NERVE_WEIGHTS"
"""Names a folder in which files of weights are looked for first, subfolders included."""

ATTACHED = Path("/kaggle/input")
"""Where Kaggle puts the datasets that are attached to a notebook."""

_BUCKET = "https://storage.googleapis.com"
_FOLDER = f"{_BUCKET}/tensorflow/keras-applications"


@dataclass(frozen=True)
class WeightsFile:
    """A file that Keras publishes; ``digest`` is its MD5 or SHA-256, with which Keras checks a download."""

    folder: str
    name: str
    digest: str


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
"""What keras.applications loads without the classifier, by the name that settings use."""


def load(application: keras.Model, encoder: str, where: str, attached: Path = ATTACHED) -> None:
    """Give ``application``, built without its classifier, the weights that ``where`` names.

    ``none`` leaves the random ones. ``imagenet`` looks for Keras's own file in the folder named by
    KAGGLE_NERVE_WEIGHTS, then under ``attached``, then in Keras's cache, and at last downloads it.
    Anything else is a file, in any format that Keras loads weights from. Raises NerveError, in one
    sentence, for a file that is not there or does not fit.
    """
    if where == "none":
        return
    path = _imagenet(encoder, attached) if where == "imagenet" else Path(where).expanduser()
    if not path.is_file():
        raise NerveError(
            f'model.weights = "{where}" is not a file; name one such as {FILES[encoder].name}, or write '
            f'"imagenet" or "none".'
        )
    try:
        application.load_weights(path)
    except (ValueError, KeyError, OSError, TypeError) as fault:
        raise NerveError(
            f"{path} does not hold weights of {encoder} without its classifier ({_first_line(fault)}); give "
            f"{FILES[encoder].name} as keras.applications downloads it."
        ) from fault


def _imagenet(encoder: str, attached: Path) -> Path:
    file = FILES[encoder]
    folder = os.environ.get(FOLDER_VARIABLE)
    for root in ([Path(folder)] if folder else []) + [attached]:
        found = sorted(root.rglob(file.name))
        if found:
            return found[0]
    cache = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser()
    models = cache / "models"
    with suppress(OSError):
        # Keras takes another folder where this one cannot be written.
        models.mkdir(parents=True, exist_ok=True)
    # Folds that begin side by side want the same file at once, and Keras downloads to its final name.
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
    except Exception as fault:  # Keras raises bare Exception where a download fails
        own = f"${FOLDER_VARIABLE} ({folder})" if folder else f"${FOLDER_VARIABLE} (not set)"
        raise NerveError(
            f"The ImageNet weights of {encoder}, {file.name}, are not in {own}, {attached} or {models}, "
            f"and could not be downloaded ({_first_line(fault)}); give the file with --set model.weights=FILE, "
            f"or begin with random weights: --set model.weights=none."
        ) from fault
    return Path(path)


def _first_line(fault: Exception) -> str:
    return (str(fault).strip().splitlines() or [type(fault).__name__])[0].rstrip(".")
