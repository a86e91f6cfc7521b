"""How far pixel and presence probabilities come true, raw and calibrated, on patients not calibrated on."""

import numpy as np

from kaggle_nerve.decision import calibration
from kaggle_nerve.decision.calibration import METHODS, Reliability
from kaggle_nerve.decision.evidence import Evidence
from kaggle_nerve.decision.presence import cross_fitted, parts
from kaggle_nerve.maps import levels

RAW, CLASSIFIER = "raw", "classifier"


def of_pixels(evidence: Evidence) -> dict[str, Reliability]:
    """Of all pixels of all frames, by the level that a pixel has."""
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


def of_presence(evidence: Evidence, names: tuple[str, ...]) -> dict[str, Reliability]:
    """Of the heads' presence, and of the classifier's by the features ``names``."""
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
