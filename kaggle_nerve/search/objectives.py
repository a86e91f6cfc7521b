"""What a search maximises: a figure on out-of-fold frames, nested by patient."""

from dataclasses import dataclass
from typing import Any

from kaggle_nerve.decision.figures import Figures


@dataclass(frozen=True)
class Objective:
    """A figure of `Figures`. ``words``: its name in sentences. ``column``: column of a fold's history to prune by."""

    words: str
    column: str


OBJECTIVES = {
    "dice": Objective("mean Dice", "dice"),
    "present_dice": Objective("mean Dice of frames with a mask", "dice"),
    "kept_present_dice": Objective("mean Dice of frames with a mask, none dropped", "present_dice"),
    "presence_auc": Objective("presence AUC", "presence_auc"),
}

SHOWN = ("dice", "low", "high", "all_empty", "present_dice", "kept_present_dice", "presence_auc")
"""Fields of `Figures` that are stored with each trial."""


def shown_figures(figures: Figures) -> dict[str, Any]:
    """Return the fields `SHOWN`, with six digits after the point, None if unknown."""
    values = {name: getattr(figures, name) for name in SHOWN}
    return {name: None if value is None else round(value, 6) for name, value in values.items()}
