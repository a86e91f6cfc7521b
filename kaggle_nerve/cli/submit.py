"""The commands `submit`, `validate` and `score`."""

from pathlib import Path

import click

from kaggle_nerve.cli import options


@click.command()
@click.option(
    "--run", "run_names", multiple=True, metavar="NAME", help="The run; more than one: their blend."
)
@click.option(
    "--file", "csv", type=options.FILE, metavar="CSV", help="Upload this file instead of making one."
)
@click.option(
    "--normalise",
    is_flag=True,
    help="With --file: upload a copy with LF line ends and rows in ascending order, written to --out.",
)
@click.option("--dry-run", is_flag=True, help="Make and validate the file, upload nothing.")
@click.option(
    "--out", type=options.FILE, metavar="CSV", help="Where to write the file.  [default: submissions/]"
)
@click.option("-m", "--message", help="Description on Kaggle.  [default: the run and its out-of-fold figure]")
@click.option(
    "--no-wait", is_flag=True, help="Do not wait for the score; `submissions refresh` gets it later."
)
@click.option("--again", is_flag=True, help="Send a file that was sent before.")
@options.data_option
@options.runs_option
@options.submissions_option
@options.workers_option
def submit(
    run_names: tuple[str, ...],
    csv: Path | None,
    normalise: bool,
    dry_run: bool,
    out: Path | None,
    message: str | None,
    no_wait: bool,
    again: bool,
    data_dir: Path,
    runs_dir: Path,
    submissions_dir: Path,
    workers: int,
) -> None:
    """Predict and tune what is missing, write and validate the CSV, upload it, wait for the score.

    \b
    Example: kaggle-nerve submit --run small --dry-run
             kaggle-nerve submit --run small -m "first try"
             kaggle-nerve submit --file submissions/20260102-030405__small.csv
    """
    if bool(run_names) == bool(csv):
        raise click.UsageError("Name either runs with --run or a file with --file.")
    if normalise and not csv:
        raise click.UsageError("--normalise is for a file of --file; files of runs are normalised.")
    if csv and out and not normalise:
        raise click.UsageError(
            "A file of --file is uploaded as it is; --out says where --normalise writes its copy."
        )

    if csv:
        csv = _check_file(csv, data_dir, submissions_dir, normalise, out)
    else:
        csv = _make_file(run_names, data_dir, runs_dir, submissions_dir, out, workers)
    if dry_run:
        click.echo("Dry run: nothing was uploaded.")
        return
    from kaggle_nerve.cli.terminal import TerminalReporter
    from kaggle_nerve.kaggle_api.client import Client
    from kaggle_nerve.submissions.upload import send

    outcome = send(
        csv,
        data_dir,
        submissions_dir,
        Client(),
        message=message,
        again=again,
        wait=not no_wait,
        reporter=TerminalReporter(),
    )
    click.echo(str(outcome))


def _make_file(
    run_names: tuple[str, ...],
    data_dir: Path,
    runs_dir: Path,
    submissions_dir: Path,
    out: Path | None,
    workers: int,
) -> Path:
    """Write the CSV of the named runs; return its path."""
    from kaggle_nerve import pipeline
    from kaggle_nerve.cli.backend import load_keras
    from kaggle_nerve.cli.terminal import TerminalReporter
    from kaggle_nerve.data.frames import locate
    from kaggle_nerve.decision import text
    from kaggle_nerve.runs import open_run
    from kaggle_nerve.submissions.origin import make_origin, record_origin

    runs = [open_run(runs_dir, name) for name in run_names]
    locate(data_dir)
    load_keras()
    target = out or pipeline.new_csv(submissions_dir, runs)
    prepared = pipeline.prepare(runs, data_dir, target, reporter=TerminalReporter(), workers=workers)
    record_origin(prepared.csv, make_origin(runs, prepared.decision), submissions_dir)
    click.echo(text.summary(prepared.decision))
    click.echo(f"{prepared.csv}: {prepared.report.rows} rows, {prepared.report.non_empty} with a mask, valid")
    return prepared.csv


def _check_file(csv: Path, data_dir: Path, submissions_dir: Path, normalise: bool, out: Path | None) -> Path:
    """Check the user's CSV; return its path, or that of its normalised copy."""
    from kaggle_nerve.competition.facts import SAMPLE_CSV
    from kaggle_nerve.competition.submission import check, read, write
    from kaggle_nerve.submissions.origin import find_origin, record_origin

    report = check(csv, data_dir / SAMPLE_CSV)
    report.raise_if_faulty()
    if not normalise:
        for remark in report.remarks:
            click.echo(f"{csv}: {remark}.", err=True)
        return csv
    table, origin = read(csv), find_origin(csv, submissions_dir)
    copy = out or submissions_dir / f"{csv.stem}-normalised.csv"
    write(copy, zip(table.img, table.pixels, strict=True))
    if origin:
        record_origin(copy, origin, submissions_dir)
    click.echo(f"{copy}: the same {len(table)} rows with LF line ends, in ascending order")
    return copy


@click.command()
@click.argument("csv", type=options.FILE)
@options.sample_option
@options.data_option
@options.json_option
def validate(csv: Path, sample: Path | None, data_dir: Path, as_json: bool) -> None:
    """Check a submission file: exit code 0 and a summary, or 1 and every fault with its line.

    \b
    Example: kaggle-nerve validate submission.csv --sample sample_submission.csv
    """
    from kaggle_nerve.competition.facts import TEST_FRAMES
    from kaggle_nerve.competition.submission import check

    sample = options.sample_or_default(sample, data_dir)
    report = check(csv, sample or range(1, TEST_FRAMES + 1))
    if as_json:
        options.print_json(report.as_dict())
    elif report.faults:
        for fault in report.faults[: options.SHOWN]:
            click.echo(f"{csv}: {fault}")
        options.echo_rest(len(report.faults))
    else:
        basis = f"the frames of {sample}" if sample else f"the competition's {TEST_FRAMES} frames"
        click.echo(
            f"{csv} is valid: {report.rows} rows, {report.non_empty} with a mask; checked against {basis}."
        )
        for remark in report.remarks:
            click.echo(f"Remark: {remark}.")
    if report.faults:
        raise click.exceptions.Exit(1)


@click.command()
@click.argument("csv", type=options.FILE)
@click.argument("solution", type=options.FILE)
@options.json_option
def score(csv: Path, solution: Path, as_json: bool) -> None:
    """Score CSV with the competition's metric against SOLUTION (img,pixels and perhaps Usage).

    \b
    Example: kaggle-nerve score submission.csv solution.csv --json
    """
    from kaggle_nerve.competition import submission

    scores = submission.score(csv, solution)
    if as_json:
        options.print_json(scores.as_dict())
        return
    click.echo(f"Mean Dice {scores.all:.5f} over {scores.frames} frames")
    for name, value in (("public", scores.public), ("private", scores.private)):
        if value is not None:
            click.echo(f"{name:<8} {value:.5f}")
