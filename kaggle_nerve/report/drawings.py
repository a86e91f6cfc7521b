"""Draw the page's charts as SVG in the page's text colour, so that they are readable in light and dark mode."""

import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from kaggle_nerve.decision.candidates import THRESHOLDS
from kaggle_nerve.decision.figures import Figures
from kaggle_nerve.pictures.charts import draw_curves
from kaggle_nerve.report.gather import FoldRow, OutOfFold, TestFrames

INK = "#012345"
"""Placeholder for the page's text colour while the SVG is drawn."""

BLUE, ORANGE, GREY, RED = "#3b8ec2", "#e0912f", "#9aa3ad", "#c8553d"

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "kaggle-nerve",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.alpha": 0.2,
    "legend.frameon": False,
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color", "grid.color"), INK
    ),
}


def svg(draw: Callable[[Figure], None], width: float = 5.2, height: float = 3.0) -> str:
    """Return an SVG element of the figure, ``width`` x ``height`` inches, that ``draw`` fills."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, dpi=120, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # The page sets the size; the viewBox keeps the proportions.
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    return re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL).replace(INK, "currentColor")


def curves(folds: list[FoldRow]) -> str:
    """Plot loss and score of each fold by epoch."""
    histories = {str(fold.number): fold.history for fold in folds if fold.history is not None}
    return svg(lambda figure: draw_curves(figure, histories), 10.6, 3.2)


def bounds(figures: Figures) -> str:
    """Plot the score between those of an all-empty file and of perfect presence."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        rows = [
            ("all-empty", figures.all_empty, GREY),
            ("out-of-fold", figures.dice, BLUE),
            ("perfect presence", figures.perfect_presence, GREY),
        ]
        _bars(axes, rows, "{:.4f}")
        # With a single patient all three are equal up to rounding, which may make a length negative.
        bars = np.clip([[figures.dice - figures.low], [figures.high - figures.dice]], 0, None)
        axes.errorbar([figures.dice], [1], xerr=bars, color=INK, capsize=4)
        axes.set(xlim=(0, 1), xlabel="mean Dice (95 % over patients)")

    return svg(draw, 5.2, 1.9)


def subjects(oof: OutOfFold) -> str:
    """Plot each subject's mean Dice beside its all-empty score."""
    table = oof.frames.assign(all_empty=(oof.frames.area == 0).astype(float))
    means = table.groupby("subject")[["dice", "all_empty"]].mean().sort_values("dice")

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        names = means.index.astype(str)
        axes.bar(names, means.dice, color=BLUE, label="this run")
        axes.plot(
            names, means.all_empty, "_", color=ORANGE, markersize=9, markeredgewidth=2, label="all-empty"
        )
        axes.set(xlabel="subject", ylabel="mean Dice", ylim=(0, 1))
        axes.tick_params(axis="x", labelsize=7)
        axes.margins(x=0.01)
        axes.grid(axis="x", visible=False)
        axes.legend(ncols=2, loc="lower right", bbox_to_anchor=(1, 1), fontsize=8)

    return svg(draw, 10.6, 3.0)


def roc(oof: OutOfFold) -> str:
    """Plot the ROC curve of presence, and the point of the decision's verdicts."""
    present, predicted = oof.frames.area > 0, oof.frames.predicted_area > 0

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        false, true, _ = roc_curve(present, oof.frames.presence)
        axes.plot(false, true, color=BLUE)
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1)
        axes.plot(
            [predicted[~present].mean()], [predicted[present].mean()], "o", color=ORANGE, label="the verdicts"
        )
        axes.set(xlabel="empty frames that get a mask", ylabel="frames with a mask that get one")
        axes.legend(fontsize=8, loc="lower right")

    return svg(draw)


def reliability(oof: OutOfFold) -> str:
    """Plot how well presence is calibrated, raw from the heads and after the classifier."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1)
        for source, colour in (("raw", BLUE), ("classifier", ORANGE)):
            calibration = oof.decision.reliability["presence"][source]
            predicted, observed, _ = zip(*calibration.table, strict=True)
            label = f"{source}, error {calibration.error:.3f}"
            axes.plot(
                predicted,
                observed,
                marker="o",
                markersize=4,
                color=colour,
                label=label,
            )
        axes.set(xlabel="presence given", ylabel="share that has a mask", xlim=(0, 1), ylim=(0, 1))
        axes.legend(fontsize=8)

    return svg(draw)


def dice_by_area(oof: OutOfFold) -> str:
    """Plot Dice of frames with a mask by mask area."""
    rows = oof.frames[oof.frames.area > 0]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        # Rasterised: thousands of points would be thousands of SVG elements.
        axes.scatter(rows.area, rows.dice, s=6, alpha=0.35, color=BLUE, linewidths=0, rasterized=True)
        axes.set(xlabel="area of the true mask (pixels)", ylabel="Dice", ylim=(-0.03, 1.03))

    return svg(draw)


def surface(oof: OutOfFold) -> str:
    """Plot mean Dice by pixel threshold and by minimum area or presence."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        values, columns = oof.surface.dice, oof.surface.columns
        image = axes.imshow(values, origin="lower", aspect="auto", cmap="viridis")
        axes.set_xticks(range(len(columns)), [f"{value:g}" for value in columns], fontsize=7)
        axes.set_yticks(range(len(THRESHOLDS)), [f"{value:g}" for value in THRESHOLDS], fontsize=7)
        best = np.unravel_index(values.argmax(), values.shape)
        axes.plot(best[1], best[0], "*", color="white", markersize=12, markeredgecolor="black")
        axes.set(xlabel=oof.surface.label, ylabel="pixel threshold")
        axes.grid(visible=False)
        figure.colorbar(image, ax=axes, label="mean Dice")

    return svg(draw)


def shares(oof: OutOfFold, test: TestFrames) -> str:
    """Plot the share of frames with a mask: true and predicted in training, predicted in the test set."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        figures = oof.decision.figures
        rows = [
            ("training, true", figures.true_share, GREY),
            ("training, predicted", figures.predicted_share, BLUE),
            ("test, predicted", (test.frames.predicted != "").mean(), ORANGE),
        ]
        _bars(axes, rows, "{:.1%}")
        axes.set(xlim=(0, max(0.6, *(value for _, value, _ in rows))), xlabel="share of frames with a mask")

    return svg(draw, 5.2, 1.9)


def _bars(axes: Axes, rows: list[tuple[str, float, str]], template: str) -> None:
    """Draw a labelled bar per name, value and colour, from bottom to top."""
    names, values, colours = zip(*rows, strict=True)
    axes.barh(names, values, color=colours)
    for position, value in enumerate(values):
        axes.text(0.008, position, template.format(value), va="center", color="white", fontweight="bold")
    axes.grid(axis="y", visible=False)
