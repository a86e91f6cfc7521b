"""Score held-out subjects with the competition's metric at full resolution after an epoch; detect collapse."""

import math
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from sklearn.metrics import roc_auc_score

from kaggle_nerve.competition import metric
from kaggle_nerve.devices import cores
from kaggle_nerve.errors import NerveError
from kaggle_nerve.maps.fullsize import Truths, enlarge
from kaggle_nerve.prediction.forward import probabilities

PIXEL_THRESHOLD = 0.5
"""Probability from which a pixel belongs to the mask."""

PRESENCE_GRID = np.round(np.arange(0.0, 0.96, 0.05), 2)
"""Presence thresholds to choose from for an epoch's score: early epochs are badly calibrated."""


@dataclass(frozen=True)
class EpochScore:
    """Scores of an epoch. ``dice``: the competition's metric at pixel threshold 0.5 and the best presence threshold.

    ``present_dice``: mean Dice over frames with a mask, without a presence threshold. ``presence_auc``:
    area under the ROC curve of the presence probability (NaN if all frames or none have a mask).
    ``empty_share``: share of frames whose mask, before the presence threshold, is empty. ``full_share``: share of
    frames whose mask covers at least half the frame.

    ``pixel_dice``, ``iou`` and ``pixel_accuracy`` pool all pixels of all frames, at pixel threshold 0.5
    and without a presence threshold; for conditional maps, at presence threshold 0.5. Papers tend to report
    these figures, but they are not comparable to the metric: large masks dominate, empty frames hardly count,
    and a network that never draws a mask already has an accuracy over 0.98.
    """

    dice: float
    present_dice: float
    presence_auc: float
    presence_threshold: float
    empty_share: float
    full_share: float
    pixel_dice: float
    iou: float
    pixel_accuracy: float


OnPrediction = Callable[[int, np.ndarray, float], None]
"""Callback with a frame's row, its probability map (height, width) at working size, and its presence."""


def score_epoch(
    model: keras.Model,
    frames: np.ndarray,
    truths: Truths,
    *,
    batch: int,
    conditional: bool = False,
    on_prediction: OnPrediction | None = None,
) -> EpochScore:
    """Predict ``frames`` (uint8, n x height x width) without augmentation and score them.

    ``conditional``: the maps are P(pixel | frame has a mask) (`LossSettings.empty_frames`). ``on_prediction``
    is called with every prediction; predictions are not kept.
    """
    areas = np.zeros(len(frames), int)
    intersections = np.zeros(len(frames), int)
    presence = np.zeros(len(frames))

    def count(row: int, mask: np.ndarray) -> None:
        area, intersection = truths.counts(row, enlarge(mask, truths.size), np.array([PIXEL_THRESHOLD]))
        areas[row], intersections[row] = area[0], intersection[0]

    start = 0
    # Threads: counting takes longer than predicting on a GPU.
    with ThreadPoolExecutor(cores()) as pool:
        for output in probabilities(model, frames, batch=batch, tta="none"):
            rows = range(start, start + len(output.masks))
            deque(pool.map(count, rows, output.masks), maxlen=0)
            presence[rows.start : rows.stop] = output.presence
            if on_prediction is not None:
                for row, mask in zip(rows, output.masks, strict=True):
                    on_prediction(row, mask, float(presence[row]))
            start = rows.stop
    return _score(areas, intersections, presence, truths, conditional)


