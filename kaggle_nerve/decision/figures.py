"""Figures of a decision on out-of-fold frames, and the rows of the table that it was chosen from."""

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_auc_score

from kaggle_nerve.decision import calibration
from kaggle_nerve.decision.calibration import METHODS, Reliability
from kaggle_nerve.decision.evidence import Evidence
from kaggle_nerve.decision.nested import NestedResults, by_subject, interval
from kaggle_nerve.decision.presence import cross_fit, subject_splits
from kaggle_nerve.maps import levels

FAR = 0.1
"""Largest tolerated difference between the predicted and the training share of frames with a mask."""

RAW, CLASSIFIER = "raw", "classifier"


@dataclass(frozen=True)
class Figures:
    """Figures on out-of-fold frames, each share from 0 to 1.

    ``dice`` is the nested figure: each subject is scored by the decision chosen and learned on the others.
    ``low`` and ``high`` are its 95 % interval over a bootstrap of subjects. ``in_sample`` is the decision's
    score on the same frames that it was learned on.

    ``all_empty``: mean Dice of only empty masks; ``perfect_presence``: mean Dice of all frames if every
    frame's presence were known; ``present_dice``: nested mean Dice over frames with a mask, ``kept_present_dice``
    the same if no mask were dropped; ``presence_auc`` and ``presence_error``: area under the ROC curve and
    expected calibration error of presence; ``predicted_share`` and ``true_share``: share of frames with a
    predicted and with a true mask.
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
    """One option, as compared by `tune`: nested figures as in `Figures`, and the mean of the paired
    difference from the baseline, with its 95 % interval over a bootstrap of subjects.
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


def comparison_row(
    name: str,
    meaning: str,
    nested: NestedResults,
    baseline: np.ndarray,
    evidence: Evidence,
    seed: int,
    *,
    chosen: bool = False,
) -> Row:
    """Compute the row of one option; ``baseline``: the Dice (n,) of the option that it is compared with."""
    low, high = interval(*by_subject(nested.dice, evidence.subjects), seed)
    difference_low, difference_high = interval(*by_subject(nested.dice - baseline, evidence.subjects), seed)
    present = evidence.present
    return Row(
        name,
        meaning,
        float(nested.dice.mean()),
        low,
        high,
        float((nested.dice - baseline).mean()),
        difference_low,
        difference_high,
        _mean(nested.dice[present]) or 0.0,
        _mean(nested.keeps_mask[~present]),
        _mean(~nested.keeps_mask[present]),
        chosen,
    )


def figures(evidence: Evidence, nested: NestedResults, in_sample: float, seed: int) -> Figures:
    """Compute the figures of a decision with the nested results ``nested``."""
    present, keeps_mask = evidence.present, nested.keeps_mask
    low, high = interval(*by_subject(nested.dice, evidence.subjects), seed)
    has_both_classes = 0 < present.sum() < len(present)
    reliability = calibration.reliability(nested.presence, present, np.ones(len(present)))
    return Figures(
        frames=len(present),
        subjects=len(np.unique(evidence.subjects)),
        dice=float(nested.dice.mean()),
        low=low,
        high=high,
        in_sample=in_sample,
        all_empty=float((~present).mean()),
        perfect_presence=float(np.where(present, nested.kept_dice, 1).mean()),
        present_dice=_mean(nested.dice[present]) or 0.0,
        kept_present_dice=_mean(nested.kept_dice[present]) or 0.0,
        presence_auc=float(roc_auc_score(present, nested.presence)) if has_both_classes else None,
        presence_error=reliability.error,
        false_positive_rate=_mean(keeps_mask[~present]),
        false_negative_rate=_mean(~keeps_mask[present]),
        predicted_share=float(keeps_mask.mean()),
        true_share=float(present.mean()),
    )


def share_warning(predicted_share: float, training_share: float) -> str | None:
    """Return the end of a warning if the predicted share of frames with a mask is far from the training frames'."""
    if abs(predicted_share - training_share) <= FAR:
        return None
    return (
        f"masks are predicted on {predicted_share:.1%} of the frames, but {training_share:.1%} of the training frames "
        "have one: see whether the predictions are of the right frames and the network has learned enough."
    )


def _mean(values: np.ndarray) -> float | None:
    return float(values.mean()) if len(values) else None


def reliability_of_pixels(evidence: Evidence) -> dict[str, Reliability]:
    """Measure the reliability of all pixels of all frames, raw and calibrated on other subjects."""
    counts = (evidence.cut_areas[:, :-1] - evidence.cut_areas[:, 1:]).astype(np.int64)
    positives = (evidence.cut_intersections[:, :-1] - evidence.cut_intersections[:, 1:]).astype(np.int64)
    probabilities = levels.probability(np.arange(levels.COUNT))
    results = {RAW: calibration.reliability(probabilities, positives.sum(axis=0), counts.sum(axis=0))}
    for method in METHODS:
        rows = []
        for train_rows, test_rows in subject_splits(evidence.subjects):
            curve = calibration.fit(
                method, probabilities, positives[train_rows].sum(axis=0), counts[train_rows].sum(axis=0)
            )
            rows.append(
                (curve(probabilities), positives[test_rows].sum(axis=0), counts[test_rows].sum(axis=0))
            )
        results[method] = calibration.reliability(
            *(np.concatenate(column) for column in zip(*rows, strict=True))
        )
    return results


def reliability_of_presence(evidence: Evidence, names: tuple[str, ...]) -> dict[str, Reliability]:
    """Measure the reliability of the heads' presence, raw and calibrated on other subjects, and of the classifier's
    with the features ``names``.
    """
    ones, present = np.ones(len(evidence)), evidence.present
    results = {RAW: calibration.reliability(evidence.presence, present, ones)}
    for method in METHODS:
        probabilities = np.zeros(len(evidence))
        for train_rows, test_rows in subject_splits(evidence.subjects):
            curve = calibration.fit(
                method, evidence.presence[train_rows], present[train_rows], ones[train_rows]
            )
            probabilities[test_rows] = curve(evidence.presence[test_rows])
        results[method] = calibration.reliability(probabilities, present, ones)
    results[CLASSIFIER] = calibration.reliability(cross_fit(evidence, names), present, ones)
    return results
