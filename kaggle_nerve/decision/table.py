"""What every rule of a grid would score on every frame, from one pass over the probabilities."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from kaggle_nerve.competition.metric import dice_of_counts
from kaggle_nerve.data.fullsize import Truths
from kaggle_nerve.decision.rule import Rule
from kaggle_nerve.prediction.stored import Stored
from kaggle_nerve.progress import SILENT, Reporter


@dataclass(frozen=True)
class Table:
    """Pixel counts at full resolution, for each threshold t (rising) and frame n.

    ``areas``, ``shared``: int (t, n), predicted area and its intersection with the truth.
    ``truth``: int (n,), true area. ``presence``: float (n,). ``subjects``: (n,).
    """

    thresholds: np.ndarray
    areas: np.ndarray
    shared: np.ndarray
    truth: np.ndarray
    presence: np.ndarray
    subjects: np.ndarray

    def kept(self, rule: Rule) -> np.ndarray:
        """Which frames get a mask by ``rule``, bool (n,)."""
        areas = self.areas[self._place(rule)]
        return (areas >= max(rule.area, 1)) & (self.presence >= rule.presence)

    def dice(self, rule: Rule) -> np.ndarray:
        """The competition's Dice of each frame by ``rule``, float (n,)."""
        place, kept = self._place(rule), self.kept(rule)
        return dice_of_counts(self.shared[place] * kept, self.truth, self.areas[place] * kept)

    def _place(self, rule: Rule) -> int:
        return int(np.flatnonzero(self.thresholds == rule.threshold)[0])


def measure(
    stored: Stored,
    truths: Truths,
    thresholds: np.ndarray,
    *,
    reporter: Reporter = SILENT,
    workers: int = 2,
) -> Table:
    """Count the pixels of every out-of-fold frame at every threshold (rising)."""
    levels = thresholds.astype(np.float32)
    areas = np.zeros((len(thresholds), len(stored)), np.int64)
    shared = np.zeros_like(areas)
    with ThreadPoolExecutor(workers) as pool, reporter.bar("Measuring", len(stored)) as bar:
        counted = pool.map(lambda row: truths.counts(row, stored.full(row), levels), range(len(stored)))
        for row, (area, both) in enumerate(counted):
            areas[:, row], shared[:, row] = area, both
            bar.update()
    return Table(
        thresholds,
        areas,
        shared,
        truths.areas,
        stored.table.presence.to_numpy(),
        stored.table.subject.to_numpy(),
    )
