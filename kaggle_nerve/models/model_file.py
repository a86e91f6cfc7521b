"""Read the files in which Keras stores networks, and load their weights by the names of layers.

Keras itself opens a .keras file only if it knows every argument in it, so often not one that a newer version wrote.
Names, shapes and values of weights mean the same in all versions.
"""

import io
import json
import re
import struct
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

from kaggle_nerve.errors import NerveError

WEIGHTS, CONFIG, METADATA = "model.weights.h5", "config.json", "metadata.json"
"""Names of the files within a .keras archive."""

OPTIMISER = "optimizer/"
"""Start of the paths of the optimiser's arrays."""

LARGEST = 1e9
"""Size that no weight reaches: a file without checksums that has a larger one is damaged."""

NUMBER = re.compile(r"_\d+$")

UNREADABLE = (
    OSError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    RuntimeError,
    EOFError,
    ArithmeticError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
)
"""Exceptions that zipfile, json and h5py raise for damaged files, depending on which byte is hit."""


@dataclass(frozen=True)
class ModelFile:
    """Contents of a .keras or .weights.h5 file.

    ``config``: Keras's description of the network, and ``keras_version``: that of its writer; both are empty for
    weights alone. ``arrays``: the weights and the optimiser's state by their paths, in which layers have their names.
    """

    path: Path
    config: dict[str, Any]
    keras_version: str
    arrays: dict[str, np.ndarray]


@dataclass(frozen=True)
class Match:
    """How many arrays of weights a network has, how many of them were loaded, and how many the file has."""

    loaded: int
    total: int
    stored: int

    @property
    def is_exact(self) -> bool:
        """Whether the file holds all weights of the network and no others."""
        return self.loaded == self.total == self.stored


def read_model_file(path: Path, remedy: str) -> ModelFile:
    """Read a .keras or .weights.h5 file.

    Raise NerveError if the file is damaged or of another kind; ``remedy`` ends the sentence with what to do then.
    A .keras file has checksums, so that damage anywhere is noticed. A .weights.h5 file has none: there it is noticed
    by weights that are not numbers or far too large.
    """
    data = path.read_bytes()
    try:
        if not zipfile.is_zipfile(io.BytesIO(data)):
            arrays = _read_arrays(data)
            if not all((np.abs(array) < LARGEST).all() for array in arrays.values()):
                raise ValueError(f"it holds weights beyond {LARGEST:g}")
            return ModelFile(path, {}, "", arrays)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            config, metadata = (json.loads(archive.read(name)) for name in (CONFIG, METADATA))
            arrays = _read_arrays(archive.read(WEIGHTS))
            return ModelFile(path, config, str(metadata.get("keras_version", "")), arrays)
    except UNREADABLE as fault:
        reason = str(fault).strip().splitlines() or [type(fault).__name__]
        raise NerveError(
            f"{path} is damaged, or no Keras model file ({reason[0][:150]}); {remedy}."
        ) from fault


def load_matching(model: keras.Model, file: ModelFile, *, with_optimiser: bool = False) -> Match:
    """Load the weights in ``file`` into ``model`` where layer names and shapes match.

    ``with_optimiser``: do so with the state of the compiled model's optimiser, too.
    """
    stored = _select(file.arrays, with_optimiser)
    with tempfile.TemporaryDirectory() as folder:
        own_path = Path(folder) / f"own-{WEIGHTS}"
        model.save_weights(own_path)
        loaded = 0
        with h5py.File(own_path, "r+") as own:
            datasets = _select(_datasets(own), with_optimiser)
            for name, dataset in datasets.items():
                if name in stored and stored[name].shape == dataset.shape:
                    dataset[...] = stored[name]
                    loaded += 1
        if loaded:
            model.load_weights(own_path)
    return Match(loaded, len(datasets), len(stored))


def _read_arrays(data: bytes) -> dict[str, np.ndarray]:
    with h5py.File(io.BytesIO(data), "r") as file:
        return {name: np.asarray(dataset) for name, dataset in _datasets(file).items()}


def _select(arrays: dict[str, Any], with_optimiser: bool) -> dict[str, Any]:
    return {name: array for name, array in arrays.items() if with_optimiser or not name.startswith(OPTIMISER)}


def _datasets(file: h5py.File) -> dict[str, h5py.Dataset]:
    """Return the file's datasets by path, with layers called by their names instead of the file's running numbers."""
    datasets: dict[str, h5py.Dataset] = {}

    def visit(path: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Dataset):
            datasets[_readable_name(file, path.split("/"))] = item

    file.visititems(visit)
    return datasets


def _readable_name(file: h5py.File, parts: list[str]) -> str:
    names = []
    for index, part in enumerate(parts):
        is_layer = index > 0 and parts[index - 1] == "layers"
        group = file.get("/".join([*parts[: index + 1], "vars"])) if is_layer else None
        name = group.attrs.get("name", part) if group is not None else part
        # A layer without a name gets one from Keras, "conv2d_7": its number depends on what was built before.
        names.append(part if NUMBER.sub("", name) == NUMBER.sub("", part) else name)
    return "/".join(names)
