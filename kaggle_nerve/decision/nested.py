"""Estimate a decision's score on new patients: decide each patient with rules learned on the others."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from kaggle_nerve.decision.candidates import Candidate, dice
from kaggle_nerve.decision.evidence import Evidence
from kaggle_nerve.maps import levels
from kaggle_nerve.progress import Bar

DRAWS = 2000
"""Number of bootstrap draws of subjects."""

MINIMUM_GAIN = 0.001
"""A more elaborate option must gain more mean Dice than this, however certain the gain is."""


@dataclass(frozen=True)
class NestedResults:
    """Results for each frame by rules learned without its subject: ``cuts`` int (n,), `levels.NOTHING` for an
    empty mask; ``kept_cuts`` (n,), the cuts if every frame kept its mask; ``presence`` (n,), P(mask not empty);
    ``dice`` (n,) of the cuts, and ``kept_dice`` (n,) of the kept cuts.
    """

    cuts: np.ndarray
    kept_cuts: np.ndarray
    presence: np.ndarray
    dice: np.ndarray
    kept_dice: np.ndarray

    @property
    def keeps_mask(self) -> np.ndarray:
        """Whether each frame keeps a mask, bool (n,)."""
        return self.cuts < levels.NOTHING


def splits(subjects: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (rows of the other subjects, rows of this subject) as bool (n,) for each subject; with one subject, both
    are its own rows.
    """
    names = np.unique(subjects)
    for name in names:
        is_own = subjects == name
        yield (~is_own if len(names) > 1 else is_own), is_own


def judge(
    candidate: Candidate, evidence: Evidence, *, bar: Bar | None = None, workers: int = 2
) -> NestedResults:
    """Decide every subject with the candidate learned on the others; ``bar`` counts subjects."""
    all_splits = list(splits(evidence.subjects))

    def judge_subject(split: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, ...]:
        others, is_own = split
        learned, unseen = candidate.learn(evidence.select(others)), evidence.select(is_own)
        return learned.cuts(unseen), learned.rule.kept_cuts(unseen), learned.presence(unseen)

    cuts, kept_cuts = np.zeros(len(evidence), int), np.zeros(len(evidence), int)
    presence = np.zeros(len(evidence))
    with ThreadPoolExecutor(workers) as pool:
        for (_, is_own), results in zip(all_splits, pool.map(judge_subject, all_splits), strict=True):
            cuts[is_own], kept_cuts[is_own], presence[is_own] = results
            if bar:
                bar.update()
    return NestedResults(cuts, kept_cuts, presence, dice(evidence, cuts), dice(evidence, kept_cuts))


def by_subject(values: np.ndarray, subjects: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sums of the frames' ``values`` (n,) and the numbers of frames, both (subjects,)."""
    _, groups = np.unique(subjects, return_inverse=True)
    return np.bincount(groups, values), np.bincount(groups)


def interval(sums: np.ndarray, sizes: np.ndarray, seed: int) -> tuple[float, float]:
    """Compute the 95 % bootstrap interval of a mean over frames, with subjects drawn with replacement.

    ``sums``: (subjects,) sum of the frames' values of each subject; ``sizes``: its number of frames.
    """
    low, high = np.percentile(_means(sums, sizes, seed), [2.5, 97.5])
    return float(low), float(high)


def standard_error(sums: np.ndarray, sizes: np.ndarray, seed: int) -> float:
    """Compute the bootstrap standard error of a mean over frames; arguments as in `interval`."""
    return float(_means(sums, sizes, seed).std())


def _means(sums: np.ndarray, sizes: np.ndarray, seed: int) -> np.ndarray:
    draws = np.random.default_rng(seed).integers(0, len(sums), (DRAWS, len(sums)))
    return sums[draws].sum(axis=1) / sizes[draws].sum(axis=1)


def simplest_within_noise(sums: np.ndarray, sizes: np.ndarray, ranks: Sequence[int], seed: int) -> int:
    """Pick the simplest candidate whose mean is within one standard error or within `MINIMUM_GAIN`, whichever is
    larger, of the best one's; among equally simple ones, the best.

    ``sums``: (candidates, subjects); ``ranks``: (candidates,), the lower the simpler. The error is that of
    the paired difference over a bootstrap of subjects: the one-standard-error rule of Breiman et al.,
    "Classification and Regression Trees" (1984).
    """
    totals = sums.sum(axis=1)
    best = int(totals.argmax())

    def is_near(index: int) -> bool:
        if index == best:
            return True
        lead = sums[best] - sums[index]
        tolerance = max(standard_error(lead, sizes, seed), MINIMUM_GAIN)
        return lead.sum() / sizes.sum() <= tolerance

    simpler = [index for index in range(len(sums)) if ranks[index] <= ranks[best]]
    return min(filter(is_near, simpler), key=lambda index: (ranks[index], -totals[index]))


@dataclass(frozen=True)
class Choice:
    """Choice among several options. ``index``: the option chosen on all subjects; ``index_by_frame`` (n,): for each
    frame, the option chosen by the Dice of the other subjects' frames.
    """

    index: int
    index_by_frame: np.ndarray


def choose(dices: list[np.ndarray], subjects: np.ndarray, ranks: Sequence[int], seed: int) -> Choice:
    """Choose the simplest option within noise of the best, by the Dice (n,) of the frames with each option;
    see `simplest_within_noise` for ``ranks``.
    """
    names, groups = np.unique(subjects, return_inverse=True)
    sums = np.stack([by_subject(values, subjects)[0] for values in dices])
    sizes = np.bincount(groups)
    index = simplest_within_noise(sums, sizes, ranks, seed)
    if len(names) == 1:
        return Choice(index, np.full(len(subjects), index))
    leave_one_out = [
        simplest_within_noise(np.delete(sums, subject, axis=1), np.delete(sizes, subject), ranks, seed)
        for subject in range(len(names))
    ]
    return Choice(index, np.array(leave_one_out)[groups])
