"""Calibrate probabilities, and measure how well they are calibrated.

Temperature, Platt and isotonic calibration are fitted on counts: how often each probability was predicted, and
how often it came true. So a fit over a billion pixels costs no more than one over 256 numbers.
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
    """Piecewise linear, increasing map from ``raw`` to ``calibrated`` probabilities, both (points,)."""

    raw: tuple[float, ...]
    calibrated: tuple[float, ...]

    def __call__(self, probability: np.ndarray) -> np.ndarray:
        """Return the calibrated probabilities, of the same shape."""
        return np.interp(probability, self.raw, self.calibrated)


def fit(method: str, raw: np.ndarray, positives: np.ndarray, counts: np.ndarray) -> Calibration:
    """Fit a calibration to ``raw`` probabilities (n,) that came true in ``positives`` (n,) of ``counts`` (n,) cases.

    ``positives`` may be fractional, such as a Dice with a count of 1. ``temperature`` divides the log-odds by one
    number (Guo et al., arXiv:1706.04599), ``platt`` also shifts them (Platt 1999), ``isotonic`` fits any increasing
    curve (Zadrozny & Elkan 2002).
    """
    is_used = counts > 0
    raw, positives, counts = raw[is_used], positives[is_used].astype(float), counts[is_used].astype(float)
    order = np.argsort(raw, kind="stable")
    raw, positives, counts = raw[order], positives[order], counts[order]
    if method == "isotonic":
        curve = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
        calibrated = curve.fit(raw, positives / counts, sample_weight=counts).predict(raw)
        return Calibration(tuple(raw.tolist()), tuple(calibrated.tolist()))
    if not 0 < positives.sum() < counts.sum():
        # One class only: no finite slope fits.
        share = float(positives.sum() / counts.sum())
        return Calibration((0.0, 1.0), (share, share))
    model = LogisticRegression(C=1e6, fit_intercept=method == "platt", max_iter=1000)
    logits = np.tile(log_odds(raw), 2)[:, None]
    labels = np.repeat([1, 0], len(raw))
    # Rescaling the weights only changes the penalty, and large sums would stop the solver early.
    weights = np.concatenate([positives, counts - positives]) / counts.sum() * len(raw)
    model.fit(logits, labels, sample_weight=weights)
    points = np.linspace(0, 1, 257)
    return Calibration(
        tuple(points.tolist()), tuple(model.predict_proba(log_odds(points)[:, None])[:, 1].tolist())
    )


@dataclass(frozen=True)
class Reliability:
    """Reliability of probabilities. ``table``: for each non-empty tenth of the range, the mean probability, the
    share that came true, and the count.

    ``error``: expected calibration error, the count-weighted mean distance between mean probability and
    positive share, 0 to 1; ``brier``: mean squared
    distance from the truth; ``log_loss``: mean of -log(probability of the outcome).
    """

    table: tuple[tuple[float, float, int], ...]
    error: float
    brier: float
    log_loss: float


def reliability(probabilities: np.ndarray, positives: np.ndarray, counts: np.ndarray) -> Reliability:
    """Measure the reliability of ``probabilities`` (n,) that came true in ``positives`` (n,) of ``counts`` (n,)
    cases.
    """
    counts, positives = counts.astype(float), positives.astype(float)
    total = counts.sum()
    bins = np.minimum((probabilities * BINS).astype(int), BINS - 1)
    bin_counts = np.bincount(bins, counts, BINS)
    predicted = np.bincount(bins, probabilities * counts, BINS)
    actual = np.bincount(bins, positives, BINS)
    rows = [
        (
            float(predicted[index] / bin_counts[index]),
            float(actual[index] / bin_counts[index]),
            int(bin_counts[index]),
        )
        for index in np.flatnonzero(bin_counts)
    ]
    clipped = np.clip(probabilities, 1e-7, 1 - 1e-7)
    surprise = -(positives * np.log(clipped) + (counts - positives) * np.log1p(-clipped))
    squares = positives * (1 - probabilities) ** 2 + (counts - positives) * probabilities**2
    return Reliability(
        tuple(rows),
        float(np.abs(predicted - actual).sum() / total),
        float(squares.sum() / total),
        float(surprise.sum() / total),
    )
