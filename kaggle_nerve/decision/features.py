"""Features of a frame's probability map, for a classifier of whether there is a nerve."""

from collections.abc import Sequence

import cv2
import numpy as np

from kaggle_nerve.maps import levels
from kaggle_nerve.maps.blending import log_odds

SHRINK = 4
"""Blobs are measured on maps of a quarter of the height and width: 105x145 for a full frame."""

COARSE = 20
"""The position of a blob is compared with true masks on maps of a twentieth: 21x29."""

TOP = 2000
"""Number of pixels in the ``top`` feature, fewer than the smallest true mask has (2684)."""

AREAS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Probability thresholds of the area features."""

NAMES = (
    "head",
    "maximum",
    "top",
    *(f"area{round(100 * value)}" for value in AREAS),
    "sharpness",
    "inside",
    "compactness",
    "largest",
    "agreement",
    "spread",
    "runs_agreement",
    "runs_spread",
)
"""Columns of `measure`. The classifier, which knows the training masks, adds the position relative to their mean.

``head``: log-odds of the head's presence
``maximum``: log-odds of the most probable pixel
``top``: log-odds of the mean probability of the `TOP` most probable pixels
``area10`` to ``area90``: square root of the area at each of `AREAS`, as a share of the median mask's area
``sharpness``: area at 0.7 as a share of the area at 0.3
``inside``: mean probability inside the mask at 0.5
``compactness``: 4 pi area / perimeter^2 of the largest blob of that mask
``largest``: share of that blob in the area of all blobs
``agreement`` and ``spread``: agreement of the views on the mask, and the spread of their presences
``runs_agreement`` and ``runs_spread``: the same of the runs
"""

MEDIAN_AREA = 6976


def measure(
    map_levels: np.ndarray,
    cut_areas: np.ndarray,
    presence: float,
    agreements: Sequence[float],
) -> np.ndarray:
    """Compute the features (len(NAMES),) of one frame, float32.

    ``map_levels``: uint8 (height, width); ``cut_areas``: pixels that reach each cut (257,); ``presence``:
    P(mask not empty) by the networks' heads; ``agreements``: agreement and spread of the views, then of the runs.
    """
    areas = {value: int(cut_areas[levels.cut(value)]) for value in AREAS}
    top_level = int(np.flatnonzero(cut_areas)[-1])
    return np.array(
        [
            log_odds(presence),
            log_odds(levels.probability(top_level)),
            log_odds(_top_mean(cut_areas)),
            *(np.sqrt(area / MEDIAN_AREA) for area in areas.values()),
            areas[0.7] / max(areas[0.3], 1),
            _inside(cut_areas, levels.cut(0.5)),
            *_blob(map_levels),
            *agreements,
        ],
        np.float32,
    )


def coarse(map_levels: np.ndarray) -> np.ndarray:
    """Shrink the map to a twentieth of its height and width, uint8."""
    return _shrink(map_levels, COARSE)


def _top_mean(cut_areas: np.ndarray) -> float:
    """Compute the mean probability of the `TOP` largest pixels."""
    # The sum of the top k levels is the sum over cuts of how many of the k reach each.
    return float(np.minimum(cut_areas[1:], TOP).sum() / TOP / (levels.COUNT - 1))


def _inside(cut_areas: np.ndarray, cut: int) -> float:
    area = int(cut_areas[cut])
    if not area:
        return 0.0
    return float((cut * area + cut_areas[cut + 1 :].sum()) / area / (levels.COUNT - 1))


def _blob(map_levels: np.ndarray) -> tuple[float, float]:
    """Compute the compactness of the largest blob, and its share of all blobs' area."""
    mask = (_shrink(map_levels, SHRINK) >= levels.cut(0.5)).astype(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return 0.0, 0.0
    areas = [cv2.contourArea(contour) for contour in contours]
    largest = int(np.argmax(areas))
    length = cv2.arcLength(contours[largest], closed=True)
    compactness = 4 * np.pi * areas[largest] / length**2 if length else 0.0
    return compactness, areas[largest] / max(sum(areas), 1e-9)


def _shrink(map_levels: np.ndarray, factor: int) -> np.ndarray:
    height, width = map_levels.shape
    size = (max(width // factor, 1), max(height // factor, 1))
    return cv2.resize(map_levels, size, interpolation=cv2.INTER_AREA)