def _score(
    areas: np.ndarray, shared: np.ndarray, presence: np.ndarray, truths: Truths, conditional: bool
) -> EpochScore:
    keeps_mask = presence[None, :] >= PRESENCE_GRID[:, None]
    means = metric.dice_of_counts(shared * keeps_mask, truths.areas, areas * keeps_mask).mean(axis=1)
    best = int(means.argmax())
    has_mask = truths.areas > 0
    unthresholded = metric.dice_of_counts(shared, truths.areas, areas)
    pooled = presence >= 0.5 if conditional else np.ones(len(truths), bool)
    shared_pixels, predicted_pixels, true_pixels = (
        int(shared[pooled].sum()),
        int(areas[pooled].sum()),
        int(truths.areas.sum()),
    )
    union = predicted_pixels + true_pixels - shared_pixels
    pixels = len(truths) * truths.size[0] * truths.size[1]
    return EpochScore(
        dice=float(means[best]),
        present_dice=float(unthresholded[has_mask].mean()) if has_mask.any() else float("nan"),
        presence_auc=float(roc_auc_score(has_mask, presence))
        if 0 < has_mask.sum() < len(has_mask)
        else float("nan"),
        presence_threshold=float(PRESENCE_GRID[best]),
        empty_share=float((areas == 0).mean()),
        full_share=float((areas >= truths.size[0] * truths.size[1] / 2).mean()),
        pixel_dice=2 * shared_pixels / (predicted_pixels + true_pixels) if union else 1.0,
        iou=shared_pixels / union if union else 1.0,
        pixel_accuracy=1 - (union - shared_pixels) / pixels,
    )


def rank(row: dict[str, Any]) -> tuple[float, float]:
    """Return a sort key of a history row, larger for a better epoch; minus infinity for an epoch without a score.

    Of epochs with the same ``dice`` the one with the higher ``present_dice`` is better: all that drop every mask
    score the share of empty frames, whatever their masks are like.
    """
    dice, present = row.get("dice"), row.get("present_dice")
    if dice is None:
        return -math.inf, 0.0
    return dice, present if present is not None and math.isfinite(present) else 0.0


FEW_MASKS = 0.1
"""Share of held-out frames with a mask below which a network may rightly draw none for many epochs."""


_ANOTHER = "another run (--run NAME)"
"""A run's settings never change, so advice to change one needs a new run."""


class CollapseError(NerveError):
    """Training has collapsed; the message says how and what to change."""


def check_collapse(history: list[dict[str, Any]], patience: int, mask_share: float) -> None:
    """Raise CollapseError if training has collapsed by the last epoch of ``history`` (one row per epoch).

    It has collapsed if the loss is not finite, or if every held-out mask was empty, or covered half the frame or
    more, for ``patience`` epochs in a row. An unscored epoch counts like the scored ones around it.
    ``mask_share``: share of the held-out frames that have a mask; below `FEW_MASKS`, empty masks are no collapse.
    """
    last = history[-1]
    if last["loss"] is None or not math.isfinite(last["loss"]):
        raise CollapseError(
            f"The loss became {last['loss']} in epoch {last['epoch']}; train {_ANOTHER}, with a lower "
            "optimiser.learning_rate or with --set optimiser.clip_norm=1."
        )
    empty, full = _in_a_row(history, "empty_share"), _in_a_row(history, "full_share")
    if empty >= patience and mask_share >= FEW_MASKS:
        raise CollapseError(
            f"Every predicted mask has been empty for the last {empty} epochs (to epoch {last['epoch']}); train "
            f"{_ANOTHER}, with more masks at first (--set training.positive_rate=0.8) or a higher loss.bce, or, "
            f"if it only needs longer, with a training.collapse_epochs above {patience}."
        )
    if full >= patience:
        raise CollapseError(
            f"Every predicted mask has covered half the frame or more for the last {full} epochs (to epoch "
            f"{last['epoch']}); train {_ANOTHER}, with a higher loss.bce or a lower optimiser.learning_rate."
        )


def _in_a_row(history: list[dict[str, Any]], share: str) -> int:
    """Return how many epochs the latest unbroken series of scored epochs with ``share`` 1 spans."""
    scored = [row for row in history if row.get(share) is not None]
    first = last = None
    for row in reversed(scored):
        if row[share] < 1:
            break
        last = last or row["epoch"]
        first = row["epoch"]
    return last - first + 1 if last else 0
