"""Align probabilities with the edges of the image by a fully connected conditional random field.

P. Krähenbühl and V. Koltun, Efficient inference in fully connected CRFs with Gaussian edge potentials,
2011 (arXiv:1210.5644), for two labels and a grey image. Every pair of pixels i, j is joined by

    appearance_weight * exp(-|pi - pj|^2 / 2 position_deviation^2 - (Ii - Ij)^2 / 2 intensity_deviation^2)
    + smoothness_weight * exp(-|pi - pj|^2 / 2 smoothness_deviation^2)

where p is the position and I the grey level; this is the cost of different labels (Potts). Each kernel K
is normalised to D^-1/2 K D^-1/2 with D its row sums, so a weight is the amount that an agreeing
neighbourhood adds to a pixel's log-odds. With two labels, the mean field in terms of
m = 2 * probability - 1 is m = tanh((log-odds + sum of weight * K m) / 2). Unlike in the paper, a pixel is
its own neighbour: with the default settings, that is 4 % of its smoothness vote and mostly under 1 % of its
appearance vote, which is more where no nearby pixel has its grey level.
"""

from dataclasses import dataclass, fields

import cv2
import numpy as np

from kaggle_nerve.errors import NerveError
from kaggle_nerve.maps.blending import from_log_odds, log_odds

SPACING, REACH = 0.8, 1.5
"""Spacing of the filter's grid, and its extent beyond the values, in standard deviations."""


@dataclass(frozen=True)
class CrfSettings:
    """Settings of the CRF. ``position_deviation`` and ``smoothness_deviation``: standard deviations in pixels of the
    full image; ``intensity_deviation``: in grey levels; weights in log-odds. The field is computed at
    1 / ``shrink`` of the size.

    Raise NerveError for deviations that are not above 0, negative weights or iterations, or a shrink
    below 1.
    """

    position_deviation: float = 20.0
    intensity_deviation: float = 20.0
    appearance_weight: float = 1.0
    smoothness_deviation: float = 4.0
    smoothness_weight: float = 1.0
    iterations: int = 5
    shrink: int = 2

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("deviation"):
                fits, rule = 0 < value < np.inf, "above 0"
            elif field.name == "shrink":
                fits, rule = value >= 1, "at least 1"
            else:
                fits, rule = 0 <= value < np.inf, "not negative"
            if not fits:
                raise NerveError(f"The CRF's {field.name} is {value!r}; it has to be {rule}.")


def marginals(
    probability: np.ndarray,
    image: np.ndarray,
    settings: CrfSettings = CrfSettings(),
) -> np.ndarray:
    """Compute the marginal probabilities of the field, float32 (height, width), above 0 and below 1.

    ``probability``: float (height, width) from 0 to 1. ``image``: uint8 (height, width). With a shrink,
    the neighbours' votes are computed at the smaller size, enlarged, and added to the full-size log-odds,
    which keeps the detail of ``probability``. With no iterations, return ``probability``, clipped away
    from 0 and 1.

    Raise NerveError if the two sizes differ.
    """
    if probability.shape != image.shape or image.ndim != 2:
        raise NerveError(
            f"The CRF needs a probability map and a grey image of one size, got {probability.shape} and "
            f"{image.shape}."
        )
    logits = log_odds(np.asarray(probability, np.float32))
    if not settings.iterations:
        return from_log_odds(logits)
    height, width = image.shape
    small = max(1, round(height / settings.shrink)), max(1, round(width / settings.shrink))
    scale = small[0] / height, small[1] / width
    shrunk = _resize(np.asarray(probability, np.float32), small, cv2.INTER_AREA)
    kernels = _kernels(_resize(image.astype(np.float32), small, cv2.INTER_AREA), scale, settings)
    small_logits = log_odds(shrunk)
    field = np.tanh(small_logits / 2)
    votes = np.zeros_like(small_logits)
    for iteration in range(settings.iterations):
        if iteration:
            field = np.tanh((small_logits + votes) / 2)
        votes = np.zeros_like(small_logits)
        for weight, kernel in kernels:
            votes += weight * kernel(field)
    return from_log_odds(logits + _resize(votes, image.shape, cv2.INTER_LINEAR))


