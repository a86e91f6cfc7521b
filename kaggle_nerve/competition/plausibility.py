"""Remarks on submissions that Kaggle would score but that cannot be meant: wrong pixel order, size, place or share.

The figures are those of the training masks, whose test set is alike: other subjects, same machine.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from kaggle_nerve.competition import rle
from kaggle_nerve.competition.facts import (
    HEIGHT,
    LARGEST_MASK,
    LEAST_RIGHT_EDGE,
    MEAN_MASK,
    SMALLEST_MASK,
    TRAIN_FRAMES,
    TRAIN_WITH_MASK,
    USUAL_COLUMNS,
    USUAL_ROWS,
    WIDTH,
)

Runs = tuple[np.ndarray, np.ndarray]
"""(starts, lengths) of one mask, as `rle.runs` returns them."""

ENOUGH = 50
"""Rows, and masks, below which a file says too little about its making."""

RARE = 0.1
"""Share of the masks that may be unlike every training mask without a remark."""

FAR = 0.2
"""Difference from the training set's share of masks that is remarked on."""


def remark(masks: Sequence[Runs], rows: int) -> list[str]:
    """Remark on the masks of a submission of ``rows`` frames; ``masks`` are those that are not empty."""
    if rows < ENOUGH:
        return []
    remarks = _on_share(len(masks), rows)
    if len(masks) < ENOUGH:
        return remarks
    if order := _on_size(masks) or _on_pixel_order(masks):
        # What follows would only repeat it in other words.
        return [*remarks, order]
    return [*remarks, *_on_areas(masks), *_on_place(masks), *_on_pieces(masks)]


def _on_share(count: int, rows: int) -> list[str]:
    share, usual = count / rows, TRAIN_WITH_MASK / TRAIN_FRAMES
    if abs(share - usual) <= FAR:
        return []
    return [f"{share:.1%} of the frames have a mask; of the training frames {usual:.1%} have one"]


def _on_pixel_order(masks: Sequence[Runs]) -> str | None:
    """Remark on runs along rows, the order of arrays in memory; swapped height and width give the same text.

    A mask overlaps itself moved by one pixel sideways: that is ``HEIGHT`` numbers further on, or ``WIDTH`` if the
    numbers go along rows.
    """
    along_rows = sum(_overlap(mask, WIDTH) > _overlap(mask, HEIGHT) for mask in masks)
    if along_rows <= len(masks) / 2:
        return None
    return (
        f"{along_rows} of {len(masks)} masks look like runs along rows, or like height and width swapped; the "
        f"competition numbers pixels down the columns of {HEIGHT}: encode the transposed mask"
    )


def _overlap(mask: Runs, shift: int) -> int:
    starts, lengths = mask
    return rle.intersection(mask, (starts + shift, lengths))


def _on_size(masks: Sequence[Runs]) -> str | None:
    """Remark if all masks lie at the left edge: their pixels were numbered in a smaller picture."""
    last = max(int(starts[-1] + lengths[-1] - 1) // HEIGHT for starts, lengths in masks)
    if last >= LEAST_RIGHT_EDGE:
        return None
    return (
        f"all {len(masks)} masks lie in the first {last + 1} of {WIDTH} columns, as if encoded at a smaller size; "
        f"enlarge each mask to {HEIGHT}x{WIDTH} (height x width) before encoding"
    )


def _on_areas(masks: Sequence[Runs]) -> list[str]:
    areas = np.array([lengths.sum() for _, lengths in masks])
    remarks = []
    for odd, word, limit in (
        (areas < SMALLEST_MASK, "smaller than the smallest", SMALLEST_MASK),
        (areas > LARGEST_MASK, "larger than the largest", LARGEST_MASK),
    ):
        if odd.mean() > RARE:
            remarks.append(
                f"{odd.sum()} of {len(masks)} masks are {word} training mask, {limit} pixels; the masks here have "
                f"{areas.min()} to {areas.max()}, on average {areas.mean():.0f} (in training {MEAN_MASK})"
            )
    return remarks


def _on_place(masks: Sequence[Runs]) -> list[str]:
    centres = np.array([_centre(mask) for mask in masks])
    row, column = np.median(centres, axis=0)
    if USUAL_ROWS[0] <= row <= USUAL_ROWS[1] and USUAL_COLUMNS[0] <= column <= USUAL_COLUMNS[1]:
        return []
    return [
        f"the masks' centres lie around row {row:.0f}, column {column:.0f}; those of the training masks lie in rows "
        "{} to {}, columns {} to {}".format(*USUAL_ROWS, *USUAL_COLUMNS)
    ]


def _centre(mask: Runs) -> tuple[float, float]:
    """Return the (row, column) of the centre, approximately: the mean of the middles of the runs, by length."""
    starts, lengths = mask
    columns, rows = np.divmod(starts + (lengths - 1) / 2, HEIGHT)
    # A run over the end of a column fills parts of two.
    rows[starts % HEIGHT + lengths > HEIGHT] = (HEIGHT - 1) / 2
    return float(np.average(rows, weights=lengths)), float(np.average(columns, weights=lengths))


def _on_pieces(masks: Sequence[Runs]) -> list[str]:
    broken = sum(_is_broken(mask) for mask in masks)
    if broken <= RARE * len(masks):
        return []
    return [
        f"{broken} of {len(masks)} masks are in more than one piece; of the training masks 1 in 100 is: keep each "
        "mask's largest piece"
    ]


def _is_broken(mask: Runs) -> bool:
    starts, lengths = mask
    first, last = int(starts[0]) // HEIGHT, int(starts[-1] + lengths[-1] - 1) // HEIGHT
    part = np.zeros((last - first + 1) * HEIGHT, np.uint8)
    rle.fill(part, starts - first * HEIGHT, lengths)
    pieces, _ = cv2.connectedComponents(part.reshape(-1, HEIGHT), connectivity=8)
    return pieces > 2
