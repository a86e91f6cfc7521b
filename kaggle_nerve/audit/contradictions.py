"""Contradictions: near-identical frames whose labels do not go together, and the table that training makes of them.

No frame is left out of a score for them: that took public code's validation from 0.643 to 0.729, and its
private score from 0.669 to 0.666 (haochunchang).
"""

from typing import Any

import numpy as np
import pandas as pd

from kaggle_nerve.competition.metric import dice_of_texts
from kaggle_nerve.data.doubted import COLUMNS

AGAINST_NONE, DISAGREE = "mask against none", "outlines disagree"

APART = 2 / 3
"""Dice of two masks below which they disagree: fewer pixels are in both than in one of them. Of 45 pairs of
real masks on twins (mean 0.82) that is so in 4: one outline takes in a structure that the other leaves out. Two
masks drawn at random from one patient have 0.41 on the mean."""


def compare_labels(twins: pd.DataFrame, frames: pd.DataFrame) -> pd.DataFrame:
    """``twins`` with dice of their masks (1 where both are empty) and kind: how they contradict, or "".

    ``twins`` has row and other, the rows of ``frames`` (pixels, has_mask).
    """
    row, other = twins.row.to_numpy(int), twins.other.to_numpy(int)
    pixels, has_mask = frames.pixels.to_numpy(), frames.has_mask.to_numpy(bool)
    texts = zip(pixels[row], pixels[other], strict=True)
    dice = np.array([dice_of_texts(*pair) for pair in texts], float)
    unlike = has_mask[row] != has_mask[other]
    kind = np.where(unlike, AGAINST_NONE, np.where(dice < APART, DISAGREE, ""))
    return twins.assign(dice=dice, kind=kind)


def contradictions(labelled: pd.DataFrame, frames: pd.DataFrame) -> pd.DataFrame:
    """The contradictory ones of ``labelled`` (see `compare_labels`), one finding a pair.

    Columns: kind, row, other, correlation, difference, dice, what (a sentence). Of a mask against none
    ``row`` has the mask; the likest pairs come first. Of outlines the worst Dice comes first.
    """
    found = labelled[labelled.kind != ""].copy()
    turned = (found.kind == AGAINST_NONE) & ~frames.has_mask.to_numpy(bool)[found.row.to_numpy(int)]
    found.loc[turned, ["row", "other"]] = found.loc[turned, ["other", "row"]].to_numpy()
    apart = found.dice.where(found.kind == DISAGREE, 0)
    found = found.assign(apart=apart).sort_values(["kind", "apart"], kind="stable", ignore_index=True)
    found["what"] = [_sentence(pair, frames) for pair in found.itertuples()]
    return found[["kind", "row", "other", "correlation", "difference", "dice", "what"]]


def training_table(labelled: pd.DataFrame, frames: pd.DataFrame) -> pd.DataFrame:
    """What training shall make of the frames that a twin contradicts, with the columns of `doubted.read`.

    A frame and its twins are a group. Its presence target is the share of the group that has a mask;
    its weight is the share that does not contradict it. Twins of twins do not count: from one to the
    next, a chain of them leads through all that a patient's probe saw.
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
    """A frame as its file is called, such as 8_56."""
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
