"""Charts of labels and of training."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

WITH, WITHOUT = "#2a7f9e", "#c9ced6"
"""Frames with a mask, and without."""


def balance(frames: pd.DataFrame) -> Figure:
    """Frames with and without a mask of each subject; ``frames`` has subject and area (pixels)."""
    present = (frames.area > 0).groupby(frames.subject).agg(["sum", "count"]).sort_values("sum")
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    axes = figure.add_subplot()
    names = present.index.astype(str)
    axes.bar(names, present["sum"], color=WITH, label="with a mask")
    axes.bar(names, present["count"] - present["sum"], bottom=present["sum"], color=WITHOUT, label="without")
    axes.set(xlabel="subject", ylabel="frames")
    share = (frames.area > 0).mean()
    axes.set_title(f"{share:.1%} of {len(frames)} frames have a mask; by subject", loc="left")
    axes.tick_params(axis="x", labelsize=7)
    axes.legend(frameon=False, ncols=2, loc="lower right", bbox_to_anchor=(1, 1))
    return figure


def curves(histories: Mapping[int, pd.DataFrame]) -> Figure:
    """As `draw_curves`, a figure of its own."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    draw_curves(figure, histories)
    return figure


def draw_curves(figure: Figure, histories: Mapping[int, pd.DataFrame]) -> None:
    """Training loss and the competition's score of the held-out subjects, by fold.

    ``histories``: fold -> its history.csv, with epoch, loss and dice (NaN where an epoch was not scored).
    """
    loss, score = figure.subplots(1, 2)
    for fold, rows in histories.items():
        loss.plot(rows.epoch, rows.loss, label=f"fold {fold}")
        scored = rows[np.isfinite(rows.dice)]
        score.plot(scored.epoch, scored.dice, marker="o", markersize=3, label=f"fold {fold}")
    loss.set(xlabel="epoch", ylabel="training loss")
    score.set(xlabel="epoch", ylabel="mean Dice of held-out subjects")
    for axes in (loss, score):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.3)
    score.legend(frameon=False)
