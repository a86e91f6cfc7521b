"""The empty-mask classifier: P(mask not empty) from what the probability maps look like.

A logistic regression (scikit-learn) over `features.NAMES` and over how well the map lies where the
training masks lie. With some forty patients a model of more freedom learns the patients. Maps that say
P(pixel | there is a mask) look alike with and without one, so that of them only the head's presence counts:
every other feature was measured to add nothing, or to take something.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from kaggle_nerve.decision import features
from kaggle_nerve.decision.evidence import Evidence
from kaggle_nerve.maps.blending import from_log_odds

PENALTY = 0.1
"""C of the regression: the inverse of the weight of its L2 penalty."""

PLACE = "place"
"""The feature that the classifier adds: the mean of the training masks under the map."""

ALL_NAMES = (*features.NAMES, PLACE)
HEAD_ALONE = ("head",)
"""What conditional maps are judged by: the head's presence, calibrated."""

CROSS = 5
"""Parts into which subjects are dealt to get a classifier's verdict on frames that it has not seen."""


@dataclass(frozen=True)
class Classifier:
    """A fitted classifier. Numbers are for the features in the order of ``names``, of `ALL_NAMES`.

    ``prior``: the mean true mask in a coarse grid.
    """

    names: tuple[str, ...]
    mean: tuple[float, ...]
    scale: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float
    prior: tuple[tuple[float, ...], ...]

    def __call__(self, evidence: Evidence) -> np.ndarray:
        """P(mask not empty), float (n,)."""
        values = (_columns(evidence, np.array(self.prior), self.names) - self.mean) / self.scale
        return from_log_odds((values * self.weights).sum(axis=1) + self.intercept)


def fit(evidence: Evidence, names: tuple[str, ...] = ALL_NAMES) -> Classifier:
    """Learn from frames whose truth is known, by the features ``names``."""
    prior = _prior(evidence)
    values = _columns(evidence, prior, names)
    mean, scale = values.mean(axis=0), values.std(axis=0)
    # A feature that never changes here gets no weight, whatever it is elsewhere.
    scale[scale < 1e-6] = 1
    if evidence.present.all() or not evidence.present.any():
        sure = 20.0 if evidence.present.all() else -20.0
        weights, intercept = np.zeros(len(names)), sure
    else:
        model = LogisticRegression(C=PENALTY, max_iter=2000).fit((values - mean) / scale, evidence.present)
        weights, intercept = model.coef_[0], float(model.intercept_[0])
    return Classifier(
        names,
        tuple(mean.tolist()),
        tuple(scale.tolist()),
        tuple(weights.tolist()),
        intercept,
        tuple(map(tuple, prior.tolist())),
    )


def cross_fitted(evidence: Evidence, names: tuple[str, ...] = ALL_NAMES) -> np.ndarray:
    """P(mask not empty) of each frame by a classifier that saw none of its subject, (n,)."""
    result = np.zeros(len(evidence))
    for seen, unseen in parts(evidence.subjects):
        result[unseen] = fit(evidence.take(seen), names)(evidence.take(unseen))
    return result


def parts(subjects: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """(seen, unseen) row numbers of up to `CROSS` splits by subject; a single subject is split by frame."""
    count = len(np.unique(subjects))
    groups = subjects if count > 1 else np.arange(len(subjects))
    splitter = GroupKFold(min(CROSS, len(np.unique(groups))))
    return list(splitter.split(groups, groups=groups))


def _prior(evidence: Evidence) -> np.ndarray:
    """The mean true mask, 0 to 1, (height, width) of the coarse maps."""
    masks = evidence.true_maps[evidence.present]
    shape = evidence.true_maps.shape[1:]
    return np.round(masks.mean(axis=0) / 255, 4) if len(masks) else np.zeros(shape)


def _columns(evidence: Evidence, prior: np.ndarray, names: tuple[str, ...]) -> np.ndarray:
    maps = evidence.maps.reshape(len(evidence), -1).astype(np.float32)
    # Summed row by row, so that a frame gets the same number alone as among thousands.
    place = np.einsum("np,p->n", maps, prior.reshape(-1).astype(np.float32))
    values = np.column_stack([evidence.features, place / np.maximum(maps.sum(axis=1), 1)]).astype(float)
    # Contiguous rows are summed in one order, whatever the number of rows.
    return np.ascontiguousarray(values[:, [ALL_NAMES.index(name) for name in names]])