class _Appearance:
    """Appearance kernel's filter for one grey image: a bilateral grid with Gaussian weights.

    exp(-(a - b)^2 / 2 d^2) is, up to a factor, the integral over g of exp(-(a - g)^2 / d^2) *
    exp(-(b - g)^2 / d^2). As a sum over g ``SPACING`` * d apart it is exact to one part in a thousand, so
    the filter only needs to spread values to a grid and gather them with these weights, without a blur in
    between. Each of the three axes has its own grid.
    """

    def __init__(self, image: np.ndarray, deviations: tuple[float, float], intensity_deviation: float):
        self._row_weights, self._column_weights = (
            _gaussian_weights(np.arange(length, dtype=np.float32), deviation)
            for length, deviation in zip(image.shape, deviations, strict=True)
        )
        intensity_weights = _gaussian_weights(image.reshape(-1), intensity_deviation)
        self._intensity_weights = intensity_weights.reshape(-1, *image.shape)

    def __call__(self, values: np.ndarray) -> np.ndarray:
        result = np.zeros_like(values)
        # One bin at a time fits into the processor's cache.
        for weights in self._intensity_weights:
            cells = self._row_weights @ (weights * values) @ self._column_weights.T
            result += weights * (self._row_weights.T @ (cells @ self._column_weights))
        return result


class _Smoothness:
    """Smoothness kernel's filter: OpenCV's Gaussian, truncated at four standard deviations."""

    def __init__(self, deviations: tuple[float, float]):
        self._row_deviation, self._column_deviation = deviations

    def __call__(self, values: np.ndarray) -> np.ndarray:
        sigma_x, sigma_y = self._column_deviation, self._row_deviation
        size = [2 * int(np.ceil(4 * sigma)) + 1 for sigma in (sigma_x, sigma_y)]
        return cv2.GaussianBlur(values, size, sigmaX=sigma_x, sigmaY=sigma_y, borderType=cv2.BORDER_CONSTANT)


class _Normalised:
    def __init__(self, kernel: "_Appearance | _Smoothness", size: tuple[int, int]):
        self._kernel = kernel
        self._root = 1 / np.sqrt(kernel(np.ones(size, np.float32)))

    def __call__(self, values: np.ndarray) -> np.ndarray:
        return self._root * self._kernel(self._root * values)


def _kernels(
    image: np.ndarray, scale: tuple[float, float], settings: CrfSettings
) -> list[tuple[float, _Normalised]]:
    """Build the kernels with non-zero weights for the shrunk image; ``scale``: its size relative to the full image."""
    kernels = []
    if settings.appearance_weight:
        near = scale[0] * settings.position_deviation, scale[1] * settings.position_deviation
        appearance = _Appearance(image, near, settings.intensity_deviation)
        kernels.append((settings.appearance_weight, _Normalised(appearance, image.shape)))
    if settings.smoothness_weight:
        near = scale[0] * settings.smoothness_deviation, scale[1] * settings.smoothness_deviation
        kernels.append((settings.smoothness_weight, _Normalised(_Smoothness(near), image.shape)))
    return kernels


def _gaussian_weights(values: np.ndarray, deviation: float) -> np.ndarray:
    """Return the Gaussian weight of each value (n,) at each point of a grid, float32 (points, n)."""
    low, high = float(values.min()), float(values.max())
    points = np.arange(low - REACH * deviation, high + (REACH + SPACING) * deviation, SPACING * deviation)
    distances = values - points.astype(np.float32)[:, None]
    distances *= distances
    distances *= -1 / deviation**2
    # Several times as fast as np.exp.
    return cv2.exp(distances)


def _resize(values: np.ndarray, size: tuple[int, int], interpolation: int) -> np.ndarray:
    return values if values.shape == size else cv2.resize(values, size[::-1], interpolation=interpolation)
