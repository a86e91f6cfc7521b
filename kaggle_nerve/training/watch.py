"""Stops a run that no longer learns: NaN, all masks empty, all masks full."""

import math
from typing import Any

from kaggle_nerve.errors import NerveError


class CollapseError(NerveError):
    """The run has collapsed; the message says how, and what to change."""


def check(history: list[dict[str, Any]], epochs: int) -> None:
    """Look at the history (a row an epoch) after its last epoch; raises CollapseError.

    A run has collapsed when its loss is no number, or when for ``epochs`` epochs in a row every
    held-out mask was empty, or covered half the frame. An epoch that was not scored counts as the
    scored ones around it.
    """
    last = history[-1]
    if last["loss"] is None or not math.isfinite(last["loss"]):
        raise CollapseError(
            f"The loss became {last['loss']} in epoch {last['epoch']}; lower optimiser.learning_rate or set "
            f"optimiser.clip_norm=1."
        )
    empty, full = _in_a_row(history, "empty_share"), _in_a_row(history, "full_share")
    if empty >= epochs:
        raise CollapseError(
            f"Every predicted mask has been empty for {empty} epochs (now {last['epoch']}); start with more "
            f"frames that have a mask (training.positive_rate=0.8) or raise loss.bce."
        )
    if full >= epochs:
        raise CollapseError(
            f"Every predicted mask has covered half the frame or more for {full} epochs (now {last['epoch']}); "
            f"raise loss.bce or lower optimiser.learning_rate."
        )


def _in_a_row(history: list[dict[str, Any]], share: str) -> int:
    """From the first to the last of the latest scored epochs whose ``share`` is 1."""
    scored = [row for row in history if row.get(share) is not None]
    first = last = None
    for row in reversed(scored):
        if row[share] < 1:
            break
        last = last or row["epoch"]
        first = row["epoch"]
    return last - first + 1 if last else 0
