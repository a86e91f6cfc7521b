"""Find suspicious masks: tiny ones, ones in several pieces or with holes, ones in an unusual place.

The reference is the other masks' medians and median absolute deviations, which are robust to a few faulty
masks. A finding need not be an error: the masks are an expert's. See also
`kaggle_nerve.audit.contradictions`.
"""

from collections.abc import Callable

import cv2
import numpy as np
import pandas as pd

from kaggle_nerve.audit.contradictions import name_of
from kaggle_nerve.competition import rle

TINY, PIECES, HOLES, PLACE = "tiny mask", "several pieces", "holes", "unusual place"

SMALL = 3.0
"""Minimum deviations of a tiny mask's log area below the median: 5 of 1831 real masks, those of less than
3420 pixels."""

FAR = 6.0
"""Minimum deviations of a misplaced mask from the subject's median centre: 14 of 1831 real masks; at 5 it would
be twice as many."""

FEWEST = 10
"""Minimum number of masks for a reference."""

FEWEST_OF_SUBJECT = 5
"""Minimum number of masks for a subject's own usual place; below it, that of all masks is used."""

_SCALE = 1.4826
"""Factor from median absolute deviation to standard deviation for a normal distribution."""


def suspicious(frames: pd.DataFrame) -> pd.DataFrame:
    """Find the suspicious masks of ``frames`` (subject, img, pixels, has_mask, area).

    Columns: kind, row (of ``frames``), what (a sentence); the most extreme of each kind first. A mask may
    have several rows, one per kind.
    """
    masks = frames[frames.has_mask]
    shapes = [_shape(text) for text in masks.pixels]
    shape_columns = pd.DataFrame(shapes, columns=["y", "x", "pieces", "holes"], index=masks.index)
    masks = masks.assign(**shape_columns, smallness=0.0, distance=0.0)
    if len(masks) >= FEWEST:
        masks = masks.assign(smallness=_smallness(masks), distance=_distance(masks))
    median_area = masks.area.median()
    findings = [
        *_rows(
            TINY,
            masks,
            "smallness",
            SMALL,
            lambda mask: f"{mask.area} pixels, the median is {median_area:.0f}",
        ),
        *_rows(PIECES, masks, "pieces", 2, lambda mask: f"{mask.pieces} separate pieces"),
        *_rows(HOLES, masks, "holes", 1, lambda mask: f"{mask.holes} hole{'s' * (mask.holes > 1)}"),
        *_rows(
            PLACE,
            masks,
            "distance",
            FAR,
            lambda mask: (
                f"its centre at row {mask.y:.0f}, column {mask.x:.0f}, {mask.distance:.1f} deviations from usual"
            ),
        ),
    ]
    return pd.DataFrame(findings, columns=["kind", "row", "what"])


def _rows(
    kind: str, masks: pd.DataFrame, column: str, least: float, describe: Callable[..., str]
) -> list[tuple[str, int, str]]:
    outliers = masks[masks[column] >= least].sort_values(column, ascending=False, kind="stable")
    return [
        (kind, mask.Index, f"The mask of {name_of(mask)} has {describe(mask)}.")
        for mask in outliers.itertuples()
    ]


def _shape(text: str) -> tuple[float, float, int, int]:
    """Measure centre (row, column), number of pieces and number of holes of a mask that is not empty.

    Mask pixels that touch at a corner are connected; background pixels are not.
    """
    mask = cv2.copyMakeBorder(rle.decode(text), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    left, top, width, height = cv2.boundingRect(mask)
    box = mask[top - 1 : top + height + 1, left - 1 : left + width + 1]
    rows, columns = np.nonzero(box)
    pieces = cv2.connectedComponents(box, connectivity=8)[0] - 1
    holes = cv2.connectedComponents(1 - box, connectivity=4)[0] - 2
    # Subtract two pixels of border: the mask's and the box's.
    return rows.mean() + top - 2, columns.mean() + left - 2, pieces, holes


def _smallness(masks: pd.DataFrame) -> np.ndarray:
    """Compute by how many deviations each log area is below the median; a deviation is at least 5 %."""
    logarithm = np.log(masks.area.to_numpy(float))
    below = np.median(logarithm) - logarithm
    return below / max(_SCALE * np.median(abs(below)), 0.05)


def _distance(masks: pd.DataFrame) -> np.ndarray:
    """Compute each centre's distance from its subject's usual one in deviations; a deviation is at least a pixel."""
    centres = masks[["y", "x"]]
    of_subject = centres.groupby(masks.subject)
    from_subject = (centres - of_subject.transform("median")).to_numpy()
    from_all = (centres - centres.median()).to_numpy()
    has_own = masks.subject.map(masks.subject.value_counts()).to_numpy() >= FEWEST_OF_SUBJECT
    subject_deviation = _deviation(from_subject[has_own]) if has_own.any() else 1.0
    return np.hypot(
        *np.where(has_own[:, None], from_subject / subject_deviation, from_all / _deviation(from_all)).T
    )


def _deviation(distances: np.ndarray) -> np.ndarray:
    return np.maximum(_SCALE * np.median(abs(distances), axis=0), 1.0)
