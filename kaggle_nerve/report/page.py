"""Writing the page."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from kaggle_nerve import __version__
from kaggle_nerve.decision import text
from kaggle_nerve.progress import SILENT, Reporter
from kaggle_nerve.report import drawings
from kaggle_nerve.report.galleries import Gallery, galleries, test_sheet
from kaggle_nerve.report.gather import Contents, Seen

TEMPLATE = "page.html.j2"


@dataclass(frozen=True)
class Chart:
    """An SVG element under a heading, and how to read it."""

    title: str
    about: str
    svg: Markup
    wide: bool = False


def render(contents: Contents, *, reporter: Reporter = SILENT) -> str:
    """The page's HTML. It needs nothing but itself: no address in it leads anywhere else."""
    charts, shown = list(_charts(contents, reporter)), list(_galleries(contents, reporter))
    environment = Environment(
        loader=PackageLoader("kaggle_nerve.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    seen = contents.seen
    return environment.get_template(TEMPLATE).render(
        page=contents,
        figures=seen.decision.figures if seen else None,
        told=text.told(seen.decision) if seen else "",
        comparison=text.comparison(seen.decision) if seen else "",
        confusion=_confusion(seen) if seen else None,
        charts=charts,
        galleries=shown,
        version=__version__,
    )


def _charts(contents: Contents, reporter: Reporter) -> Iterator[Chart]:
    def chart(title: str, about: str, svg: str, wide: bool = False) -> Chart:
        bar.update()
        return Chart(title, about, Markup(svg), wide)

    seen, tested = contents.seen, contents.tested
    with reporter.bar("Drawing charts", None, "chart") as bar:
        if seen:
            yield chart(
                "Score",
                "Nested by patient: each is scored by what was learned and chosen on the others.",
                drawings.bounds(seen.decision.figures),
            )
        if seen and tested:
            yield chart(
                "Share of frames with a mask",
                "A test share far from training's is a sign that a threshold does not carry over.",
                drawings.shares(seen, tested),
            )
        if any(fold.history is not None for fold in contents.folds):
            yield chart(
                "Learning curves",
                "By epoch. The score is that of the raw maps by the best presence threshold of the epoch.",
                drawings.curves(contents.folds),
                True,
            )
        if seen:
            yield chart(
                "Subjects",
                "By the decision learned on all of them, so a little better than on new patients.",
                drawings.subjects(seen),
                True,
            )
            if seen.decision.figures.presence_auc is not None:  # else all frames are of one kind
                yield chart("Presence: ROC", "Dot: what the decision does.", drawings.roc(seen))
            yield chart("Presence: reliability", "On the line it comes true.", drawings.reliability(seen))
            yield chart("Dice by area", "Frames with a mask; at 0 those missed.", drawings.dice_by_area(seen))
            yield chart(
                "Thresholds",
                f"Mean Dice by {seen.surface.label} and pixel threshold alone; the star is its best.",
                drawings.surface(seen),
            )


def _galleries(contents: Contents, reporter: Reporter) -> Iterator[Gallery]:
    if contents.seen:
        reporter.say("Drawing frames")
        yield from (gallery for gallery in galleries(contents.seen) if gallery.pictures)
    if contents.tested:
        yield test_sheet(contents.tested)


def _confusion(seen: Seen) -> dict[str, int]:
    present, kept = seen.frames.area > 0, seen.frames.predicted_area > 0
    return {
        "hit": int((present & kept).sum()),
        "missed": int((present & ~kept).sum()),
        "invented": int((~present & kept).sum()),
        "empty": int((~present & ~kept).sum()),
    }


def default_path(contents: Contents) -> Path:
    """Where the page lies if the user names no place."""
    return contents.run.report_file
