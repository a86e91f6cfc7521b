"""The command `audit`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kaggle_nerve.cli import options

if TYPE_CHECKING:
    from kaggle_nerve.audit.audit import Audit


@click.command()
@options.data_option
@click.option(
    "--out",
    type=options.FOLDER,
    default="audit",
    show_default=True,
    help="Folder for tables and contact sheets.",
)
@click.option(
    "--least",
    type=click.FloatRange(0.8, 1),
    default=0.95,
    show_default=True,
    metavar="CORRELATION",
    help="From which correlation of grey levels, 0.8 to 1, two frames count as near-identical.",
)
@click.option(
    "--worst",
    type=click.IntRange(0),
    default=5,
    show_default=True,
    metavar="N",
    help="List the N worst findings of each kind.",
)
@options.workers_option
@options.json_option
def audit(data_dir: Path, out: Path, least: float, worst: int, workers: int, as_json: bool) -> None:
    """Look for near-identical frames with contradictory labels, and for suspicious masks.

    Writes what it found (findings.csv), all near-identical pairs (twins.csv), a table of contradicted
    frames that training can use as weights or soft targets (doubted.csv), and contact sheets. No frame
    is left out of training or of a score for it.

    \b
    Example: kaggle-nerve audit --data data/ultrasound-nerve-segmentation --out audit
    """
    from kaggle_nerve.audit.audit import audit as run_audit
    from kaggle_nerve.audit.audit import write
    from kaggle_nerve.cli.terminal import TerminalReporter

    result = run_audit(data_dir, least=least, reporter=TerminalReporter(), workers=workers)
    files = write(result, out)
    if as_json:
        worst_findings = result.findings.groupby("kind", sort=False).head(worst).what
        options.print_json(
            result.as_dict() | {"worst": worst_findings.to_list(), "files": [str(path) for path in files]}
        )
    else:
        _print(result, files, worst, out)


def _print(result: "Audit", files: list[Path], worst: int, out: Path) -> None:
    from kaggle_nerve.audit.audit import DOUBTED

    click.echo(
        f"{len(result.frames)} frames of {result.frames.subject.nunique()} subjects: {len(result.twins)} pairs "
        f"correlate by {result.least:g} or more, {result.identical()} of them are equal in every pixel, "
        f"{result.across()} are of two subjects."
    )
    for kind, count in result.counts().items():
        click.echo(f"{kind:<18}{count:>5}")
        for line in result.findings.what[result.findings.kind == kind][:worst]:
            click.echo(f"  {line}")
    click.echo(f"Written to {out}: {', '.join(path.name for path in files)}")
    click.echo("All frames stay in training and in every score, labelled as they are.")
    if len(result.doubted):
        click.echo(
            f"{DOUBTED} marks {len(result.doubted)} contradicted frames. To let their losses count less (or, with "
            "training.noise=soft, to soften their presence targets):\n  kaggle-nerve train-folds --set "
            f"training.noise=weight --set training.noise_table={out / DOUBTED}"
        )
