"""A trial's progress in numbers that are the same however it was interrupted, and on however many processes.

The study compares trials at equal steps. A step is one epoch of the preset in the order in which the first worker
trains folds: rounds of ``side_by_side`` folds, and within a round one epoch of each in turn. Values are read from
histories, so a trial that goes on reports what it reported before.
"""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kaggle_nerve.runs import Fold, Run
from kaggle_nerve.runs.run import HISTORY, WARM

COUNTS = 0.5
"""Share of a fold's epochs after which it counts: earlier scores say little about where it will end."""


@dataclass(frozen=True)
class Plan:
    """How trials are compared. ``folds``: their number; ``epochs``: the preset's for each fold."""

    folds: int
    epochs: int
    side_by_side: int

    @property
    def steps(self) -> int:
        """Number of steps of a whole trial."""
        return self.folds * self.epochs

    def epochs_at(self, step: int, epochs: int) -> list[int]:
        """Return how many of its ``epochs`` each fold has trained at ``step``, from 1 to `steps`."""
        done = step * epochs // self.epochs
        counts = []
        for first in range(0, self.folds, self.side_by_side):
            size = min(self.side_by_side, self.folds - first)
            inside = min(done, size * epochs)
            counts += [(inside + size - 1 - place) // size for place in range(size)]
            done -= inside
        return counts

    def values(self, scores: Sequence["FoldScores"], epochs: int) -> dict[int, float]:
        """Return the value of each step that the folds have reached: mean over folds of their best score so far.

        ``epochs``: those of each fold of this trial. A fold counts once `COUNTS` of its epochs are trained; steps at
        which none counts have no value.
        """
        values: dict[int, float] = {}
        for step in range(1, self.steps + 1):
            counts = self.epochs_at(step, epochs)
            if any(count > fold.epochs for count, fold in zip(counts, scores, strict=True)):
                break
            best = [
                fold.best(count)
                for count, fold in zip(counts, scores, strict=True)
                if count >= COUNTS * epochs
            ]
            if best and all(map(math.isfinite, best)):
                values[step] = sum(best) / len(best)
        return values


@dataclass(frozen=True)
class FoldScores:
    """The scores of a fold's epochs so far, minus infinity for one without. ``epochs``: how many count as trained: for
    a finished fold all of them, even if it ended early.
    """

    scores: tuple[float, ...]
    epochs: int

    def best(self, count: int) -> float:
        """Return the best score of the first ``count`` epochs."""
        return max(self.scores[:count], default=-math.inf)


def fold_scores(run: Run, folds: int, column: str) -> list[FoldScores]:
    """Read the scores of the first ``folds`` folds of ``run`` from ``column`` of their histories."""
    return [_scores(run.fold(number), column) for number in range(folds)]


def _scores(fold: Fold, column: str) -> FoldScores:
    scores = (*_column(fold.folder / WARM / HISTORY, column), *_column(fold.history, column))
    return FoldScores(scores, fold.run.settings.training.epochs if fold.facts() else len(scores))


def _column(path: Path, column: str) -> list[float]:
    """Read a column of a history; minus infinity for an epoch without a score."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        values = [float(row[column] or "nan") for row in csv.DictReader(file)]
    return [value if math.isfinite(value) else -math.inf for value in values]
