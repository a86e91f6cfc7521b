"""The command `search`."""

import time
from functools import partial
from pathlib import Path

import click

from kaggle_nerve.cli import options
from kaggle_nerve.cli.clusters import cluster_options, machines, require_cluster
from kaggle_nerve.errors import NerveError
from kaggle_nerve.settings import apply_changes, default_name, load_preset

# A copy of the names in search.objectives, whose import would slow down --help.
OBJECTIVES = ("dice", "present_dice", "kept_present_dice", "presence_auc")
PRUNERS = ("median", "hyperband", "none")


@click.command()
@click.option(
    "--preset",
    default="default",
    show_default=True,
    metavar="NAME_or_FILE",
    help="Settings to start from: kaggle-nerve presets, or a TOML file.",
)
@click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change one setting; may be repeated."
)
@click.option(
    "--space",
    "space_file",
    type=options.FILE,
    metavar="TOML",
    help="What to vary: docs/search.md.  [default: learning rate, batch, augmentation and the like]",
)
@click.option("--trials", "count", type=click.IntRange(2), default=20, show_default=True, help="In all.")
@click.option(
    "--name", metavar="NAME", help="The search's name.  [default: search-PRESET, with a tag for --set]"
)
@click.option(
    "--folds",
    metavar="K",
    help="Folds of a trial: their number, or a hold-out such as 42/5.  [default: the preset's]",
)
@click.option(
    "--objective",
    type=click.Choice(OBJECTIVES),
    default="dice",
    show_default=True,
    help="Figure to maximise, out-of-fold and nested by patient.",
)
@click.option(
    "--pruner",
    type=click.Choice(PRUNERS),
    default="median",
    show_default=True,
    help="How to give up trials whose epochs score badly.",
)
@click.option(
    "--storage",
    "storage",
    default="sqlite",
    show_default=True,
    metavar="sqlite|journal|URL",
    help="Where trials are stored: a file in the search's folder, or PostgreSQL.",
)
@click.option(
    "--keep",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    help="Of how many of the best trials to keep the runs.",
)
@click.option("--jobs", type=click.IntRange(1), metavar="N", help="Folds of a trial trained side by side.")
@cluster_options
@click.option(
    "--at-once",
    type=click.IntRange(1),
    metavar="N",
    help="With --cluster: trials at once.  [default: as many as the GPUs hold; 1 on cores]",
)
@click.option(
    "--trial-budget", type=options.Duration(), help="Time for training one trial, dealt over its folds."
)
@click.option("--time-budget", type=options.Duration(), help="End after this time, as Ctrl-C does.")
@click.option("--seed", type=click.IntRange(0), help="Seed of folds, weights and of the search itself.")
@options.data_option
@options.runs_option
@options.workers_option
@options.json_option
def search(
    preset: str,
    changes: tuple[str, ...],
    space_file: Path | None,
    count: int,
    name: str | None,
    folds: str | None,
    objective: str,
    pruner: str,
    storage: str,
    keep: int,
    jobs: int | None,
    address: str | None,
    gpus_per_fold: float | None,
    cpus_per_fold: int | None,
    at_once: int | None,
    trial_budget: float | None,
    time_budget: float | None,
    seed: int | None,
    data_dir: Path,
    runs_dir: Path,
    workers: int,
    as_json: bool,
) -> None:
    """Search settings with Optuna: trials are scored out-of-fold, nested by patient.

    The same command again goes on where it was killed or interrupted; given several times at once, on one
    storage, its trials are shared. At the end the best trial is trained again with another seed, which
    shows how much of its figure is selection. best.toml in the search's folder is a preset to train with.

    \b
    Example: kaggle-nerve search --preset small --folds 3 --trials 30
             kaggle-nerve search --preset small --space mine.toml --storage postgresql://me@host/optuna
             kaggle-nerve search --preset default --cluster auto --gpus-per-fold 0.5
             kaggle-nerve train-folds --preset runs/search-small/best.toml
    """
    require_cluster(address, gpus_per_fold=gpus_per_fold, cpus_per_fold=cpus_per_fold, at_once=at_once)
    from kaggle_nerve.search import require_package
    from kaggle_nerve.search.space import load_space

    started = time.monotonic()
    if seed is not None:
        changes += (f"seed={seed}",)
    settings, space = load_preset(preset, changes), load_space(space_file)
    trial_folds = apply_changes(settings, (f"folds={folds}",)).folds if folds else settings.folds
    if settings.training.start and not Path(settings.training.start).is_file():
        raise NerveError(
            f"training.start = {settings.training.start!r} is a run, whose folds held out other patients than those of "
            "another seed; a search starts from scratch, or from a file."
        )
    require_package("optuna")

    from kaggle_nerve.cli.backend import load_keras
    from kaggle_nerve.cli.terminal import GentleInterrupt, TerminalReporter
    from kaggle_nerve.data.cache import training_source
    from kaggle_nerve.data.frames import locate

    source = training_source(locate(data_dir))
    load_keras(deterministic=settings.training.deterministic, device=False)
    from kaggle_nerve.search import run, table
    from kaggle_nerve.search.storage import parse_place
    from kaggle_nerve.search.study import Search
    from kaggle_nerve.search.trial import Trainer
    from kaggle_nerve.training.parallel import ThisMachine
    from kaggle_nerve.training.run_folds import train_folds

    name = name or f"search-{default_name(preset, settings)}"
    searched = Search(runs_dir, name, settings, trial_folds, space, objective, pruner, source)
    place = parse_place(storage, searched.folder)
    # The cluster is joined first: Ray has a handler of its own for SIGTERM.
    with (
        machines(address, jobs, gpus_per_fold, cpus_per_fold) as cluster,
        GentleInterrupt() as interrupt,
    ):

        def stop() -> bool:
            over = time_budget is not None and time.monotonic() - started >= time_budget
            return over or interrupt.stop()

        trainer = Trainer(
            data_dir,
            partial(train_folds, machines=cluster),
            TerminalReporter(),
            stop,
            workers,
            jobs,
            time_budget=trial_budget,
        )
        fold_count = searched.plan(1).folds
        at_once = cluster.share_among(at_once, fold_count) if cluster else 1
        outcome, elsewhere = run.run_search(
            searched,
            place,
            count,
            trainer,
            keep=keep,
            side_by_side=cluster.jobs(fold_count) if cluster else ThisMachine(jobs).jobs(fold_count),
            at_once=at_once,
        )
    if elsewhere:
        click.echo(
            f"Other workers still train {elsewhere} of the trials; the last one ends the search.", err=True
        )
        return
    if outcome is None:
        raise click.Abort
    if as_json:
        options.print_json(outcome.as_dict())
        return
    click.echo(table.table(outcome))
    click.echo("")
    click.echo(table.sentence(outcome))
    click.echo(
        f"Plots and table are in {searched.folder / 'report.html'}. Next: kaggle-nerve train-folds --preset "
        f"{searched.folder / 'best.toml'}"
    )
