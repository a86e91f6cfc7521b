"""The commands `kernels build`, `check`, `push`, `status`, `output` and `dataset`."""

import tempfile
from pathlib import Path

import click

from kaggle_nerve.cli import options

timeout_option = click.option(
    "--timeout", type=options.Duration(), help="Give up watching after, such as 2h; the session goes on."
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
@click.option("--follow", is_flag=True, help="Watch the session until it ends.")
@timeout_option
def push(
    name: str,
    settings: tuple[str, ...],
    datasets: tuple[str, ...],
    sources: tuple[str, ...],
    follow: bool,
    timeout: float | None,
) -> None:
    """Push the notebook NAME as a new version, which starts its session.

    Exit code 1 if, with --follow, the session fails or does not end in time.

    \b
    Example: kaggle-nerve kernels push nerve-train-folds --set PRESET=small --set HOURS=5 --follow
             kaggle-nerve kernels push nerve-predict-submit --kernel me/nerve-train-folds
    """
    _refuse_timeout_alone(timeout, follow)
    from kaggle_nerve.cli.terminal import TerminalReporter
    from kaggle_nerve.kaggle_api.account import username
    from kaggle_nerve.kaggle_api.client import Client
    from kaggle_nerve.kaggle_api.kernels import COMPLETE, SESSION
    from kaggle_nerve.kaggle_api.kernels import follow as watch
    from kaggle_nerve.kaggle_api.kernels import push as push_folder
    from kaggle_nerve.notebooks.pushing import prepare_kernel

    client = Client()
    with tempfile.TemporaryDirectory() as folder:
        kernel_folder = prepare_kernel(
            name,
            username(client),
            Path(folder),
            settings=dict(_pair(text) for text in settings),
            datasets=datasets,
            kernels=sources,
        )
        pushed = push_folder(kernel_folder, client)
    click.echo(f"{pushed.ref} is pushed as version {pushed.version}; its page is {pushed.url}")
    if not follow:
        click.echo(f"`kaggle-nerve kernels status {pushed.ref} --follow` watches its session.")
        return
    session = watch(pushed.ref, client, timeout=timeout or SESSION, reporter=TerminalReporter())
    click.echo(f"{pushed.ref}: {session}")
    if session.status != COMPLETE:
        raise click.exceptions.Exit(1)


@kernels.command()
@click.argument("name")
@click.option("--follow", is_flag=True, help="Watch the session until it ends.")
@timeout_option
@options.json_option
def status(name: str, follow: bool, timeout: float | None, as_json: bool) -> None:
    """How the newest session of the kernel NAME (or USER/NAME) stands.

    Exit code 1 if it failed or, with --follow, did not end well in time.

    \b
    Example: kaggle-nerve kernels status nerve-train-folds
    """
    _refuse_timeout_alone(timeout, follow)
    from kaggle_nerve.cli.terminal import TerminalReporter
    from kaggle_nerve.kaggle_api.account import full_ref
    from kaggle_nerve.kaggle_api.client import Client
    from kaggle_nerve.kaggle_api.kernels import COMPLETE, ERROR, SESSION, kernel_status
    from kaggle_nerve.kaggle_api.kernels import follow as watch

    client = Client()
    ref = full_ref(name, client)
    if follow:
        session = watch(ref, client, timeout=timeout or SESSION, reporter=TerminalReporter())
    else:
        session = kernel_status(ref, client)
    if as_json:
        options.print_json({"kernel": ref, **session._asdict()})
    else:
        click.echo(f"{ref}: {session}")
    if session.status == ERROR or (follow and session.status != COMPLETE):
        raise click.exceptions.Exit(1)


@kernels.command()
@click.argument("name")
@options.runs_option
def output(name: str, runs_dir: Path) -> None:
    """Fetch the runs that the newest session of the kernel NAME (or USER/NAME) left.

    What is finished here is kept, and a run of the same name with other settings is not touched. The
    same command again goes on with an unfinished download.

    \b
    Example: kaggle-nerve kernels output nerve-train-folds --runs runs
    """
    from kaggle_nerve.cli.terminal import TerminalReporter
    from kaggle_nerve.kaggle_api.account import full_ref
    from kaggle_nerve.kaggle_api.client import Client
    from kaggle_nerve.kaggle_api.outputs import fetch_runs

    client = Client()
    for line in fetch_runs(full_ref(name, client), runs_dir, client, reporter=TerminalReporter()):
        click.echo(f"{runs_dir}: {line}")


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


def _refuse_timeout_alone(timeout: float | None, follow: bool) -> None:
    if timeout is not None and not follow:
        raise click.UsageError("--timeout is about watching; use it with --follow.")


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise click.UsageError(f"--set {text!r} must be NAME=VALUE.")
    return name.strip(), value.strip()
