"""Results of a decision on each out-of-fold frame, saved beside the decision so that they need not be measured
again."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from kaggle_nerve.competition.metric import dice_of_counts
from kaggle_nerve.decision import shaping
from kaggle_nerve.decision.candidates import AREAS, THRESHOLDS, Learned, dice
from kaggle_nerve.decision.evidence import Evidence, measure
from kaggle_nerve.decision.shaping import Shaper
from kaggle_nerve.maps import levels
from kaggle_nerve.maps.fullsize import Truths
from kaggle_nerve.prediction.stored import Predictions
from kaggle_nerve.progress import SILENT, Reporter

MINIMUM_PRESENCES = tuple(np.round(np.arange(0.1, 0.95, 0.1), 1).tolist())
"""Columns of a `Surface` of conditional maps: minimum presences."""

COLUMNS = ["subject", "img", "area", "predicted_area", "presence", "dice"]


@dataclass(frozen=True)
class Surface:
    """Mean Dice (thresholds, columns) by pixel threshold (`THRESHOLDS`) and ``columns``, whose meaning is ``label``."""

    dice: np.ndarray
    columns: tuple[float, ...]
    label: str

    def as_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON."""
        return {"dice": self.dice.round(6).tolist(), "columns": list(self.columns), "label": self.label}


@dataclass(frozen=True)
class Review:
    """Review of a decision. ``frames``: a row for each out-of-fold frame, by subject and img, with `COLUMNS`: the
    pixels of the true and of the predicted mask, P(mask not empty), and the Dice. The decision was learned on the
    same frames, so their mean Dice is the in-sample figure.

    ``surface``: mean Dice by pixel threshold and minimum area (conditional maps: minimum presence), without shape.
    """

    frames: pd.DataFrame
    surface: Surface


def review(
    stored: Predictions,
    truths: Truths,
    learned: Learned,
    shaper: Shaper,
    *,
    evidence: Evidence | None = None,
    reporter: Reporter = SILENT,
    workers: int = 2,
) -> Review:
    """Return the review of a decision: decide and score every frame of ``stored``.

    ``evidence``: the result of `measure` for these frames; None: measure here.
    """
    options: dict[str, Any] = {"reporter": reporter, "workers": workers}
    evidence = evidence or measure(stored, truths, **options)[0]
    cuts, rows = learned.cuts(evidence), np.arange(len(evidence))
    areas, intersections = evidence.cut_areas[rows, cuts], evidence.cut_intersections[rows, cuts]
    if shaper.steps:
        areas, intersections = (
            counts[0] for counts in shaping.counts(stored, truths, cuts, lambda row: [shaper], **options)
        )
    presence = learned.presence(evidence)
    frames = stored.table[["subject", "img"]].assign(
        area=truths.areas,
        predicted_area=areas,
        presence=presence,
        dice=dice_of_counts(intersections, truths.areas, areas),
    )
    return Review(frames, _surface(evidence, presence if stored.is_conditional else None))


def select_rows(stored: Predictions, rows: np.ndarray) -> Predictions:
    """Select the predictions of some rows."""
    return replace(
        stored,
        table=stored.table.iloc[rows],
        presences=stored.presences[rows],
        rows=tuple(places[rows] for places in stored.rows),
    )


def _surface(evidence: Evidence, presence: np.ndarray | None) -> Surface:
    """Score thresholds by minimum area, or, if ``presence`` (n,) is given, by minimum presence."""
    empty = np.where(evidence.present, 0.0, 1.0)
    columns = AREAS if presence is None else MINIMUM_PRESENCES
    rows = []
    for threshold in THRESHOLDS:
        cut = levels.cut(threshold)
        dice_values = dice(evidence, np.full(len(evidence), cut))
        kept_by = evidence.cut_areas[:, cut] if presence is None else presence
        rows.append([np.where(kept_by >= minimum, dice_values, empty).mean() for minimum in columns])
    return Surface(
        np.array(rows), columns, "minimum area (pixels)" if presence is None else "minimum presence"
    )
