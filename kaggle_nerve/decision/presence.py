"""Empty-mask classifier: P(mask not empty) from features of the probability maps.

A logistic regression (scikit-learn) over `features.NAMES` and over how well the map's position matches
the training masks. With some forty patients, a more flexible model overfits to the patients. Conditional maps,
P(pixel | frame has a mask), look alike with and without a mask, so only the head's presence is used for them: in
our measurements, every other feature added nothing or lowered the score.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from kaggle_nerve.decision import features
from kaggle_nerve.decision.evidence import Evidence
from kaggle_nerve.maps.blending import from_log_odds

PENALTY = 0.1
"""C of the regression: the inverse weight of its L2 penalty."""

PLACE = "place"
"""Feature that the classifier adds: the mean of the training masks, weighted by the map."""

ALL_NAMES = (*features.NAMES, PLACE)
HEAD_ALONE = ("head",)
"""Feature for conditional maps: the head's presence, calibrated."""

CROSS = 5
"""Number of cross-validation splits by subject for a classifier's predictions on unseen frames."""


@dataclass(frozen=True)
class Classifier:
    """Fitted classifier. Values are in the order of the features ``names``, a subset of `ALL_NAMES`.

    ``mean_mask``: the mean true mask, 0 to 1, at the size of `Evidence.coarse_maps`.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float
    mean_mask: tuple[tuple[float, ...], ...]

    def __call__(self, evidence: Evidence) -> np.ndarray:
        """Return P(mask not empty), float (n,)."""
        values = (_columns(evidence, np.array(self.mean_mask), self.names) - self.mean) / self.scale
        return from_log_odds((values * self.weights).sum(axis=1) + self.intercept)


def fit(evidence: Evidence, names: tuple[str, ...] = ALL_NAMES) -> Classifier:
    """Fit the classifier to frames with known truth, with the features ``names``."""
    mean_mask = _mean_mask(evidence)
    values = _columns(evidence, mean_mask, names)
    mean, scale = values.mean(axis=0), values.std(axis=0)
    # A feature that is constant here gets no weight, regardless of its values elsewhere.
    scale[scale < 1e-6] = 1
    if evidence.present.all() or not evidence.present.any():
        log_odds = 20.0 if evidence.present.all() else -20.0
        weights, intercept = np.zeros(len(names)), log_odds
    else:
        model = LogisticRegression(C=PENALTY, max_iter=2000).fit((values - mean) / scale, evidence.present)
        weights, intercept = model.coef_[0], float(model.intercept_[0])
    return Classifier(
        names,
        tuple(mean.tolist()),
        tuple(scale.tolist()),
        tuple(weights.tolist()),
        intercept,
        tuple(map(tuple, mean_mask.tolist())),
    )


def cross_fit(evidence: Evidence, names: tuple[str, ...] = ALL_NAMES) -> np.ndarray:
    """Return P(mask not empty) of each frame by a classifier fitted without its subject, (n,)."""
    result = np.zeros(len(evidence))
    for train_rows, test_rows in subject_splits(evidence.subjects):
        result[test_rows] = fit(evidence.select(train_rows), names)(evidence.select(test_rows))
    return result


def subject_splits(subjects: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return (train, test) row numbers of up to `CROSS` splits by subject; a single subject is split by frame."""
    count = len(np.unique(subjects))
    groups = subjects if count > 1 else np.arange(len(subjects))
    splitter = GroupKFold(min(CROSS, len(np.unique(groups))))
    return list(splitter.split(groups, groups=groups))


def _mean_mask(evidence: Evidence) -> np.ndarray:
    """Compute the mean true mask, 0 to 1, (height, width) of the coarse maps."""
    masks = evidence.coarse_true_maps[evidence.present]
    shape = evidence.coarse_true_maps.shape[1:]
    return np.round(masks.mean(axis=0) / 255, 4) if len(masks) else np.zeros(shape)


def _columns(evidence: Evidence, mean_mask: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    maps = evidence.coarse_maps.reshape(len(evidence), -1).astype(np.float32)
    # Sum row by row, so that a frame gets the same value alone as among thousands.
    place = np.einsum("np,p->n", maps, mean_mask.reshape(-1).astype(np.float32))
    values = np.column_stack([evidence.features, place / np.maximum(maps.sum(axis=1), 1)]).astype(float)
    # Contiguous rows are summed in the same order for any number of rows.
    return np.ascontiguousarray(values[:, [ALL_NAMES.index(name) for name in names]])
