"""The commands `submissions list`, `refresh`, `compare` and `merge`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kaggle_nerve.cli import options

if TYPE_CHECKING:
    from kaggle_nerve.submissions.compare import Comparison
    from kaggle_nerve.submissions.ledger import Entry
    from kaggle_nerve.submissions.merge import MergeResult


@click.group()
def submissions() -> None:
    """What was submitted and what it scored; submission files compared and merged.

    \b
    Example: kaggle-nerve submissions list
             kaggle-nerve submissions compare first.csv second.csv
    """


@submissions.command("list")
@options.submissions_option
@click.option("--plot", type=options.FILE, metavar="PNG", help="Draw estimates against scores, too.")
@options.json_option
def list_submissions(submissions_dir: Path, plot: Path | None, as_json: bool) -> None:
    """Show the ledger: out-of-fold estimate, public and private score side by side.

    \b
    Example: kaggle-nerve submissions list
             kaggle-nerve submissions list --plot scores.png
    """
    if plot is not None and plot.suffix.lower() != ".png":
        raise click.UsageError(f"--plot {plot} must end in .png.")
    from kaggle_nerve.submissions.ledger import open_ledger

    rows = open_ledger(submissions_dir).rows()
    if as_json:
        options.print_json([row.as_dict() for row in rows])
    elif not rows:
        click.echo("Nothing was submitted yet.")
    else:
        _print_ledger(rows)
    if plot is not None:
        _plot(rows, plot)


def _print_ledger(rows: list["Entry"]) -> None:
    click.echo(f"{'when':<20} {'run':<16} {'status':<10} {'oof':>7} {'public':>7} {'private':>7}  file")
    for row in rows:
        figures = " ".join(f"{_short(value):>7}" for value in (row.oof, row.public, row.private))
        click.echo(f"{row.timestamp[:19]:<20} {row.run:<16} {row.status:<10} {figures}  {row.file}")


def _plot(rows: list["Entry"], path: Path) -> None:
    import pandas as pd

    from kaggle_nerve.pictures.charts import scores
    from kaggle_nerve.storage import atomic_path
    from kaggle_nerve.submissions.ledger import FIGURES

    scored = [row for row in rows if row.oof is not None and (row.public, row.private) != (None, None)]
    if not scored:
        raise click.ClickException(
            "No submission has both an out-of-fold estimate and a score, so there is nothing to plot; "
            "`kaggle-nerve submissions refresh` takes new scores from Kaggle."
        )
    table = pd.DataFrame([row.as_dict() for row in scored])
    figure = scores(table.astype(dict.fromkeys(FIGURES, float)))
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120)
    click.echo(f"{path} shows {len(scored)} of {len(rows)} submissions", err=True)


@submissions.command()
@options.submissions_option
def refresh(submissions_dir: Path) -> None:
    """Take the scores of submitted files from Kaggle into the ledger.

    \b
    Example: kaggle-nerve submissions refresh
    """
    from kaggle_nerve.kaggle_api.client import Client
    from kaggle_nerve.submissions import ledger

    count = ledger.refresh(Client(), ledger.open_ledger(submissions_dir))
    click.echo(f"{count} rows of the ledger have new figures.")


@submissions.command()
@click.argument("first", metavar="A", type=options.FILE)
@click.argument("second", metavar="B", type=options.FILE)
@click.option(
    "--worst",
    type=click.IntRange(0),
    default=10,
    show_default=True,
    metavar="N",
    help="List the N frames on which they disagree most.",
)
@options.sample_option
@options.data_option
@options.json_option
def compare(
    first: Path, second: Path, worst: int, sample: Path | None, data_dir: Path, as_json: bool
) -> None:
    """Show how far the submission files A and B agree on presence and on the masks.

    \b
    Example: kaggle-nerve submissions compare first.csv second.csv --worst 20
    """
    from kaggle_nerve.submissions.compare import compare

    comparison = compare(first, second, options.sample_or_default(sample, data_dir))
    if as_json:
        options.print_json({"first": str(first), "second": str(second)} | comparison.as_dict(worst))
    else:
        click.echo(f"A  {first}\nB  {second}\n")
        _print_comparison(comparison, worst)


@submissions.command()
@click.argument("csvs", metavar="CSV CSV...", type=options.FILE, nargs=-1, required=True)
@click.option("--out", type=options.FILE, required=True, metavar="CSV", help="Where to write the consensus.")
@click.option(
    "--method",
    type=click.Choice(["presence", "pixels", "agreement"]),
    default="presence",
    show_default=True,
    help="presence: vote on whether there is a mask, then on its pixels among the files that have one. "
    "pixels: keep what more than half of all files have. agreement: as presence, but files that agree "
    "with the others weigh more.",
)
@options.sample_option
@options.data_option
@options.json_option
def merge(
    csvs: tuple[Path, ...], out: Path, method: str, sample: Path | None, data_dir: Path, as_json: bool
) -> None:
    """Write the consensus of two or more submission files, whose order does not matter.

    \b
    Example: kaggle-nerve submissions merge a.csv b.csv c.csv --out consensus.csv
    """
    from kaggle_nerve.cli.terminal import TerminalReporter
    from kaggle_nerve.submissions.merge import merge

    result = merge(
        csvs, out, method, sample=options.sample_or_default(sample, data_dir), reporter=TerminalReporter()
    )
    if as_json:
        options.print_json({"csv": str(out)} | result.as_dict())
    else:
        _print_merge_result(result, out)


def _print_comparison(comparison: "Comparison", worst: int) -> None:
    click.echo(f"{'frames':<10} {'mask in B':>10} {'none in B':>10}")
    click.echo(f"{'mask in A':<10} {comparison.both_present:>10} {comparison.only_first:>10}")
    click.echo(f"{'none in A':<10} {comparison.only_second:>10} {comparison.both_empty:>10}")
    click.echo(
        f"\nPresence agrees on {comparison.presence_agreement:.2%} of {comparison.frames} frames; "
        f"A has a mask on {comparison.first_share:.2%}, B on {comparison.second_share:.2%}."
    )
    where_both = (
        ""
        if comparison.dice_where_both is None
        else f", {comparison.dice_where_both:.4f} where both have a mask"
    )
    click.echo(
        f"Mean Dice {comparison.dice:.4f} over all frames{where_both}; {comparison.identical} rows are identical."
    )
    frames = comparison.differences[:worst]
    if frames:
        click.echo(f"\nThe worst {len(frames)} of {len(comparison.differences)} frames that differ:")
        click.echo(f"{'img':>7} {'Dice':>7} {'pixels in A':>12} {'pixels in B':>12}")
        for frame in frames:
            click.echo(f"{frame.img:>7} {frame.dice:>7.4f} {frame.first_area:>12} {frame.second_area:>12}")


def _print_merge_result(result: "MergeResult", out: Path) -> None:
    click.echo(f"{'with mask':>9} {'weight':>7} {'Dice with the consensus':>24}  file")
    for voter in result.voters:
        click.echo(f"{voter.share:>9.2%} {voter.weight:>7.4f} {voter.dice:>24.4f}  {voter.path}")
    ties = f", {result.ties} of them a tie" if result.ties else ""
    click.echo(f"The files disagree on whether there is a mask on {result.disputed} frames{ties}.")
    click.echo(f"{out}: {result.frames} rows, {result.non_empty} with a mask, by {result.method}")


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
