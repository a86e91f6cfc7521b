"""Ways to combine several runs, some of them learned on out-of-fold predictions."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from kaggle_nerve.competition.metric import dice_of_counts
from kaggle_nerve.decision.candidates import THRESHOLDS
from kaggle_nerve.decision.evidence import Way
from kaggle_nerve.decision.presence import parts
from kaggle_nerve.errors import NerveError
from kaggle_nerve.maps import levels
from kaggle_nerve.maps.fullsize import Truths
from kaggle_nerve.prediction.stored import Blend, Predictions
from kaggle_nerve.progress import SILENT, Reporter


@dataclass(frozen=True)
class BlendWay:
    """One way. ``final`` is learned on all frames; ``way`` gives each frame what was learned without its
    subject (the same where nothing ``is_learned``). ``rank``: the lower, the simpler.
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
    "agreement": "on each frame, runs weigh by how far they agree",
    "weights": "weights by non-negative least squares on the pixels",
    "vote": "each run votes for pixels from a threshold of its own",
}
"""The ways that combine, from the simplest on."""

BASELINE = "mean"
"""The way that the others are compared with."""


def ways(
    stored: Predictions, truths: Truths, *, reporter: Reporter = SILENT, workers: int = 2
) -> list[BlendWay]:
    """All ways to combine the runs of ``stored``; NerveError where a run has the name of one of them.

    Each run alone is as simple as another.
    """
    for name in {*MEANINGS} & {*stored.names}:
        raise NerveError(f"Run {name} has the name of a way to blend; rename its folder.")
    count = len(stored.parts)
    found = []
    for number, name in enumerate(stored.names):
        alone = Blend(weights=tuple(float(number == other) for other in range(count)))
        found.append(BlendWay(name, "this run alone", alone, lambda row, alone=alone: alone))
    seen = _Members(stored, truths, reporter, workers)
    return [
        *found,
        *(_same(method) for method in ("mean", "logits", "agreement")),
        _fitted("weights", seen.weights, stored),
        _fitted("vote", seen.votes, stored),
    ]


def _same(method: str) -> BlendWay:
    blend = Blend(method)
    return BlendWay(method, MEANINGS[method], blend, lambda row: blend, _rank(method))


def _rank(name: str) -> int:
    return 1 + [*MEANINGS].index(name)


def _fitted(name: str, fit: Callable[[np.ndarray], Blend], stored: Predictions) -> BlendWay:
    by_row: list[Blend] = [Blend()] * len(stored)
    for seen, unseen in parts(stored.table.subject.to_numpy()):
        blend = fit(seen)
        for row in unseen:
            by_row[row] = blend
    final = fit(np.arange(len(stored)))
    return BlendWay(name, MEANINGS[name], final, by_row.__getitem__, _rank(name), is_learned=True)


class _Members:
    """What the fits need of every frame, from one pass over the runs' maps.

    ``products`` (n, runs, runs) and ``hits`` (n, runs): sums over the pixels of p_i p_j and of p_i where
    the truth is 1; ``dice`` (n, runs, thresholds): of each run's own mask, no frame dropped.
    """

    def __init__(self, stored: Predictions, truths: Truths, reporter: Reporter, workers: int):
        runs = len(stored.parts)
        self.products = np.zeros((len(stored), runs, runs))
        self.hits = np.zeros((len(stored), runs))
        self.dice = np.zeros((len(stored), runs, len(THRESHOLDS)))
        self.present, self.conditional = truths.areas > 0, stored.is_conditional
        cuts = [levels.cut(threshold) for threshold in THRESHOLDS]

        def see(row: int) -> None:
            members = stored.members(row)
            flat = members.reshape(runs, -1)
            self.products[row] = flat @ flat.T
            for run, member in enumerate(members):
                self.hits[row, run] = truths.inside(row, member).sum()
                seen = levels.quantise(member)
                inside = np.bincount(truths.inside(row, seen), minlength=levels.COUNT)
                area, shared = (levels.at_least(h)[cuts] for h in (levels.histogram(seen), inside))
                self.dice[row, run] = dice_of_counts(shared, truths.areas[row], area)

        with ThreadPoolExecutor(workers) as pool, reporter.bar("Comparing runs", len(stored)) as bar:
            for _ in pool.map(see, range(len(stored))):
                bar.update()

    def weights(self, rows: np.ndarray) -> Blend:
        """The non-negative weights whose sum of the maps lies nearest to the truth, over the pixels of ``rows``.

        Of maps that say P(pixel | there is a mask) only over frames with a mask.
        """
        if self.conditional:
            rows = rows[self.present[rows]]
        # Of the normal equations a factor L with L L' = products: |L' w - L^-1 hits| is the same distance.
        # A trace of a ridge, for a run may be named twice.
        products, runs = self.products[rows].sum(axis=0), len(self.hits[0])
        factor = np.linalg.cholesky(products + (1e-6 * np.trace(products) + 1e-9) * np.eye(runs))
        found, _ = nnls(factor.T, np.linalg.solve(factor, self.hits[rows].sum(axis=0)))
        if not found.any():
            return Blend()
        return Blend(weights=tuple(np.round(found / found.sum(), 4).tolist()))

    def votes(self, rows: np.ndarray) -> Blend:
        """Each run's threshold with the best mean Dice over the frames of ``rows`` that have a mask."""
        rows = rows[self.present[rows]]
        if not len(rows):
            return Blend("vote", thresholds=(0.5,) * len(self.hits[0]))
        best = self.dice[rows].mean(axis=0).argmax(axis=1)
        return Blend("vote", thresholds=tuple(THRESHOLDS[place] for place in best))
