"""The command `report`."""

from pathlib import Path

import click

from kaggle_nerve.cli import options


@click.command()
@options.run_option
@click.option(
    "--out", type=options.FILE, metavar="HTML", help="Where to write the page.  [default: the run's folder]"
)
@click.option("--open", "opened", is_flag=True, help="Open it in the browser.")
@options.data_option
@options.runs_option
@options.submissions_option
@options.workers_option
def report(
    run_name: str,
    out: Path | None,
    opened: bool,
    data_dir: Path,
    runs_dir: Path,
    submissions_dir: Path,
    workers: int,
) -> None:
    """Show a run as one HTML page: scores, curves, subjects, presence, best and worst frames, submissions.

    The page needs no network and no other file. What is unfinished is said on it.

    \b
    Example: kaggle-nerve report --run small --open
    """
    from kaggle_nerve.cli.terminal import TerminalReporter
    from kaggle_nerve.report.gather import gather
    from kaggle_nerve.report.page import default_path, render
    from kaggle_nerve.runs import open_run
    from kaggle_nerve.storage import write_text

    if out is not None and out.suffix.lower() not in (".html", ".htm"):
        raise click.UsageError(f"--out {out} must end in .html.")
    reporter = TerminalReporter()
    run = open_run(runs_dir, run_name)
    contents = gather(run, data_dir, submissions_dir, reporter=reporter, workers=workers)
    out = out or default_path(contents)
    write_text(out, render(contents, reporter=reporter))
    for line in contents.missing:
        click.echo(line, err=True)
    click.echo(f"The report is {out} ({out.stat().st_size / 1e6:.1f} MB)")
    if opened:
        click.launch(str(out))
