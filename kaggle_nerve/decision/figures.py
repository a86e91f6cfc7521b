"""What was measured on out-of-fold frames: the figures of a decision, and the table of what it was chosen from."""

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_auc_score

from kaggle_nerve.decision import calibration
from kaggle_nerve.decision.calibration import METHODS, Reliability
from kaggle_nerve.decision.evidence import Evidence
from kaggle_nerve.decision.nested import Nested, by_subject, interval
from kaggle_nerve.decision.presence import cross_fitted, parts
from kaggle_nerve.maps import levels

FAR = 0.1
"""How far the share of frames with a mask may lie from the training frames' before it is worth a warning."""

RAW, CLASSIFIER = "raw", "classifier"


@dataclass(frozen=True)
class Figures:
    """What was measured on out-of-fold frames, each share from 0 to 1.

    ``dice`` is the nested figure: each subject is scored by what was chosen and learned on the others.
    ``low`` and ``high`` are its 95 % interval over a bootstrap of subjects. ``in_sample`` is what the
    decision scores on the very frames it was learned on. ``present_dice`` is the nested Dice over
    frames with a mask; ``kept_present_dice`` the same if no frame had been dropped, and
    ``perfect_presence`` the mean Dice of all frames if every frame's presence were known.
    """

    frames: int
    subjects: int
    dice: float
    low: float
    high: float
    in_sample: float
    all_empty: float
    perfect_presence: float
    present_dice: float
    kept_present_dice: float
    presence_auc: float | None
    presence_error: float
    false_positive_rate: float | None
    false_negative_rate: float | None
    predicted_share: float
    true_share: float


@dataclass(frozen=True)
class Row:
    """One way to decide, as compared by `tune`: nested figures as in `Figures`, and the mean of the paired
    difference from the baseline with its 95 % interval over a bootstrap of subjects.
    """

    name: str
    meaning: str
    dice: float
    low: float
    high: float
    difference: float
    difference_low: float
    difference_high: float
    present_dice: float
    false_positive_rate: float | None
    false_negative_rate: float | None
    chosen: bool


def compared(
    name: str,
    meaning: str,
    nested: Nested,
    baseline: np.ndarray,
    evidence: Evidence,
    seed: int,
    *,
    chosen: bool = False,
) -> Row:
    """The row of one way; ``baseline``: the Dice (n,) of the way that it is compared with."""
    low, high = interval(*by_subject(nested.dice, evidence.subjects), seed)
    worse, better = interval(*by_subject(nested.dice - baseline, evidence.subjects), seed)
    there = evidence.present
    return Row(
        name,
        meaning,
        float(nested.dice.mean()),
        low,
        high,
        float((nested.dice - baseline).mean()),
        worse,
        better,
        _mean(nested.dice[there]) or 0.0,
        _mean(nested.kept[~there]),
        _mean(~nested.kept[there]),
        chosen,
    )


def figures(evidence: Evidence, nested: Nested, in_sample: float, seed: int) -> Figures:
    """The figures of a decision whose nested verdicts are ``nested``."""
    there, kept = evidence.present, nested.kept
    low, high = interval(*by_subject(nested.dice, evidence.subjects), seed)
    mixed = 0 < there.sum() < len(there)
    found = presence_reliability(evidence, nested)
    return Figures(
        frames=len(there),
        subjects=len(np.unique(evidence.subjects)),
        dice=float(nested.dice.mean()),
        low=low,
        high=high,
        in_sample=in_sample,
        all_empty=float((~there).mean()),
        perfect_presence=float(np.where(there, nested.open_dice, 1).mean()),
        present_dice=_mean(nested.dice[there]) or 0.0,
        kept_present_dice=_mean(nested.open_dice[there]) or 0.0,
        presence_auc=float(roc_auc_score(there, nested.presence)) if mixed else None,
        presence_error=found.error,
        false_positive_rate=_mean(kept[~there]),
        false_negative_rate=_mean(~kept[there]),
        predicted_share=float(kept.mean()),
        true_share=float(there.mean()),
    )


def presence_reliability(evidence: Evidence, nested: Nested) -> calibration.Reliability:
    """How often frames with a given presence truly have a mask."""
    return calibration.reliability(nested.presence, evidence.present, np.ones(len(evidence)))


def far_share(predicted: float, trained: float) -> str | None:
    """The end of a warning where ``predicted``, a share of frames with a mask, lies far from the training frames'."""
    if abs(predicted - trained) <= FAR:
        return None
    return (
        f"masks are predicted on {predicted:.1%} of the frames, but {trained:.1%} of the training frames have "
        "one: see whether the predictions are of the right frames and the network has learned enough."
    )


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def reliability_of_pixels(evidence: Evidence) -> dict[str, Reliability]:
    """How far the probabilities of all pixels of all frames come true, raw and calibrated on other subjects."""
    times = (evidence.reached[:, :-1] - evidence.reached[:, 1:]).astype(np.int64)
    true = (evidence.shared[:, :-1] - evidence.shared[:, 1:]).astype(np.int64)
    given = levels.probability(np.arange(levels.COUNT))
    found = {RAW: calibration.reliability(given, true.sum(axis=0), times.sum(axis=0))}
    for method in METHODS:
        rows = []
        for seen, unseen in parts(evidence.subjects):
            curve = calibration.fit(method, given, true[seen].sum(axis=0), times[seen].sum(axis=0))
            rows.append((curve(given), true[unseen].sum(axis=0), times[unseen].sum(axis=0)))
        found[method] = calibration.reliability(
            *(np.concatenate(column) for column in zip(*rows, strict=True))
        )
    return found


def reliability_of_presence(evidence: Evidence, names: tuple[str, ...]) -> dict[str, Reliability]:
    """As `reliability_of_pixels`, of the heads' presence, and of the classifier's by the features ``names``."""
    once, true = np.ones(len(evidence)), evidence.present
    found = {RAW: calibration.reliability(evidence.presence, true, once)}
    for method in METHODS:
        given = np.zeros(len(evidence))
        for seen, unseen in parts(evidence.subjects):
            curve = calibration.fit(method, evidence.presence[seen], true[seen], once[seen])
            given[unseen] = curve(evidence.presence[unseen])
        found[method] = calibration.reliability(given, true, once)
    found[CLASSIFIER] = calibration.reliability(cross_fitted(evidence, names), true, once)
    return found
