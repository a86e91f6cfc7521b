"""presets and train-folds."""

from pathlib import Path

import click

from kaggle_nerve.cli import options
from kaggle_nerve.settings import Settings, dump, load_preset, preset_names


@click.command()
@click.argument("name", required=False)
@options.json_option
def presets(name: str | None, as_json: bool) -> None:
    """List the presets, or show one with all its settings.

    \b
    Example: kaggle-nerve presets small
    """
    if name:
        settings = load_preset(name)
        options.print_json(settings.flat()) if as_json else click.echo(dump(settings).strip())
        return
    listed = {each: load_preset(each) for each in preset_names()}
    if as_json:
        options.print_json({each: settings.flat() for each, settings in listed.items()})
        return
    for each, settings in listed.items():
        size = "x".join(map(str, settings.size))
        click.echo(f"{each:<12} {size:>8}  {settings.training.epochs:>3} epochs  {settings.description}")


@click.command("train-folds")
@click.option(
    "--preset", default="default", show_default=True, help="Settings to start from: kaggle-nerve presets."
)
@click.option(
    "--set", "changes", multiple=True, metavar="KEY=VALUE", help="Change one setting; may be repeated."
)
@click.option(
    "--run", "run_name", metavar="NAME", help="The run's name.  [default: the preset's, with a tag for --set]"
)
@click.option("--folds", metavar="K", help="Number of patient-grouped folds, or a hold-out such as 42/5.")
@click.option("--fold", type=click.IntRange(0), metavar="k", help="Train only this fold.")
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
    fold: int | None,
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
    """
    if folds is not None:
        changes += (f"folds={folds}",)
    if seed is not None:
        changes += (f"seed={seed}",)
    settings = load_preset(preset, changes)
    name = run_name or _default_name(preset, settings)

    from kaggle_nerve.cli.terminal import GentleInterrupt, TerminalReporter, load_keras

    load_keras()
    from kaggle_nerve.training import run_folds

    with GentleInterrupt() as interrupt:
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
        )
    if as_json:
        options.print_json({"run": run.name, "folds": [vars(result) for result in results]})
    else:
        for result in results:
            state = "finished" if result.finished else "stopped"
            click.echo(
                f"Fold {result.fold} {state} after {result.epochs} epochs: best mean Dice on its held-out "
                f"subjects {result.dice:.4f} (epoch {result.best_epoch})"
            )
    if not all(result.finished for result in results):
        raise click.Abort
    if not as_json:
        click.echo(f"Run {run.name} is in {run.folder}. Next: kaggle-nerve submit --run {run.name}")


def _default_name(preset: str, settings: Settings) -> str:
    """The preset's name; with a tag where settings were changed, so that two variants never mix."""
    changed = settings.digest() != load_preset(preset).digest()
    return f"{preset}-{settings.digest()[:6]}" if changed else preset
