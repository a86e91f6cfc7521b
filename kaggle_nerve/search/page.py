"""The page of a search: its outcome, plots and table, in the style of a run's report."""

from pathlib import Path

import optuna
from markupsafe import Markup

from kaggle_nerve.report.drawings import svg
from kaggle_nerve.report.page import Chart, render_template
from kaggle_nerve.search import plots, table
from kaggle_nerve.search.objectives import OBJECTIVES
from kaggle_nerve.search.space import value_text
from kaggle_nerve.search.table import Outcome
from kaggle_nerve.settings import Settings, dump

WIDE, HEIGHT = 10.6, 3.4
"""Inches of a plot over the page's whole width."""


def write_plots(outcome: Outcome, study: optuna.Study) -> list[Path]:
    """Write the plots as PNG into the search's folder; return their paths."""
    draws = {
        "history": (plots.history(outcome), WIDE, HEIGHT),
        "importance": (plots.importance(outcome, study), 6.4, _height(outcome)),
        "parallel": (plots.parallel(outcome), WIDE, 4.2),
    }
    paths = {name: outcome.search.folder / f"{name}.png" for name in draws}
    for name, (draw, width, height) in draws.items():
        plots.save_png(draw, paths[name], width, height)
    return list(paths.values())


def render(outcome: Outcome, study: optuna.Study, best: Settings, origin: str = "") -> str:
    """Return the page's HTML, which refers to nothing outside itself.

    ``best``: settings of the best trial. ``origin``: a remark on the data, such as that it is synthetic.
    """
    search = outcome.search
    errors = [f"trial {row.number}: {row.error}" for row in outcome.rows if row.error]
    return render_template(
        "kaggle_nerve.search",
        "page.html.j2",
        outcome=outcome,
        objective=search.objective,
        words=OBJECTIVES[search.objective].words,
        counts=table.counts(outcome.rows),
        lines=table.sentence(outcome).splitlines(),
        charts=_charts(outcome, study),
        labels=[search.space.label(key) for key in search.space.parts],
        text=value_text,
        errors="\n".join(errors),
        space="\n".join(f"{key} = {value}" for key, value in search.space.as_toml().items()),
        best=dump(best).strip(),
        origin=origin,
    )


def _charts(outcome: Outcome, study: optuna.Study) -> list[Chart]:
    return [
        Chart(
            "History",
            "The best of many is too good by chance; the star is the same settings with other weights and folds.",
            Markup(svg(plots.history(outcome), WIDE, HEIGHT)),
            True,
        ),
        Chart(
            "Importance",
            "Share of each setting in the variance of the value, within this space; rough with few trials.",
            Markup(svg(plots.importance(outcome, study), WIDE, _height(outcome))),
            True,
        ),
        Chart(
            "Parallel coordinates",
            "A line for each finished trial, the fainter the worse; the best one is orange.",
            Markup(svg(plots.parallel(outcome), WIDE, 4.2)),
            True,
        ),
    ]


def _height(outcome: Outcome) -> float:
    """Return the inches of a plot with a bar for each setting."""
    return 1.0 + 0.28 * len(outcome.search.space.parts)
