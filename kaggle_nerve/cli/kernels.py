"""The commands `kernels build`, `check`, `push`, `status`, `output` and `dataset`."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kaggle_nerve.cli import options

if TYPE_CHECKING:
    from kaggle_nerve.kaggle_api.client import Client
    from kaggle_nerve.settings.parts import Part

timeout_option = click.option(
    "--timeout", type=options.Duration(), help="Give up watching after, such as 2h; the session goes on."
)

split_option = click.option(
    "--split",
    type=click.IntRange(2),
    metavar="N",
    help="The N parts of nerve-train-folds: nerve-train-folds-1 to -N, which share its folds.",
)

part_option = click.option(
    "--part",
    "numbers",
    type=click.IntRange(1),
    multiple=True,
    metavar="K",
    help="With --split: only part K; may be repeated.",
)


@click.group()
def kernels() -> None:
    """Run notebooks on Kaggle's machines: push, watch, fetch what they leave.

    There are nerve-train-folds, nerve-predict-submit and nerve-explore.

    \b
    Example: kaggle-nerve kernels push nerve-train-folds --set HOURS=5 --follow
             kaggle-nerve kernels output nerve-train-folds
    """


@kernels.command()
@click.option("--out", type=options.FOLDER, default="kernels", show_default=True, help="Where they go.")
def build(out: Path) -> None:
    """Write the notebooks, their metadata, and each as one cell to paste, from this package's modules.

    \b
    Example: kaggle-nerve kernels build --out my-kernels
    """
    from kaggle_nerve.notebooks.build import build

    paths = build(out)
    for path in paths:
        click.echo(f"{out / path} is written")
    if not paths:
        click.echo(f"All notebooks in {out} are up to date.")


@kernels.command()
@click.option("--out", type=options.FOLDER, default="kernels", show_default=True, help="Where they lie.")
def check(out: Path) -> None:
    """Compare the notebooks with what this package would write; exit code 1 where one differs.

    \b
    Example: kaggle-nerve kernels check
    """
    from kaggle_nerve.notebooks.build import check

    drifts = check(out)
    for drift in drifts:
        click.echo(f"{out}/{drift}")
    if drifts:
        raise click.ClickException(f"Run `kaggle-nerve kernels build --out {out}`.")
    click.echo(f"All notebooks in {out} are up to date.")


@kernels.command()
@click.argument("name")
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="Change a setting of its first cell."
)
@click.option("--dataset", "datasets", multiple=True, metavar="OWNER/NAME", help="Attach a dataset.")
@click.option("--kernel", "sources", multiple=True, metavar="OWNER/NAME", help="Attach a notebook's output.")
@split_option
@part_option
@click.option("--follow", is_flag=True, help="Watch the session until it ends.")
@timeout_option
def push(
    name: str,
    settings: tuple[str, ...],
    datasets: tuple[str, ...],
    sources: tuple[str, ...],
    split: int | None,
    numbers: tuple[int, ...],
    follow: bool,
    timeout: float | None,
) -> None:
    """Push the notebook NAME as a new version, which starts its session.

    With --split, push a notebook for each part of the folds: Kaggle lets an account run two sessions with GPUs
    at a time. `kernels output` with the same --split joins their runs.

    Exit code 1 if, with --follow, a session fails or does not end in time.

    \b
    Example: kaggle-nerve kernels push nerve-train-folds --set PRESET=small --set HOURS=5 --follow
             kaggle-nerve kernels push nerve-train-folds --set PRESET=default --split 2
             kaggle-nerve kernels push nerve-predict-submit --kernel me/nerve-train-folds
    """
    _refuse_timeout_alone(timeout, follow)
    parts = _parts(name, split, numbers)
    from kaggle_nerve.cli.terminal import TerminalReporter
    from kaggle_nerve.kaggle_api.account import username
    from kaggle_nerve.kaggle_api.client import Client
    from kaggle_nerve.kaggle_api.kernels import COMPLETE, SESSION, push_parts
    from kaggle_nerve.kaggle_api.kernels import follow as watch
    from kaggle_nerve.notebooks.pushing import prepare_kernel

    client, refs = Client(), []
    owner, numbered_parts = username(client), {part.number: part for part in parts} or {1: None}
    with tempfile.TemporaryDirectory() as folder:
        folders = {
            number: prepare_kernel(
                name,
                owner,
                Path(folder) / str(number),
                settings=dict(_pair(text) for text in settings),
                datasets=datasets,
                kernels=sources,
                part=part,
            )
            for number, part in numbered_parts.items()
        }
        for pushed in push_parts(folders, client):
            click.echo(f"{pushed.ref} is pushed as version {pushed.version}; its page is {pushed.url}")
            refs.append(pushed.ref)
    if not follow:
        if parts:
            click.echo(
                f"`kaggle-nerve kernels status {name} --split {split} --follow` watches their sessions, "
                f"`kaggle-nerve kernels output {name} --split {split}` then joins their runs."
            )
        else:
            click.echo(f"`kaggle-nerve kernels status {refs[0]} --follow` watches its session.")
        return
    sessions = watch(refs, client, timeout=timeout or SESSION, reporter=TerminalReporter())
    for ref, session in zip(refs, sessions, strict=True):
        click.echo(f"{ref}: {session}")
    if any(session.status != COMPLETE for session in sessions):
        raise click.exceptions.Exit(1)


@kernels.command()
@click.argument("name")
@split_option
@part_option
@click.option("--follow", is_flag=True, help="Watch the session until it ends.")
@timeout_option
@options.json_option
def status(
    name: str,
    split: int | None,
    numbers: tuple[int, ...],
    follow: bool,
    timeout: float | None,
    as_json: bool,
) -> None:
    """How the newest session of the kernel NAME (or USER/NAME) stands.

    Exit code 1 if it failed or, with --follow, did not end well in time.

    \b
    Example: kaggle-nerve kernels status nerve-train-folds
             kaggle-nerve kernels status nerve-train-folds --split 2 --follow
    """
    _refuse_timeout_alone(timeout, follow)
    parts = _parts(name, split, numbers)
    from kaggle_nerve.cli.terminal import TerminalReporter
    from kaggle_nerve.kaggle_api.client import Client
    from kaggle_nerve.kaggle_api.kernels import COMPLETE, ERROR, SESSION, kernel_status
    from kaggle_nerve.kaggle_api.kernels import follow as watch

    client = Client()
    refs = _refs(name, parts, client)
    if follow:
        sessions = watch(refs, client, timeout=timeout or SESSION, reporter=TerminalReporter())
    else:
        sessions = [kernel_status(ref, client) for ref in refs]
    rows = [{"kernel": ref, **session._asdict()} for ref, session in zip(refs, sessions, strict=True)]
    if as_json:
        options.print_json(rows if parts else rows[0])
    else:
        for ref, session in zip(refs, sessions, strict=True):
            click.echo(f"{ref}: {session}")
    if any(session.status == ERROR or (follow and session.status != COMPLETE) for session in sessions):
        raise click.exceptions.Exit(1)


@kernels.command()
@click.argument("name")
@split_option
@part_option
@options.runs_option
def output(name: str, split: int | None, numbers: tuple[int, ...], runs_dir: Path) -> None:
    """Fetch the runs that the newest session of the kernel NAME (or USER/NAME) left.

    What is finished here is kept, and a run of the same name with other settings is not touched. With
    --split the folds of all parts come into one run. The same command again goes on with an unfinished
    download, and fetches what has been finished since.

    \b
    Example: kaggle-nerve kernels output nerve-train-folds --runs runs
             kaggle-nerve kernels output nerve-train-folds --split 2
    """
    parts = _parts(name, split, numbers)
    from kaggle_nerve.cli.terminal import TerminalReporter
    from kaggle_nerve.kaggle_api import failures
    from kaggle_nerve.kaggle_api.client import Client
    from kaggle_nerve.kaggle_api.outputs import fetch_runs

    client, missing = Client(), []
    for ref in _refs(name, parts, client):
        try:
            lines = fetch_runs(ref, runs_dir, client, reporter=TerminalReporter())
        except failures.KaggleError as fault:
            # A part that has left nothing does not keep the others from coming.
            if fault.kind not in (failures.NOT_FOUND, failures.RULES):
                raise
            missing.append(str(fault))
            continue
        for line in lines:
            click.echo(f"{runs_dir}: {line}")
    if missing:
        raise click.ClickException("\n".join(missing))


@kernels.command()
@options.run_option
@click.option("--title", default="", help="6 to 50 characters.  [default: Nerve run NAME]")
@click.option("-m", "--message", default="", help="What is new in this version.")
@options.runs_option
def dataset(run_name: str, title: str, message: str, runs_dir: Path) -> None:
    """Send a run to Kaggle as a private dataset, or as a new version of it, for notebooks to attach.

    \b
    Example: kaggle-nerve kernels dataset --run small -m "all five folds"
    """
    from kaggle_nerve.cli.terminal import TerminalReporter
    from kaggle_nerve.kaggle_api.client import Client
    from kaggle_nerve.kaggle_api.datasets import ship
    from kaggle_nerve.runs import open_run
    from kaggle_nerve.runs.models import require_models

    run = open_run(runs_dir, run_name)
    require_models(run)
    folder = run.folder
    version = ship(folder, Client(), title=title, message=message, reporter=TerminalReporter())
    click.echo(f"Run {folder.name} is version {version.version} of the dataset {version.ref}: {version.url}")


def _parts(name: str, split: int | None, numbers: tuple[int, ...]) -> "list[Part]":
    """Return the parts that --split and --part select, in ascending order; none without --split."""
    from kaggle_nerve.notebooks.plans import TRAIN
    from kaggle_nerve.settings.parts import Part

    if split is None:
        if numbers:
            raise click.UsageError("--part selects from the parts of --split; give both.")
        return []
    if name.rpartition("/")[2] != TRAIN.name:
        raise click.UsageError(f"--split is for the folds of {TRAIN.name}, not for {name}.")
    if numbers and max(numbers) > split:
        raise click.UsageError(f"--part {max(numbers)} is beyond the {split} parts of --split.")
    return [Part(number, split) for number in sorted(set(numbers)) or range(1, split + 1)]


def _refs(name: str, parts: "list[Part]", client: "Client") -> list[str]:
    """Return ``user/slug`` of the kernel ``name``, or of each of its parts if there are any."""
    from kaggle_nerve.kaggle_api.account import full_ref
    from kaggle_nerve.notebooks.plans import part_name

    ref = full_ref(name, client)
    return [part_name(ref, part.number) for part in parts] or [ref]


def _refuse_timeout_alone(timeout: float | None, follow: bool) -> None:
    if timeout is not None and not follow:
        raise click.UsageError("--timeout is about watching; use it with --follow.")


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise click.UsageError(f"--set {text!r} must be NAME=VALUE.")
    return name.strip(), value.strip()
