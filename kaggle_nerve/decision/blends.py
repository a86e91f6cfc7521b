"""Methods to combine several runs, some of them learned on out-of-fold predictions."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from kaggle_nerve.competition.metric import dice_of_counts
from kaggle_nerve.decision.candidates import THRESHOLDS
from kaggle_nerve.decision.evidence import Way
from kaggle_nerve.decision.presence import subject_splits
from kaggle_nerve.errors import NerveError
from kaggle_nerve.maps import levels
from kaggle_nerve.maps.fullsize import Truths
from kaggle_nerve.prediction.stored import Blend, Predictions
from kaggle_nerve.progress import SILENT, Reporter


@dataclass(frozen=True)
class BlendWay:
    """A method to combine runs. ``final`` is learned on all frames; ``way`` returns for each frame the blend learned
    without its subject (the same unless ``is_learned``). ``rank``: the lower, the simpler.
    """

    name: str
    meaning: str
    final: Blend
    way: Way
    rank: int = 0
    is_learned: bool = False


ALONE = BlendWay("alone", "a single run", Blend(), lambda row: Blend())
MEANINGS = {
    "mean": "mean of the probabilities",
    "logits": "mean of the log-odds",
    "agreement": "each run weighted per frame by its agreement with the others",
    "weights": "weights by non-negative least squares on the pixels",
    "vote": "each run votes for the pixels that reach its own threshold",
}
"""Methods that combine runs, simplest first."""

BASELINE = "mean"
"""Method that the others are compared with."""


def ways(
    stored: Predictions, truths: Truths, *, reporter: Reporter = SILENT, workers: int = 2
) -> list[BlendWay]:
    """List all methods to combine the runs of ``stored``; raise NerveError if a run has the name of a method.

    Single runs all have the same rank.
    """
    for name in {*MEANINGS} & {*stored.names}:
        raise NerveError(f"Run {name} has the name of a way to blend; rename its folder.")
    count = len(stored.parts)
    alone_ways = []
    for number, name in enumerate(stored.names):
        alone = Blend(weights=tuple(float(number == other) for other in range(count)))
        alone_ways.append(BlendWay(name, "this run alone", alone, lambda row, alone=alone: alone))
    members = _Members(stored, truths, reporter, workers)
    return [
        *alone_ways,
        *(_fixed_way(method) for method in ("mean", "logits", "agreement")),
        _learned_way("weights", members.weights, stored),
        _learned_way("vote", members.votes, stored),
    ]


def _fixed_way(method: str) -> BlendWay:
    blend = Blend(method)
    return BlendWay(method, MEANINGS[method], blend, lambda row: blend, _rank(method))


def _rank(name: str) -> int:
    return 1 + [*MEANINGS].index(name)


def _learned_way(name: str, fit: Callable[[np.ndarray], Blend], stored: Predictions) -> BlendWay:
    by_row: list[Blend] = [Blend()] * len(stored)
    for train_rows, test_rows in subject_splits(stored.table.subject.to_numpy()):
        blend = fit(train_rows)
        for row in test_rows:
            by_row[row] = blend
    final = fit(np.arange(len(stored)))
    return BlendWay(name, MEANINGS[name], final, by_row.__getitem__, _rank(name), is_learned=True)


class _Members:
    """Sums and scores of every frame for the fits, from one pass over the runs' maps.

    ``products`` (n, runs, runs) and ``hits`` (n, runs): sums over the pixels of p_i p_j, and of p_i where
    the truth is 1; ``dice`` (n, runs, thresholds): Dice of each run's own mask, without a presence threshold.
    """

    def __init__(self, stored: Predictions, truths: Truths, reporter: Reporter, workers: int):
        runs = len(stored.parts)
        self.products = np.zeros((len(stored), runs, runs))
        self.hits = np.zeros((len(stored), runs))
        self.dice = np.zeros((len(stored), runs, len(THRESHOLDS)))
        self.present, self.conditional = truths.areas > 0, stored.is_conditional
        cuts = [levels.cut(threshold) for threshold in THRESHOLDS]

        def measure_row(row: int) -> None:
            members = stored.members(row)
            flat = members.reshape(runs, -1)
            self.products[row] = flat @ flat.T
            for run, member in enumerate(members):
                self.hits[row, run] = truths.inside(row, member).sum()
                frame_levels = levels.quantise(member)
                inside = np.bincount(truths.inside(row, frame_levels), minlength=levels.COUNT)
                area, shared = (levels.at_least(h)[cuts] for h in (levels.histogram(frame_levels), inside))
                self.dice[row, run] = dice_of_counts(shared, truths.areas[row], area)

        with ThreadPoolExecutor(workers) as pool, reporter.bar("Comparing runs", len(stored)) as bar:
            for _ in pool.map(measure_row, range(len(stored))):
                bar.update()

    def weights(self, rows: np.ndarray) -> Blend:
        """Fit non-negative weights of the maps to the truth by least squares over the pixels of ``rows``.

        Conditional maps, P(pixel | frame has a mask), are fitted on frames with a mask only.
        """
        if self.conditional:
            rows = rows[self.present[rows]]
        # With L L' = products, |L' w - L^-1 hits| is minimal at the least-squares solution over all pixels.
        # The small ridge keeps products invertible, even if two runs are identical.
        products, runs = self.products[rows].sum(axis=0), len(self.hits[0])
        factor = np.linalg.cholesky(products + (1e-6 * np.trace(products) + 1e-9) * np.eye(runs))
        solution, _ = nnls(factor.T, np.linalg.solve(factor, self.hits[rows].sum(axis=0)))
        if not solution.any():
            return Blend()
        return Blend(weights=tuple(np.round(solution / solution.sum(), 4).tolist()))

    def votes(self, rows: np.ndarray) -> Blend:
        """Pick each run's threshold with the best mean Dice over the frames of ``rows`` that have a mask."""
        rows = rows[self.present[rows]]
        if not len(rows):
            return Blend("vote", thresholds=(0.5,) * len(self.hits[0]))
        best = self.dice[rows].mean(axis=0).argmax(axis=1)
        return Blend("vote", thresholds=tuple(THRESHOLDS[place] for place in best))
