"""What tests of training share: tiny settings, a fold's job, a reporter that listens."""

import csv
from pathlib import Path

from kaggle_nerve import runs
from kaggle_nerve.data import cache as caches
from kaggle_nerve.data import folds as folding
from kaggle_nerve.data.frames import locate
from kaggle_nerve.progress import Bar, Reporter
from kaggle_nerve.settings import Settings, apply_changes, load_preset
from kaggle_nerve.training.fold import FoldJob

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
    cache = caches.open_training(locate(data), chosen.size)
    warm = None
    if any(chosen.training.warm_size):
        warm = caches.open_training(locate(data), chosen.training.warm_size)
    run = runs.create(runs_dir, name, chosen, {}, cache.source)
    folds = folding.assign(cache.table, chosen.folds, chosen.seed)
    folding.save(folds, run.folds_csv)
    return FoldJob(run, cache, folds, 0, warm=warm, **options)


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
