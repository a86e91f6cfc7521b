"""What tests of training share: tiny settings, a fold's job, a reporter that listens."""

import csv
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from kaggle_nerve import runs
from kaggle_nerve.data.batches import Batches
from kaggle_nerve.progress import Bar, Reporter
from kaggle_nerve.runs import Fold
from kaggle_nerve.settings import Settings, apply_changes, load_preset
from kaggle_nerve.settings.schema import FoldName
from kaggle_nerve.training.job import FoldJob, load_folds, open_frames

FAST = (
    "size=[45, 62]",
    "model.stem=1",
    "model.width=4",
    "model.depth=1",
    "training.epochs=4",
    "training.batch=4",
    "optimiser.learning_rate=0.01",
    "folds=2",
)


def settings(*changes: str) -> Settings:
    """A network so small that an epoch takes a second, with ``changes``."""
    return apply_changes(load_preset("tiny"), (*FAST, *changes))


def fold_job(data: Path, runs_dir: Path, chosen: Settings, name: str = "run", **options) -> FoldJob:
    """The job of fold 0 of run ``name``, caches opened and folds assigned."""
    frames = open_frames(data, chosen)
    run = runs.create(runs_dir, name, chosen, {}, frames.cache.source)
    return FoldJob(run.fold(0), frames, load_folds(run, frames), **options)


def batches_of(job: FoldJob, count: int) -> Batches:
    """Unaugmented batches of 4 of the first ``count`` training frames of ``job``."""
    cache = job.frames.cache
    present = cache.table.has_mask.to_numpy()
    return Batches(cache.frames, cache.masks, present, np.arange(count), batch=4, seed=0, ranges=None)


def numbers(folds: list[Fold]) -> list[FoldName]:
    """The numbers of folds."""
    return [fold.number for fold in folds]


def history(folder: Path) -> list[dict]:
    """The rows of a fold's history.csv."""
    with (folder / "history.csv").open() as file:
        return list(csv.DictReader(file))


def many_epochs(count: int) -> tuple[str, str]:
    """Changes for training that a test stops: enough epochs, and none that ends a network for not learning."""
    return f"training.epochs={count}", "training.collapse_epochs=10000"


class Told(Reporter):
    """Keeps what was said, and the labels of bars."""

    def __init__(self):
        self.lines, self.bars = [], []

    def say(self, text):
        self.lines.append(text)

    def bar(self, label, total, unit="frame"):
        self.bars.append(label)
        return Bar()


def rewrite_model(path: Path, change: Callable[[dict], None], version: str = "99.0.0") -> None:
    """Rewrite a .keras file as Keras ``version`` would, after ``change`` of each dictionary in its description."""

    def visit(value):
        if isinstance(value, dict):
            change(value)
        for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            visit(inner)

    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    visit(config)
    parts["config.json"] = json.dumps(config).encode()
    parts["metadata.json"] = json.dumps({"keras_version": version}).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


def as_of_newer_keras(path: Path) -> None:
    """Give all that a .keras file describes an argument that the installed Keras does not know, as 3.15 did to 3.13."""

    def change(value: dict) -> None:
        if value.get("class_name") == "GlorotUniform":
            value["config"]["later_axes"] = None

    rewrite_model(path, change)
    with pytest.raises(TypeError, match="later_axes"):
        keras.saving.load_model(path, compile=False)


def overwrite(path: Path, beginning: bytes = b"") -> None:
    """Overwrite 64 bytes of a file with random ones: those from ``beginning`` on, or those in the middle."""
    data = bytearray(path.read_bytes())
    place = data.index(beginning) if beginning else len(data) // 2
    data[place : place + 64] = np.random.default_rng(0).bytes(64)
    path.write_bytes(data)
