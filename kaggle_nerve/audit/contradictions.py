"""Contradictions: near-identical frames with conflicting labels, and the table that training reads.

Contradictory frames are not excluded from scores: that raised a public notebook's validation from 0.643 to
0.729, but lowered its private score from 0.669 to 0.666 (haochunchang).
"""

from typing import Any

import numpy as np
import pandas as pd

from kaggle_nerve.competition.metric import dice_of_texts
from kaggle_nerve.data.doubted import COLUMNS

AGAINST_NONE, DISAGREE = "mask against none", "outlines disagree"

APART = 2 / 3
"""Dice of two masks below which they disagree: fewer pixels are in both than in only one of them. Of 45 pairs of
real masks on twins (mean 0.82), 4 disagree: one outline includes a structure that the other excludes. Two random
masks of one patient have a mean of 0.41."""


def compare_labels(twins: pd.DataFrame, frames: pd.DataFrame) -> pd.DataFrame:
    """Add to ``twins`` the dice of their masks (1 if both are empty) and the kind of contradiction, or "".

    ``twins`` has row and other, the rows of ``frames`` (pixels, has_mask).
    """
    row, other = twins.row.to_numpy(int), twins.other.to_numpy(int)
    pixels, has_mask = frames.pixels.to_numpy(), frames.has_mask.to_numpy(bool)
    texts = zip(pixels[row], pixels[other], strict=True)
    dice = np.array([dice_of_texts(*pair) for pair in texts], float)
    differs = has_mask[row] != has_mask[other]
    kind = np.where(differs, AGAINST_NONE, np.where(dice < APART, DISAGREE, ""))
    return twins.assign(dice=dice, kind=kind)


def contradictions(labelled: pd.DataFrame, frames: pd.DataFrame) -> pd.DataFrame:
    """Select the contradictory pairs of ``labelled`` (see `compare_labels`), one finding per pair.

    Columns: kind, row, other, correlation, difference, dice, what (a sentence). For a mask against none,
    ``row`` has the mask, and the most similar pairs come first. For outlines, the worst Dice comes first.
    """
    pairs = labelled[labelled.kind != ""].copy()
    swapped = (pairs.kind == AGAINST_NONE) & ~frames.has_mask.to_numpy(bool)[pairs.row.to_numpy(int)]
    pairs.loc[swapped, ["row", "other"]] = pairs.loc[swapped, ["other", "row"]].to_numpy()
    sort_key = pairs.dice.where(pairs.kind == DISAGREE, 0)
    pairs = pairs.assign(apart=sort_key).sort_values(["kind", "apart"], kind="stable", ignore_index=True)
    pairs["what"] = [_sentence(pair, frames) for pair in pairs.itertuples()]
    return pairs[["kind", "row", "other", "correlation", "difference", "dice", "what"]]


def training_table(labelled: pd.DataFrame, frames: pd.DataFrame) -> pd.DataFrame:
    """Build the table of weights and targets for frames that a twin contradicts, with the columns of `doubted.read`.

    A frame and its twins form a group. Its presence target is the share of the group that has a mask; its
    weight is the share that does not contradict it. Twins of twins do not count: a chain of them can connect
    all frames of a patient.
    """
    row, other = labelled.row.to_numpy(int), labelled.other.to_numpy(int)
    has_mask = frames.has_mask.to_numpy(float)

    def of_twins(to_row: np.ndarray, to_other: np.ndarray) -> np.ndarray:
        return np.bincount(row, to_row, len(frames)) + np.bincount(other, to_other, len(frames))

    size = 1 + of_twins(np.ones(len(row)), np.ones(len(row)))
    against = (labelled.kind != "").to_numpy(float)
    contradicted = of_twins(against, against)
    presence = (has_mask + of_twins(has_mask[other], has_mask[row])) / size
    table = frames[["subject", "img"]].assign(weight=1 - contradicted / size, presence=presence).round(4)
    return table[contradicted > 0].reset_index(drop=True)[list(COLUMNS)]


def name_of(frame: Any) -> str:
    """Return a frame's name as in its file name, such as 8_56."""
    return f"{frame.subject}_{frame.img}"


def _sentence(pair: Any, frames: pd.DataFrame) -> str:
    frame, other = frames.loc[pair.row], frames.loc[pair.other]
    if pair.kind == AGAINST_NONE:
        labels = f"{name_of(frame)} has a mask of {frame.area} pixels, {name_of(other)} has none"
    else:
        labels = f"The masks of {name_of(frame)} and {name_of(other)} have a Dice of {pair.dice:.2f}"
    if not pair.difference:
        return f"{labels}; the frames are equal in every pixel."
    return f"{labels}; the frames correlate by {pair.correlation:.4f} and differ by {pair.difference:.2f} grey levels."
