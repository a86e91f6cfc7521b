"""Charts of labels, of training and of submissions."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

WITH, WITHOUT = "#2a7f9e", "#c9ced6"
"""Colours of frames with a mask, and without."""

SIDES = {"public": ("#2a7f9e", "o"), "private": ("#d1603d", "D")}
"""Colour and marker of the leaderboard's two sides."""


def balance(frames: pd.DataFrame) -> Figure:
    """Plot each subject's frames with and without a mask; ``frames`` has subject and area (pixels)."""
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


def read_history(path: Path) -> pd.DataFrame | None:
    """Read a fold's history.csv; None if it is missing or has no epochs."""
    try:
        history = pd.read_csv(path)
    except (FileNotFoundError, pd.errors.EmptyDataError):
        return None
    return None if history.empty else history


def curves(histories: Mapping[str, pd.DataFrame]) -> Figure:
    """Plot `draw_curves` in a new figure."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    draw_curves(figure, histories)
    return figure


def draw_curves(figure: Figure, histories: Mapping[str, pd.DataFrame]) -> None:
    """Plot training loss and the competition's metric on the held-out subjects, by fold.

    ``histories``: fold -> its history.csv, with epoch, loss and dice (NaN for unscored epochs).
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


def scores(submitted: pd.DataFrame) -> Figure:
    """Plot submissions' leaderboard scores against their out-of-fold estimates.

    ``submitted``: run, oof, oof_low, oof_high, public, private; NaN for unknown figures. On the diagonal,
    the score equals the estimate; bars are its interval over patients.
    """
    figure = Figure(figsize=(6.4, 6.4), layout="constrained")
    axes = figure.add_subplot()
    for side, (colour, marker) in SIDES.items():
        rows = submitted[submitted[side].notna() & submitted.oof.notna()]
        low, high = rows.oof - rows.oof_low.fillna(rows.oof), rows.oof_high.fillna(rows.oof) - rows.oof
        bars = np.clip([low, high], 0, None)
        axes.errorbar(
            rows.oof, rows[side], xerr=bars, fmt=marker, color=colour, ecolor=f"{colour}55", label=side
        )
    _square(axes)
    _label(axes, submitted)
    axes.set(xlabel="out-of-fold mean Dice (95 % over patients)", ylabel="score on the leaderboard")
    axes.legend(frameon=False, loc="upper left")
    axes.grid(alpha=0.3)
    return figure


def _square(axes: Axes) -> None:
    """Use the same range for both axes, and draw the diagonal."""
    limits = [*axes.get_xlim(), *axes.get_ylim()]
    low, high = min(limits), max(limits)
    axes.plot([low, high], [low, high], color="#888888", linewidth=1, linestyle="--", zorder=0)
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")


def _label(axes: Axes, submitted: pd.DataFrame) -> None:
    """Label each submission's higher score with the run's name; once for a file submitted repeatedly."""
    height = submitted[list(SIDES)].max(axis=1)
    labelled = submitted.assign(height=height).dropna(subset=["oof", "height"])
    for row in labelled.drop_duplicates(["run", "oof", "height"]).itertuples():
        axes.annotate(
            row.run, (row.oof, row.height), (0, 7), textcoords="offset points", ha="center", fontsize=8
        )
