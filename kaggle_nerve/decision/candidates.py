"""The decisions that `tune` compares, from the simplest to the most elaborate, and how each is learned."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from kaggle_nerve.competition.metric import dice_of_counts
from kaggle_nerve.decision import calibration, presence
from kaggle_nerve.decision.evidence import Evidence
from kaggle_nerve.decision.presence import Classifier
from kaggle_nerve.decision.rule import ExpectedDice, Rule, Thresholds, best_cuts
from kaggle_nerve.maps import levels

THRESHOLDS = tuple(np.round(np.arange(0.2, 0.71, 0.05), 2).tolist())
CONFIDENT = tuple(np.round(np.arange(0.5, 0.96, 0.05), 2).tolist())
AREAS = (0, 500, 1000, 1500, 2000, 2500, 3000, 3500, 4000)
"""Pixels at full resolution; the smallest training mask has 2684."""
PRESENCES = tuple(np.round(np.arange(0.0, 0.96, 0.05), 2).tolist())
FINE_PRESENCES = tuple(np.round(np.arange(0.3, 0.81, 0.02), 2).tolist())
"""For the classifier, whose probabilities are calibrated: around 1 / (1 + d), for d from 0.25 to 2."""


@dataclass(frozen=True)
class Learned:
    """A rule, and the classifier that tells it the presence (None: the networks' heads do)."""

    rule: Rule
    classifier: Classifier | None = None

    def presence(self, evidence: Evidence) -> np.ndarray:
        """P(mask not empty), (n,)."""
        return evidence.presence if self.classifier is None else self.classifier(evidence)

    def cuts(self, evidence: Evidence) -> np.ndarray:
        """The level from which each frame's pixels are in its mask, int (n,); `levels.NOTHING`: empty."""
        kept = self.rule.kept(evidence, self.presence(evidence))
        return np.where(kept, self.rule.outlines(evidence), levels.NOTHING)


@dataclass(frozen=True)
class Candidate:
    """One way to decide. ``learn`` is given frames whose truth is known."""

    name: str
    meaning: str
    learn: Callable[[Evidence], Learned]


def dice(evidence: Evidence, cuts: np.ndarray) -> np.ndarray:
    """The competition's Dice of each frame for the cuts (n,), float (n,)."""
    rows = np.arange(len(cuts))
    return dice_of_counts(evidence.shared[rows, cuts], evidence.truth, evidence.reached[rows, cuts])


def search(
    evidence: Evidence,
    there: np.ndarray,
    thresholds: tuple[float, ...],
    areas: tuple[int, ...],
    presences: tuple[float, ...],
    confident: tuple[float, ...] | None = None,
) -> Thresholds:
    """The `Thresholds` with the largest mean Dice; of equal ones the first in the order of the arguments.

    ``there``: P(mask not empty) of the frames. Without ``confident`` it equals the threshold.
    """
    # A rule scores what an empty mask would, plus what its outline gains on the frames that it keeps.
    empty = np.where(evidence.present, 0.0, 1.0)
    gains = {t: dice(evidence, np.full(len(evidence), levels.cut(t))) - empty for t in thresholds}
    keep_by = np.stack([there >= value for value in presences]).astype(float)
    best, found = -np.inf, Thresholds()
    for sure, outlines in _pairs(thresholds, confident):
        area = evidence.reached[:, levels.cut(sure)]
        big = np.stack([area >= max(value, 1) for value in areas])
        for threshold in outlines:
            sums = (big * gains[threshold]) @ keep_by.T
            at = np.unravel_index(sums.argmax(), sums.shape)
            # Sums of the same terms in another order differ in their last digits.
            if sums[at] > best + 1e-9:
                best = sums[at]
                where = None if sure == threshold else sure
                found = Thresholds(threshold, areas[at[0]], presences[at[1]], where)
    return found


def _pairs(
    thresholds: tuple[float, ...], confident: tuple[float, ...] | None
) -> list[tuple[float, tuple[float, ...]]]:
    if confident is None:
        return [(threshold, (threshold,)) for threshold in thresholds]
    return [(sure, tuple(t for t in thresholds if t <= sure)) for sure in confident]


def _fixed(evidence: Evidence) -> Learned:
    return Learned(Thresholds(0.5))


def _area(evidence: Evidence) -> Learned:
    return Learned(search(evidence, evidence.presence, (0.5,), AREAS, (0.0,)))


def _head(evidence: Evidence) -> Learned:
    return Learned(search(evidence, evidence.presence, THRESHOLDS, AREAS, PRESENCES))


def _triplet(evidence: Evidence) -> Learned:
    return Learned(search(evidence, evidence.presence, THRESHOLDS, AREAS, PRESENCES, CONFIDENT))


def _classifier(evidence: Evidence, names: tuple[str, ...] = presence.ALL_NAMES) -> Learned:
    # The thresholds are chosen on verdicts about unseen patients, as they will be used.
    there = presence.cross_fitted(evidence, names)
    rule = search(evidence, there, THRESHOLDS, AREAS, FINE_PRESENCES)
    return Learned(rule, presence.fit(evidence, names))


def _expected(evidence: Evidence, names: tuple[str, ...] = presence.ALL_NAMES) -> Learned:
    return Learned(learn_expected(evidence), presence.fit(evidence, names))


def learn_expected(evidence: Evidence, method: str = "isotonic") -> ExpectedDice:
    """Calibrate pixels and the expected Dice on the frames that have a mask."""
    there = evidence.take(evidence.present)
    given = levels.probability(np.arange(levels.COUNT))
    if not len(there):
        nothing = calibration.Calibration((0.0, 1.0), (0.0, 0.0))
        return ExpectedDice(nothing, nothing)
    times = (there.reached[:, :-1] - there.reached[:, 1:]).sum(axis=0, dtype=np.int64)
    true = (there.shared[:, :-1] - there.shared[:, 1:]).sum(axis=0, dtype=np.int64)
    pixels = calibration.fit(method, given, true, times)
    cuts, ratio = best_cuts(there.reached, pixels)
    quality = calibration.fit("isotonic", ratio, dice(there, cuts), np.ones(len(there)))
    return ExpectedDice(pixels, quality)


CANDIDATES = (
    Candidate("fixed", "pixels from probability 0.5", _fixed),
    Candidate("area", "and a least area", _area),
    Candidate("thresholds", "pixel, area and presence thresholds, presence by the networks' heads", _head),
    Candidate("triplet", "area counted on confident pixels, outline at a lower threshold", _triplet),
    Candidate("classifier", "thresholds, presence by the classifier", _classifier),
    Candidate("expected", "mask and keep-or-empty by expected Dice, presence by the classifier", _expected),
)
"""From the simplest to the most elaborate."""

CONDITIONAL = (
    *(one for one in CANDIDATES if one.name in ("thresholds", "triplet")),
    Candidate(
        "classifier",
        "thresholds, the heads' presence calibrated",
        partial(_classifier, names=presence.HEAD_ALONE),
    ),
    Candidate(
        "expected",
        "mask and keep-or-empty by expected Dice, the heads' presence calibrated",
        partial(_expected, names=presence.HEAD_ALONE),
    ),
)
"""Those for maps that say P(pixel | there is a mask): without a presence they draw a mask on every frame."""

BASELINE = "thresholds"
"""What the others are compared with, pair by pair: the rule of the first version."""


def offered(conditional: bool) -> tuple[Candidate, ...]:
    """The candidates that make sense for maps that are ``conditional`` on a mask being there, or are not."""
    return CONDITIONAL if conditional else CANDIDATES
