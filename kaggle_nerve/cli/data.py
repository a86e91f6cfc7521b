"""The commands `fetch` and `verify`."""

from pathlib import Path

import click

from kaggle_nerve.cli import options


@click.command()
@options.data_option
@options.force_option
@click.option("--keep-archive", is_flag=True, help="Keep the downloaded zip beside the unpacked files.")
def fetch(data_dir: Path, force: bool, keep_archive: bool) -> None:
    """Download the competition's data through the Kaggle API, verify it and unpack it.

    The same command again goes on with an unfinished download and does nothing where all is there.

    \b
    Example: kaggle-nerve fetch --data data/ultrasound-nerve-segmentation
    """
    from kaggle_nerve.cli.terminal import TerminalReporter
    from kaggle_nerve.data.verify import verify as run_verify
    from kaggle_nerve.kaggle_api.client import Client
    from kaggle_nerve.kaggle_api.fetch import fetch as run_fetch

    reporter = TerminalReporter()
    result = run_fetch(
        data_dir,
        Client(),
        reporter=reporter,
        force=force,
        keep_archive=keep_archive,
        verify=lambda path: run_verify(path, reporter=reporter).problems,
    )
    click.echo(str(result))


@click.command()
@options.data_option
@options.workers_option
@options.json_option
def verify(data_dir: Path, workers: int, as_json: bool) -> None:
    """Check a data directory: names, sizes, masks against the CSV, counts.

    Exit code 0 if it can be trained on, 1 with every problem named.

    \b
    Example: kaggle-nerve verify --data data/ultrasound-nerve-segmentation
    """
    from kaggle_nerve.cli.terminal import TerminalReporter
    from kaggle_nerve.data.verify import verify as run_verify

    report = run_verify(data_dir, reporter=TerminalReporter(), workers=workers)
    if as_json:
        options.print_json(report.as_dict())
    else:
        click.echo(
            f"{report.train_frames} training frames of {report.subjects} subjects ({report.with_mask} with a mask), "
            f"{report.train_masks} mask files, {report.test_frames} test frames"
        )
        for problem in report.problems[: options.SHOWN]:
            click.echo(problem)
        options.echo_rest(len(report.problems))
        if not report.problems:
            extent = (
                "the whole competition" if report.complete else "in order, though not the whole competition"
            )
            click.echo(f"{data_dir} is {extent}: every mask file equals its row of the CSV.")
    if report.problems:
        raise click.exceptions.Exit(1)
