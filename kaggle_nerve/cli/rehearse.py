"""The command `rehearse`: the whole job without Kaggle."""

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kaggle_nerve.cli import options
from kaggle_nerve.settings import load_preset, short_name

if TYPE_CHECKING:
    from kaggle_nerve.rehearsal.run import RehearsalResult
    from kaggle_nerve.rehearsal.server import RehearsalServer


@click.command()
@click.option(
    "--data", "data_dir", type=options.FOLDER, help="Hold out subjects of this data instead of the phantom."
)
@click.option(
    "--held-out", type=click.IntRange(1), help="How many subjects of --data to hold out.  [default: a fifth]"
)
@click.option(
    "--work", type=options.FOLDER, default="rehearsal", show_default=True, help="Folder for everything."
)
@click.option("--preset", default="tiny", show_default=True, help="Settings to train with.")
@click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change one setting; may be repeated."
)
@click.option("--time-budget", type=options.Duration(), help="Time for training, such as 30m.")
@click.option(
    "--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of phantom and hold-out."
)
@click.option(
    "--serve", is_flag=True, help="Only serve, and print the environment to export; Ctrl-C ends it."
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="Port of 127.0.0.1.  [default: any free one]"
)
@click.option("--fault", "faults", multiple=True, metavar="NAME[:K=V,...]", help="Make something go wrong.")
@click.option("--list-faults", is_flag=True, help="Show what can be made to go wrong.")
@options.json_option
def rehearse(
    data_dir: Path | None,
    held_out: int | None,
    work: Path,
    preset: str,
    changes: tuple[str, ...],
    time_budget: float | None,
    seed: int,
    serve: bool,
    port: int,
    faults: tuple[str, ...],
    list_faults: bool,
    as_json: bool,
) -> None:
    """Run fetch, train-folds and submit against a rehearsal of Kaggle on this machine.

    The official client talks to a server on 127.0.0.1, which scores as Kaggle does. Without --data
    the competition is a synthetic phantom. The same command again goes on where it was stopped.

    \b
    Example: kaggle-nerve rehearse
             kaggle-nerve rehearse --data data/ultrasound-nerve-segmentation --preset small
             kaggle-nerve rehearse --serve --fault cut:times=2,after=1500000
    """
    from kaggle_nerve.rehearsal import faults as fault_injection

    if list_faults:
        for name, meaning in fault_injection.FAULTS.items():
            click.echo(f"{name:<20} {meaning}")
        return
    if held_out is not None and data_dir is None:
        raise click.UsageError("--held-out is about subjects of --data; name that, too.")
    if serve and as_json:
        raise click.UsageError("--serve ends without figures, so there is no --json of them.")
    settings = load_preset(preset, changes)

    from kaggle_nerve.cli.backend import load_keras
    from kaggle_nerve.cli.terminal import GentleInterrupt, TerminalReporter
    from kaggle_nerve.locks import hold_lock
    from kaggle_nerve.phantom import is_synthetic
    from kaggle_nerve.rehearsal import run
    from kaggle_nerve.rehearsal.server import RehearsalServer

    reporter = TerminalReporter()
    parsed_faults = [fault_injection.parse(text) for text in faults]
    if not serve:
        load_keras(deterministic=settings.training.deterministic)  # fails before minutes of drawing
    folder = run.rehearsal_folder(work, data_dir, held_out, seed)
    served = run.prepare_competition(folder, data_dir, held_out, seed, reporter)
    message = f"Another rehearsal runs in {folder}; end it, or take another folder with --work."
    with (
        hold_lock(folder / ".lock", message),
        RehearsalServer(served, folder / "server", port=port) as server,
    ):
        for fault in parsed_faults:
            server.faults.put(fault)
        if serve:
            _serve(server, folder)
            return
        with GentleInterrupt() as interrupt:
            result = run.rehearse(
                server,
                folder,
                short_name(preset),
                settings,
                time_budget=time_budget,
                reporter=reporter,
                stop=interrupt.stop,
            )
    _print(result, data_dir is None or is_synthetic(data_dir), as_json)


def _serve(server: "RehearsalServer", folder: Path) -> None:
    click.echo(server.exports(folder / "home"))
    click.echo(f"Serving on {server.url}; Ctrl-C ends it.", err=True)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        click.echo("Ended.", err=True)


def _print(result: "RehearsalResult", synthetic: bool, as_json: bool) -> None:
    if as_json:
        options.print_json(
            {
                "synthetic": synthetic,
                "public": result.public,
                "private": result.private,
                "all_empty": result.empty.as_dict(),
                "oof": result.decision.figures.dice,
                "csv": str(result.csv),
            }
        )
        return
    from kaggle_nerve.decision import text

    click.echo("")
    if synthetic:
        click.echo("SYNTHETIC DATA: the scores below are of the phantom, not of the competition.")
    click.echo(text.summary(result.decision))
    click.echo("")
    click.echo(f"{'':<18}{'public':>8}{'private':>9}")
    click.echo(f"{'this submission':<18}{result.public:8.4f}{result.private:9.4f}")
    click.echo(f"{'all-empty':<18}{result.empty.public:8.4f}{result.empty.private:9.4f}")
    click.echo(f"\nThe submission is {result.csv}, its row in {result.csv.parent / 'ledger.csv'}")
