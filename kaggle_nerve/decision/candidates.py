"""Decision rules that `tune` compares, from the simplest to the most elaborate, and how to learn each."""

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
"""Pixel thresholds to try."""

CONFIDENT = tuple(np.round(np.arange(0.5, 0.96, 0.05), 2).tolist())
"""Thresholds of the confident pixels, whose area the triplet rule counts."""

AREAS = (0, 500, 1000, 1500, 2000, 2500, 3000, 3500, 4000)
"""Minimum areas in pixels at full resolution; the smallest training mask has 2684."""

PRESENCES = tuple(np.round(np.arange(0.0, 0.96, 0.05), 2).tolist())
"""Presence thresholds for the networks' heads, whose probabilities are not calibrated."""

FINE_PRESENCES = tuple(np.round(np.arange(0.3, 0.81, 0.02), 2).tolist())
"""Presence thresholds for the classifier's calibrated probabilities: a finer grid around 1 / (1 + d), which is 0.5
to 0.8 for an expected Dice d of 1 to 0.25 (see `rule.ExpectedDice`)."""


@dataclass(frozen=True)
class Learned:
    """A learned rule, and the classifier of presence (None: the networks' presence heads)."""

    rule: Rule
    classifier: Classifier | None = None

    def presence(self, evidence: Evidence) -> np.ndarray:
        """Return P(mask not empty), (n,)."""
        return evidence.presence if self.classifier is None else self.classifier(evidence)

    def cuts(self, evidence: Evidence) -> np.ndarray:
        """Return the lowest level of each frame's mask pixels, int (n,); `levels.NOTHING`: empty mask."""
        keeps_mask = self.rule.keeps_mask(evidence, self.presence(evidence))
        return np.where(keeps_mask, self.rule.kept_cuts(evidence), levels.NOTHING)


@dataclass(frozen=True)
class Candidate:
    """A rule to compare. ``learn`` learns it from frames with known truth."""

    name: str
    meaning: str
    learn: Callable[[Evidence], Learned]


def dice(evidence: Evidence, cuts: np.ndarray) -> np.ndarray:
    """Compute the competition's Dice of each frame for the cuts (n,), float (n,)."""
    rows = np.arange(len(cuts))
    return dice_of_counts(
        evidence.cut_intersections[rows, cuts], evidence.true_areas, evidence.cut_areas[rows, cuts]
    )


def search(
    evidence: Evidence,
    presence: np.ndarray,
    thresholds: tuple[float, ...],
    areas: tuple[int, ...],
    presences: tuple[float, ...],
    confident: tuple[float, ...] | None = None,
) -> Thresholds:
    """Return the `Thresholds` with the largest mean Dice; on a tie, the first by confident, threshold, area and
    presence.

    ``presence``: P(mask not empty) of the frames. Without ``confident``, the area is counted at the pixel threshold.
    """
    # A rule's Dice is that of all-empty masks, plus the gain of its masks on the frames that keep theirs.
    empty = np.where(evidence.present, 0.0, 1.0)
    gains = {t: dice(evidence, np.full(len(evidence), levels.cut(t))) - empty for t in thresholds}
    keeps_presence = np.stack([presence >= value for value in presences]).astype(float)
    best, best_rule = -np.inf, Thresholds()
    for confidence, mask_thresholds in _pairs(thresholds, confident):
        area = evidence.cut_areas[:, levels.cut(confidence)]
        keeps_area = np.stack([area >= max(value, 1) for value in areas])
        for threshold in mask_thresholds:
            sums = (keeps_area * gains[threshold]) @ keeps_presence.T
            best_index = np.unravel_index(sums.argmax(), sums.shape)
            # The tolerance absorbs rounding: sums of the same terms in another order differ in the last digits.
            if sums[best_index] > best + 1e-9:
                best = sums[best_index]
                best_area, best_presence = areas[best_index[0]], presences[best_index[1]]
                confident_or_none = None if confidence == threshold else confidence
                best_rule = Thresholds(threshold, best_area, best_presence, confident_or_none)
    return best_rule


def _pairs(
    thresholds: tuple[float, ...], confident: tuple[float, ...] | None
) -> list[tuple[float, tuple[float, ...]]]:
    """Pair each probability at which the area is counted with the pixel thresholds to try with it."""
    if confident is None:
        return [(threshold, (threshold,)) for threshold in thresholds]
    return [(confidence, tuple(t for t in thresholds if t <= confidence)) for confidence in confident]


def _fixed(evidence: Evidence) -> Learned:
    return Learned(Thresholds(0.5))


def _area(evidence: Evidence) -> Learned:
    return Learned(search(evidence, evidence.presence, (0.5,), AREAS, (0.0,)))


def _head(evidence: Evidence) -> Learned:
    return Learned(search(evidence, evidence.presence, THRESHOLDS, AREAS, PRESENCES))


def _triplet(evidence: Evidence) -> Learned:
    return Learned(search(evidence, evidence.presence, THRESHOLDS, AREAS, PRESENCES, CONFIDENT))


def _classifier(evidence: Evidence, names: tuple[str, ...] = presence.ALL_NAMES) -> Learned:
    # Choose the thresholds on cross-fitted presences: in use, the classifier predicts unseen patients, too.
    presences = presence.cross_fit(evidence, names)
    rule = search(evidence, presences, THRESHOLDS, AREAS, FINE_PRESENCES)
    return Learned(rule, presence.fit(evidence, names))


def _expected(evidence: Evidence, names: tuple[str, ...] = presence.ALL_NAMES) -> Learned:
    return Learned(learn_expected(evidence), presence.fit(evidence, names))


def learn_expected(evidence: Evidence, method: str = "isotonic") -> ExpectedDice:
    """Calibrate pixels and the expected Dice on the frames with a mask."""
    with_mask = evidence.select(evidence.present)
    probabilities = levels.probability(np.arange(levels.COUNT))
    if not len(with_mask):
        nothing = calibration.Calibration((0.0, 1.0), (0.0, 0.0))
        return ExpectedDice(nothing, nothing)
    counts = (with_mask.cut_areas[:, :-1] - with_mask.cut_areas[:, 1:]).sum(axis=0, dtype=np.int64)
    positives = (with_mask.cut_intersections[:, :-1] - with_mask.cut_intersections[:, 1:]).sum(
        axis=0, dtype=np.int64
    )
    pixels = calibration.fit(method, probabilities, positives, counts)
    cuts, ratio = best_cuts(with_mask.cut_areas, pixels)
    quality = calibration.fit("isotonic", ratio, dice(with_mask, cuts), np.ones(len(with_mask)))
    return ExpectedDice(pixels, quality)


CANDIDATES = (
    Candidate("fixed", "pixels from probability 0.5", _fixed),
    Candidate("area", "pixels from probability 0.5, masks from a minimum area", _area),
    Candidate("thresholds", "pixel, area and presence thresholds, presence by the networks' heads", _head),
    Candidate("triplet", "area counted on confident pixels, outline at a lower threshold", _triplet),
    Candidate("classifier", "thresholds, presence by the classifier", _classifier),
    Candidate("expected", "mask and keep-or-empty by expected Dice, presence by the classifier", _expected),
)
"""Candidates, simplest first."""

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
"""Candidates for maps P(pixel | frame has a mask), which draw a mask on every frame without a presence threshold."""

BASELINE = "thresholds"
"""Rule that the others are compared with, frame by frame."""


def candidates_for(conditional: bool) -> tuple[Candidate, ...]:
    """Return the candidates for ``conditional`` maps, P(pixel | frame has a mask), or for plain ones."""
    return CONDITIONAL if conditional else CANDIDATES
