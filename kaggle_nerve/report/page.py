"""Render the page."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from kaggle_nerve import __version__
from kaggle_nerve.decision import text
from kaggle_nerve.progress import SILENT, Reporter
from kaggle_nerve.report import drawings
from kaggle_nerve.report.galleries import Gallery, galleries, test_sheet
from kaggle_nerve.report.gather import Contents, OutOfFold

TEMPLATE = "page.html.j2"


@dataclass(frozen=True)
class Chart:
    """An SVG chart with a heading, and how to read it."""

    title: str
    about: str
    svg: Markup
    wide: bool = False


def render(contents: Contents, *, reporter: Reporter = SILENT) -> str:
    """Return the page's HTML, which refers to nothing outside itself."""
    charts, gallery_list = list(_charts(contents, reporter)), list(_galleries(contents, reporter))
    oof = contents.oof
    return render_template(
        "kaggle_nerve.report",
        TEMPLATE,
        page=contents,
        figures=oof.decision.figures if oof else None,
        told=text.summary(oof.decision) if oof else "",
        comparison=text.comparison(oof.decision) if oof else "",
        confusion=_confusion(oof) if oof else None,
        charts=charts,
        galleries=gallery_list,
    )


def render_template(package: str, name: str, **values: Any) -> str:
    """Render the template ``name`` in ``package``; it may extend ``base.html.j2`` of this package."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader(package, "."), PackageLoader("kaggle_nerve.report", ".")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name).render(version=__version__, **values)


def _charts(contents: Contents, reporter: Reporter) -> Iterator[Chart]:
    def chart(title: str, about: str, svg: str, wide: bool = False) -> Chart:
        bar.update()
        return Chart(title, about, Markup(svg), wide)

    oof, test = contents.oof, contents.test
    with reporter.bar("Drawing charts", None, "chart") as bar:
        if oof:
            yield chart(
                "Score",
                "Nested by patient: each is scored by what was learned and chosen on the others.",
                drawings.bounds(oof.decision.figures),
            )
        if oof and test:
            yield chart(
                "Share of frames with a mask",
                "A test share far from training's is a sign that a threshold does not carry over.",
                drawings.shares(oof, test),
            )
        if any(fold.history is not None for fold in contents.folds):
            yield chart(
                "Learning curves",
                "By epoch. The score is that of the raw maps by the best presence threshold of the epoch.",
                drawings.curves(contents.folds),
                True,
            )
        if oof:
            yield chart(
                "Subjects",
                "By the decision learned on all of them, so a little better than on new patients.",
                drawings.subjects(oof),
                True,
            )
            if oof.decision.figures.presence_auc is not None:  # else all frames are of one kind
                yield chart("Presence: ROC", "Dot: what the decision does.", drawings.roc(oof))
            yield chart("Presence: reliability", "On the line it comes true.", drawings.reliability(oof))
            yield chart("Dice by area", "Frames with a mask; at 0 those missed.", drawings.dice_by_area(oof))
            yield chart(
                "Thresholds",
                f"Mean Dice by {oof.surface.label} and pixel threshold alone; the star is its best.",
                drawings.surface(oof),
            )


def _galleries(contents: Contents, reporter: Reporter) -> Iterator[Gallery]:
    if contents.oof:
        reporter.say("Drawing frames")
        yield from (gallery for gallery in galleries(contents.oof) if gallery.pictures)
    if contents.test:
        yield test_sheet(contents.test)


def _confusion(oof: OutOfFold) -> dict[str, int]:
    present, predicted = oof.frames.area > 0, oof.frames.predicted_area > 0
    return {
        "hit": int((present & predicted).sum()),
        "missed": int((present & ~predicted).sum()),
        "invented": int((~present & predicted).sum()),
        "empty": int((~present & ~predicted).sum()),
    }


def default_path(contents: Contents) -> Path:
    """Return the path of the page if the user does not name one."""
    return contents.run.report_file
