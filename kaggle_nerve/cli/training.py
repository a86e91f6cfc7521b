"""The commands `presets` and `train-folds`."""

import json
import math
from pathlib import Path
from typing import Any

import click

from kaggle_nerve.cli import options
from kaggle_nerve.cli.clusters import cluster_options, machines, require_cluster
from kaggle_nerve.settings import Settings, default_name, dump, load_preset, preset_names
from kaggle_nerve.settings.schema import ALL, FoldName


@click.command()
@click.argument("name", required=False)
@options.json_option
def presets(name: str | None, as_json: bool) -> None:
    """List the presets, or show one with all its settings and its network's layers.

    A name that ends in .toml is a file of yours.

    \b
    Example: kaggle-nerve presets small
             kaggle-nerve presets runs/search-small/best.toml
    """
    if name:
        settings = load_preset(name)
        if as_json:
            options.print_json(settings.flat())
            return
        click.echo(dump(settings).strip())
        _print_layers(settings)
        return
    all_settings = {preset: load_preset(preset) for preset in preset_names()}
    if as_json:
        options.print_json({preset: settings.flat() for preset, settings in all_settings.items()})
        return
    width = max(map(len, all_settings))
    for preset, settings in all_settings.items():
        size = "x".join(map(str, settings.size))
        click.echo(
            f"{preset:<{width}}  {size:>8}  {settings.training.epochs:>3} epochs  {settings.description}"
        )


def _print_layers(settings: Settings) -> None:
    from kaggle_nerve.cli.backend import load_keras

    load_keras()
    from kaggle_nerve.models import registry, summary

    # Listing the layers needs no weights file.
    model = registry.build(registry.without_pretrained(settings))
    rows = [(*row[:3], f"{row.parameters:,}") for row in summary.layer_table(model)]
    rows = [("layer", "kind", "output", "parameters"), *rows]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    click.echo("")
    for name, kind, shape, parameters in rows:
        line = f"{name:<{widths[0]}}  {kind:<{widths[1]}}  {shape:<{widths[2]}}"
        click.echo(f"{line}  {parameters:>{widths[3]}}")
    counts = summary.parameter_counts(model)
    click.echo(f"{counts.trainable + counts.fixed:,} parameters, {counts.trainable:,} of them trained")


class Fold(click.IntRange):
    """A fold's number from 0, or ``all``."""

    name = "fold"

    def __init__(self):
        super().__init__(0)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number as an integer, or ``all``."""
        return value if value == ALL else super().convert(value, param, ctx)


@click.command("train-folds")
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
    "--run", "run_name", metavar="NAME", help="The run's name.  [default: the preset's, with a tag for --set]"
)
@click.option("--folds", metavar="K", help="Number of patient-grouped folds, or a hold-out such as 42/5.")
@click.option(
    "--jobs",
    type=click.IntRange(1),
    metavar="N",
    help="Folds trained side by side, each in a process of its own.  [default: one for each GPU]",
)
@cluster_options
@click.option(
    "--start-from",
    metavar="RUN_OR_FILE",
    help="Start from the weights of another run's folds, or of a model file (training.start).",
)
@click.option("--deterministic", is_flag=True, help="The same again, if slower (training.deterministic).")
@click.option(
    "--fold",
    type=Fold(),
    metavar="k",
    help="Train only this fold; all: a model of all subjects for the ensemble.",
)
@click.option(
    "--time-budget", type=options.Duration(), help="All the time there is, such as 30m; dealt over the folds."
)
@click.option("--seed", type=click.IntRange(0), help="Seed of folds, weights and augmentation.")
@options.data_option
@options.runs_option
@options.workers_option
@options.json_option
def train_folds(
    preset: str,
    changes: tuple[str, ...],
    run_name: str | None,
    folds: str | None,
    jobs: int | None,
    address: str | None,
    gpus_per_fold: float | None,
    cpus_per_fold: int | None,
    start_from: str | None,
    deterministic: bool,
    fold: FoldName | None,
    time_budget: float | None,
    seed: int | None,
    data_dir: Path,
    runs_dir: Path,
    workers: int,
    as_json: bool,
) -> None:
    """Train an ensemble over patient-grouped folds, with out-of-fold predictions.

    The same command again goes on where it was killed or interrupted, and skips finished folds.
    Ctrl-C once finishes the epoch first.

    \b
    Example: kaggle-nerve train-folds --preset small --folds 5 --fold 0 --time-budget 30m
             kaggle-nerve train-folds --preset small --set size=[192,256] --start-from small --jobs 2
             kaggle-nerve train-folds --preset default --cluster ray://head:10001 --gpus-per-fold 0.5
    """
    require_cluster(address, gpus_per_fold=gpus_per_fold, cpus_per_fold=cpus_per_fold)
    if folds is not None:
        changes += (f"folds={folds}",)
    if seed is not None:
        changes += (f"seed={seed}",)
    if start_from is not None:
        # Quoted: TOML would parse some run names as dates.
        changes += (f"training.start={json.dumps(start_from)}",)
    if deterministic:
        changes += ("training.deterministic=true",)
    settings = load_preset(preset, changes)
    name = run_name or default_name(preset, settings)

    from kaggle_nerve.cli.backend import load_keras
    from kaggle_nerve.cli.terminal import GentleInterrupt, TerminalReporter
    from kaggle_nerve.data.frames import locate

    locate(data_dir)
    load_keras(deterministic=settings.training.deterministic, device=False)
    from kaggle_nerve.training import run_folds

    failures: dict[FoldName, str] = {}
    # The cluster is joined first: Ray has a handler of its own for SIGTERM.
    with (
        machines(address, jobs, gpus_per_fold, cpus_per_fold) as cluster,
        GentleInterrupt() as interrupt,
    ):
        try:
            run, results = run_folds.train_folds(
                data_dir,
                runs_dir,
                name,
                settings,
                fold=fold,
                time_budget=time_budget,
                reporter=TerminalReporter(),
                stop=interrupt.stop,
                workers=workers,
                jobs=jobs,
                isolate=True,
                machines=cluster,
            )
        except run_folds.FoldsError as fault:
            run, results, failures = fault.run, fault.results, fault.failures
    if as_json:
        rows = [{key: _json_number(value) for key, value in vars(result).items()} for result in results]
        options.print_json({"run": run.name, "folds": rows, "failures": failures})
    else:
        for result in results:
            click.echo(result.sentence)
    if failures:
        rest = "Finished folds are kept; the same command tries the others again."
        raise click.ClickException("\n".join([*failures.values(), rest]))
    if not all(result.finished for result in results):
        raise click.Abort
    if not as_json:
        click.echo(f"Run {run.name} is in {run.folder}. Next: kaggle-nerve submit --run {run.name}")


def _json_number(value: Any) -> Any:
    """Replace NaN by None, since JSON has no NaN."""
    return None if isinstance(value, float) and math.isnan(value) else value
