"""Calibration: probabilities that come true as often as they say, and how far they do.

Three ways, all fitted on counts: how many times each probability was given, and how many times it came
true. So a fit over a billion pixels costs what one over 256 numbers costs.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from kaggle_nerve.maps.blending import log_odds

METHODS = ("temperature", "platt", "isotonic")
BINS = 10
"""Bins of equal width in a reliability table."""


@dataclass(frozen=True)
class Calibration:
    """A rising curve through points: ``given`` and ``meant``, probabilities (points,), straight between them."""

    given: tuple[float, ...]
    meant: tuple[float, ...]

    def __call__(self, probability: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, of the same shape."""
        return np.interp(probability, self.given, self.meant)


def fit(method: str, given: np.ndarray, came_true: np.ndarray, times: np.ndarray) -> Calibration:
    """Calibrate ``given`` probabilities (n,), of which ``came_true`` (n,) of ``times`` (n,) were true.

    ``temperature`` divides the log-odds by one number (Guo et al., arXiv:1706.04599), ``platt`` also
    shifts them (Platt 1999), ``isotonic`` takes any rising curve (Zadrozny & Elkan 2002).
    """
    seen = times > 0
    given, came_true, times = given[seen], came_true[seen].astype(float), times[seen].astype(float)
    order = np.argsort(given, kind="stable")
    given, came_true, times = given[order], came_true[order], times[order]
    if method == "isotonic":
        curve = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
        meant = curve.fit(given, came_true / times, sample_weight=times).predict(given)
        return Calibration(tuple(given.tolist()), tuple(meant.tolist()))
    if not 0 < came_true.sum() < times.sum():
        # Nothing to tell apart: no finite slope fits.
        share = float(came_true.sum() / times.sum())
        return Calibration((0.0, 1.0), (share, share))
    shape = LogisticRegression(C=1e6, fit_intercept=method == "platt", max_iter=1000)
    odds = np.tile(log_odds(given), 2)[:, None]
    labels = np.repeat([1, 0], len(given))
    # The weights' scale changes the penalty alone, and large sums stop the solver early.
    weights = np.concatenate([came_true, times - came_true]) / times.sum() * len(given)
    shape.fit(odds, labels, sample_weight=weights)
    points = np.linspace(0, 1, 257)
    return Calibration(
        tuple(points.tolist()), tuple(shape.predict_proba(log_odds(points)[:, None])[:, 1].tolist())
    )


@dataclass(frozen=True)
class Reliability:
    """How well probabilities come true. ``table``: for each tenth of the range that occurs the mean given
    probability, the share that came true, and how many there were.

    ``error``: expected calibration error, the mean distance of the two, 0 to 1; ``brier``: mean squared
    distance from the truth; ``log_loss``: mean of -log(probability of what came true).
    """

    table: tuple[tuple[float, float, int], ...]
    error: float
    brier: float
    log_loss: float


def reliability(given: np.ndarray, came_true: np.ndarray, times: np.ndarray) -> Reliability:
    """The reliability of probabilities given ``times`` (n,) each, of which ``came_true`` (n,)."""
    times, came_true = times.astype(float), came_true.astype(float)
    total = times.sum()
    bins = np.minimum((given * BINS).astype(int), BINS - 1)
    count = np.bincount(bins, times, BINS)
    said, was = np.bincount(bins, given * times, BINS), np.bincount(bins, came_true, BINS)
    rows = [
        (float(said[at] / count[at]), float(was[at] / count[at]), int(count[at]))
        for at in np.flatnonzero(count)
    ]
    clipped = np.clip(given, 1e-7, 1 - 1e-7)
    surprise = -(came_true * np.log(clipped) + (times - came_true) * np.log1p(-clipped))
    squares = came_true * (1 - given) ** 2 + (times - came_true) * given**2
    return Reliability(
        tuple(rows),
        float(np.abs(said - was).sum() / total),
        float(squares.sum() / total),
        float(surprise.sum() / total),
    )
