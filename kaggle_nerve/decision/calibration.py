"""Calibrate probabilities, and measure how well they are calibrated.

All three methods are fitted on counts: how often each probability was predicted, and how often it came
true. So a fit over a billion pixels costs no more than one over 256 numbers.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from kaggle_nerve.maps.blending import log_odds

METHODS = ("temperature", "platt", "isotonic")
BINS = 10
"""Number of bins of equal width in a reliability table."""


@dataclass(frozen=True)
class Calibration:
    """Piecewise linear, increasing map from probabilities ``given`` to calibrated ones ``meant``, both (points,)."""

    given: tuple[float, ...]
    meant: tuple[float, ...]

    def __call__(self, probability: np.ndarray) -> np.ndarray:
        """Return the calibrated probabilities, of the same shape."""
        return np.interp(probability, self.given, self.meant)


def fit(method: str, given: np.ndarray, came_true: np.ndarray, times: np.ndarray) -> Calibration:
    """Fit a calibration to probabilities ``given`` (n,), true in ``came_true`` (n,) of ``times`` (n,) cases.

    ``temperature`` divides the log-odds by one number (Guo et al., arXiv:1706.04599), ``platt`` also
    shifts them (Platt 1999), ``isotonic`` fits any increasing curve (Zadrozny & Elkan 2002).
    """
    occurs = times > 0
    given, came_true, times = given[occurs], came_true[occurs].astype(float), times[occurs].astype(float)
    order = np.argsort(given, kind="stable")
    given, came_true, times = given[order], came_true[order], times[order]
    if method == "isotonic":
        curve = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
        meant = curve.fit(given, came_true / times, sample_weight=times).predict(given)
        return Calibration(tuple(given.tolist()), tuple(meant.tolist()))
    if not 0 < came_true.sum() < times.sum():
        # One class only: no finite slope fits.
        share = float(came_true.sum() / times.sum())
        return Calibration((0.0, 1.0), (share, share))
    shape = LogisticRegression(C=1e6, fit_intercept=method == "platt", max_iter=1000)
    odds = np.tile(log_odds(given), 2)[:, None]
    labels = np.repeat([1, 0], len(given))
    # Rescaling the weights only changes the penalty, and large sums would stop the solver early.
    weights = np.concatenate([came_true, times - came_true]) / times.sum() * len(given)
    shape.fit(odds, labels, sample_weight=weights)
    points = np.linspace(0, 1, 257)
    return Calibration(
        tuple(points.tolist()), tuple(shape.predict_proba(log_odds(points)[:, None])[:, 1].tolist())
    )


@dataclass(frozen=True)
class Reliability:
    """Reliability of probabilities. ``table``: for each non-empty tenth of the range, the mean probability, the
    share that came true, and the count.

    ``error``: expected calibration error, the mean distance of the two, 0 to 1; ``brier``: mean squared
    distance from the truth; ``log_loss``: mean of -log(probability of the outcome).
    """

    table: tuple[tuple[float, float, int], ...]
    error: float
    brier: float
    log_loss: float


def reliability(given: np.ndarray, came_true: np.ndarray, times: np.ndarray) -> Reliability:
    """Measure the reliability of probabilities ``given`` (n,), true in ``came_true`` (n,) of ``times`` (n,) cases."""
    times, came_true = times.astype(float), came_true.astype(float)
    total = times.sum()
    bins = np.minimum((given * BINS).astype(int), BINS - 1)
    count = np.bincount(bins, times, BINS)
    predicted, actual = np.bincount(bins, given * times, BINS), np.bincount(bins, came_true, BINS)
    rows = [
        (float(predicted[place] / count[place]), float(actual[place] / count[place]), int(count[place]))
        for place in np.flatnonzero(count)
    ]
    clipped = np.clip(given, 1e-7, 1 - 1e-7)
    surprise = -(came_true * np.log(clipped) + (times - came_true) * np.log1p(-clipped))
    squares = came_true * (1 - given) ** 2 + (times - came_true) * given**2
    return Reliability(
        tuple(rows),
        float(np.abs(predicted - actual).sum() / total),
        float(squares.sum() / total),
        float(surprise.sum() / total),
    )
