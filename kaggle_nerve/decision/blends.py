"""Methods to combine several runs, some of them learned on out-of-fold predictions."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from kaggle_nerve.competition.metric import dice_of_counts
from kaggle_nerve.decision.candidates import THRESHOLDS
from kaggle_nerve.decision.evidence import BlendByRow
from kaggle_nerve.decision.presence import subject_splits
from kaggle_nerve.errors import NerveError
from kaggle_nerve.maps import levels
from kaggle_nerve.maps.fullsize import Truths
from kaggle_nerve.prediction.stored import Blend, Predictions
from kaggle_nerve.progress import SILENT, Reporter


@dataclass(frozen=True)
class BlendMethod:
    """A method to combine runs. ``final`` is learned on all frames; ``by_row`` returns for each frame the blend
    learned without its subject (the same unless ``is_learned``). ``rank``: the lower, the simpler.
    """

    name: str
    meaning: str
    final: Blend
    by_row: BlendByRow
    rank: int = 0
    is_learned: bool = False


ALONE = BlendMethod("alone", "a single run", Blend(), lambda row: Blend())
MEANINGS = {
    "mean": "mean of the probabilities",
    "logits": "mean of the log-odds",
    "agreement": "each run weighted per frame by its agreement with the others",
    "weights": "weights by non-negative least squares on the pixels",
    "vote": "each run votes for the pixels that reach its own threshold",
}
"""Description of each blend method, simplest first."""

BASELINE = "mean"
"""Method that the others are compared with."""


def methods(
    stored: Predictions, truths: Truths, *, reporter: Reporter = SILENT, workers: int = 2
) -> list[BlendMethod]:
    """List all methods to combine the runs of ``stored``; raise NerveError if a run has the name of a method.

    Single runs all have the same rank.
    """
    if clashes := {*MEANINGS} & {*stored.names}:
        raise NerveError(f"Run {min(clashes)} has the name of a way to blend; rename its folder.")
    count = len(stored.parts)
    single_runs = []
    for number, name in enumerate(stored.names):
        alone = Blend(weights=tuple(float(number == other) for other in range(count)))
        single_runs.append(BlendMethod(name, "this run alone", alone, lambda row, alone=alone: alone))
    fitter = _Fitter(stored, truths, reporter, workers)
    return [
        *single_runs,
        *(_fixed_method(name) for name in ("mean", "logits", "agreement")),
        _learned_method("weights", fitter.fit_weights, stored),
        _learned_method("vote", fitter.fit_votes, stored),
    ]


def _fixed_method(name: str) -> BlendMethod:
    blend = Blend(name)
    return BlendMethod(name, MEANINGS[name], blend, lambda row: blend, _rank(name))


def _rank(name: str) -> int:
    return 1 + [*MEANINGS].index(name)


def _learned_method(name: str, fit: Callable[[np.ndarray], Blend], stored: Predictions) -> BlendMethod:
    by_row: list[Blend] = [Blend()] * len(stored)
    for train_rows, test_rows in subject_splits(stored.table.subject.to_numpy()):
        blend = fit(train_rows)
        for row in test_rows:
            by_row[row] = blend
    final = fit(np.arange(len(stored)))
    return BlendMethod(name, MEANINGS[name], final, by_row.__getitem__, _rank(name), is_learned=True)


class _Fitter:
    """Fit the learned blends to sums and Dice of each frame, measured in one pass over the runs' maps.

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
            run_maps = stored.members(row)
            flat = run_maps.reshape(runs, -1)
            self.products[row] = flat @ flat.T
            for run, run_map in enumerate(run_maps):
                self.hits[row, run] = truths.inside(row, run_map).sum()
                frame_levels = levels.quantise(run_map)
                inside = np.bincount(truths.inside(row, frame_levels), minlength=levels.COUNT)
                areas = levels.at_least(levels.histogram(frame_levels))[cuts]
                intersections = levels.at_least(inside)[cuts]
                self.dice[row, run] = dice_of_counts(intersections, truths.areas[row], areas)

        with ThreadPoolExecutor(workers) as pool, reporter.bar("Comparing runs", len(stored)) as bar:
            for _ in pool.map(measure_row, range(len(stored))):
                bar.update()

    def fit_weights(self, rows: np.ndarray) -> Blend:
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

    def fit_votes(self, rows: np.ndarray) -> Blend:
        """Pick each run's threshold with the best mean Dice over the frames of ``rows`` that have a mask."""
        rows = rows[self.present[rows]]
        if not len(rows):
            return Blend("vote", thresholds=(0.5,) * len(self.hits[0]))
        best = self.dice[rows].mean(axis=0).argmax(axis=1)
        return Blend("vote", thresholds=tuple(THRESHOLDS[index] for index in best))
