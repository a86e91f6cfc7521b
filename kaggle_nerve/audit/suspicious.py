"""Masks to look at: tiny ones, ones in several pieces or with holes, ones out of the usual place.

What is usual is what the other masks are, by medians and median absolute deviations, which a few
faulty masks do not move. A find is no fault: the masks are an expert's. See also
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
"""Deviations of the logarithm of the area below its median from which a mask is tiny: 5 of 1831 real masks,
those of less than 3420 pixels."""

FAR = 6.0
"""Deviations from the subject's median centre from which a mask is out of place: 14 of 1831 real masks; at 5
it would be twice as many."""

FEWEST = 10
"""Masks without which nothing is usual."""

FEWEST_OF_SUBJECT = 5
"""Masks without which a subject has no usual place of its own; it is then that of all masks."""

_SCALE = 1.4826
"""Median absolute deviation to standard deviation, for normal scatter."""


def suspicious(frames: pd.DataFrame) -> pd.DataFrame:
    """The masks of ``frames`` (subject, img, pixels, has_mask, area) that are to be looked at.

    Columns: kind, row (of ``frames``), what (a sentence); the oddest of each kind first. A mask may have
    several rows, one a kind.
    """
    masks = frames[frames.has_mask]
    shapes = [_shape(text) for text in masks.pixels]
    measured = pd.DataFrame(shapes, columns=["y", "x", "pieces", "holes"], index=masks.index)
    masks = masks.assign(**measured, smallness=0.0, distance=0.0)
    if len(masks) >= FEWEST:
        masks = masks.assign(smallness=_smallness(masks), distance=_distance(masks))
    usual = masks.area.median()
    found = [
        *_rows(
            TINY, masks, "smallness", SMALL, lambda mask: f"{mask.area} pixels, the median is {usual:.0f}"
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
    return pd.DataFrame(found, columns=["kind", "row", "what"])


def _rows(
    kind: str, masks: pd.DataFrame, column: str, least: float, says: Callable[..., str]
) -> list[tuple[str, int, str]]:
    odd = masks[masks[column] >= least].sort_values(column, ascending=False, kind="stable")
    return [(kind, mask.Index, f"The mask of {name_of(mask)} has {says(mask)}.") for mask in odd.itertuples()]


def _shape(text: str) -> tuple[float, float, int, int]:
    """Centre (row, column), number of pieces and number of holes of a mask that is not empty.

    Pixels that touch at a corner are joined; background that does so is not.
    """
    mask = cv2.copyMakeBorder(rle.decode(text), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    left, top, width, height = cv2.boundingRect(mask)
    box = mask[top - 1 : top + height + 1, left - 1 : left + width + 1]
    rows, columns = np.nonzero(box)
    pieces = cv2.connectedComponents(box, connectivity=8)[0] - 1
    holes = cv2.connectedComponents(1 - box, connectivity=4)[0] - 2
    # Two pixels of border, the mask's own and the box's.
    return rows.mean() + top - 2, columns.mean() + left - 2, pieces, holes


def _smallness(masks: pd.DataFrame) -> np.ndarray:
    """Deviations by which the logarithm of each area lies below its median; at least 5 % count as one."""
    logarithm = np.log(masks.area.to_numpy(float))
    below = np.median(logarithm) - logarithm
    return below / max(_SCALE * np.median(abs(below)), 0.05)


def _distance(masks: pd.DataFrame) -> np.ndarray:
    """Deviations between each mask's centre and the usual one of its subject; at least a pixel counts as one."""
    centres = masks[["y", "x"]]
    of_subject = centres.groupby(masks.subject)
    apart = (centres - of_subject.transform("median")).to_numpy()
    overall = (centres - centres.median()).to_numpy()
    own = masks.subject.map(masks.subject.value_counts()).to_numpy() >= FEWEST_OF_SUBJECT
    among_own = _deviation(apart[own]) if own.any() else 1.0
    return np.hypot(*np.where(own[:, None], apart / among_own, overall / _deviation(overall)).T)


def _deviation(apart: np.ndarray) -> np.ndarray:
    return np.maximum(_SCALE * np.median(abs(apart), axis=0), 1.0)
