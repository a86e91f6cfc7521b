"""Plots of a search: what it reached, which settings mattered, and where the good trials lie."""

import math
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import numpy as np
import optuna
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from optuna.importance import FanovaImportanceEvaluator, get_param_importances

from kaggle_nerve.report.drawings import BLUE, GREY, INK, ORANGE, STYLE
from kaggle_nerve.search.objectives import OBJECTIVES
from kaggle_nerve.search.space import Choices, value_text
from kaggle_nerve.search.table import Outcome, Row
from kaggle_nerve.storage import atomic_path

FEW = 3
"""Finished trials without which settings cannot be compared."""

Draw = Callable[[Figure], None]


def history(outcome: Outcome) -> Draw:
    """Plot each trial's value by its number, the best so far, and the best settings' second training."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        rows = sorted(outcome.rows, key=lambda row: row.number)
        finished = [row for row in rows if row.state == "finished"]
        numbers, values = [row.number for row in finished], [row.value or 0.0 for row in finished]
        axes.step(numbers, np.maximum.accumulate(values), where="post", color=BLUE, label="best so far")
        axes.plot(numbers, values, "o", color=BLUE, markersize=5, label="finished")
        for state, marker in (("pruned", "x"), ("failed", "1")):
            if others := [row.number for row in rows if row.state == state]:
                # Below the values: their last scores are of other epochs.
                below = axes.get_xaxis_transform()
                axes.plot(others, [0.04] * len(others), marker, color=GREY, transform=below, label=state)
        if outcome.preset and outcome.preset.figures:
            axes.axhline(
                outcome.preset.value or 0.0, color=GREY, linestyle="--", linewidth=1, label="the preset"
            )
        axes.plot(
            [outcome.best.number],
            [outcome.again[outcome.search.objective]],
            "*",
            color=ORANGE,
            markersize=12,
            label=f"trial {outcome.best.number} with another seed",
        )
        axes.set(xlabel="trial", ylabel=OBJECTIVES[outcome.search.objective].words)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        figure.legend(loc="outside upper left", ncols=6, fontsize=8)

    return draw


def importance(outcome: Outcome, study: optuna.Study) -> Draw:
    """Plot the share of each setting in the variance of the value, by a forest fitted to the finished trials."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        if len(_finished(outcome)) < FEW:
            _explain(axes)
            return
        shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
        names = [outcome.search.space.label(key) for key in reversed(shares)]
        values = list(reversed(shares.values()))
        axes.barh(names, values, color=BLUE, height=0.6)
        for place, value in enumerate(values):
            axes.text(value + 0.01, place, f"{value:.2f}", va="center", fontsize=8)
        axes.set(xlim=(0, max(0.1, *values) * 1.12), xlabel="share of the variance")
        axes.grid(axis="y", visible=False)

    return draw


def parallel(outcome: Outcome) -> Draw:
    """Plot each finished trial as a line over the settings to its value; the best is drawn on top."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        rows = _finished(outcome)[::-1]
        if len(rows) < FEW:
            _explain(axes)
            return
        keys = list(outcome.search.space.parts)
        values = np.array([row.value for row in rows])
        low, high = values.min(), values.max()
        shares = (values - low) / (high - low) if high > low else np.full(len(rows), 0.5)
        for row, share in zip(rows, shares, strict=True):
            heights = [_height(outcome, key, row.values[key]) for key in keys]
            best = row is outcome.best
            axes.plot(
                [*heights, share],
                color=ORANGE if best else BLUE,
                linewidth=2.5 if best else 1.2,
                alpha=1 if best else 0.2 + 0.7 * share,
                marker="o",
                markersize=3,
            )
        for place, key in enumerate(keys):
            _scale(axes, place, _ticks(outcome, key))
        _scale(axes, len(keys), [(0.0, f"{low:.4f}"), (1.0, f"{high:.4f}")])
        labels = [*map(outcome.search.space.label, keys), "value"]
        axes.set_xticks(range(len(labels)), labels, rotation=20, ha="right", rotation_mode="anchor")
        axes.set(xlim=(-0.25, len(keys) + 0.4), ylim=(-0.06, 1.06), yticks=[])
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.tick_params(axis="x", length=0)
        axes.grid(visible=False)

    return draw


def save_png(draw: Draw, path: Path, width: float, height: float) -> None:
    """Write the figure that ``draw`` fills, ``width`` x ``height`` inches, as PNG, atomically."""
    with mpl.rc_context(STYLE), atomic_path(path) as temporary:
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        figure.savefig(temporary, format="png", dpi=150, facecolor="white")


def _finished(outcome: Outcome) -> list[Row]:
    return [row for row in outcome.rows if row.state == "finished"]


def _explain(axes: Axes) -> None:
    """Say in the place of a plot why there is none."""
    axes.text(0.5, 0.5, f"Fewer than {FEW} trials are finished.", ha="center", va="center")
    axes.set_axis_off()


def _height(outcome: Outcome, key: str, stored: float | str) -> float:
    """Return where a parameter lies on its axis, from 0 to 1."""
    part = outcome.search.space.parts[key]
    if isinstance(part, Choices):
        return (part.stored.index(stored) + 0.5) / len(part.values)
    low, high, value = part.low, part.high, float(stored)
    if part.log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low)


def _ticks(outcome: Outcome, key: str) -> list[tuple[float, str]]:
    """Return heights and texts of the values to write at the axis of a setting."""
    part = outcome.search.space.parts[key]
    values = part.stored if isinstance(part, Choices) else (part.low, part.high)
    return [(_height(outcome, key, value), value_text(value)) for value in values]


def _scale(axes: Axes, place: int, ticks: list[tuple[float, str]]) -> None:
    axes.axvline(place, color=INK, linewidth=0.8, alpha=0.5, zorder=0)
    for height, text in ticks:
        axes.text(place + 0.05, height, text, fontsize=7, va="center", alpha=0.8)
