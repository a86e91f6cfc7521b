"""predict and tune."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kaggle_nerve.cli import options

if TYPE_CHECKING:
    from kaggle_nerve.decision.tune import Decision


@click.command()
@options.run_option
@options.data_option
@options.runs_option
@options.force_option
@options.workers_option
def predict(run_name: str, data_dir: Path, runs_dir: Path, force: bool, workers: int) -> None:
    """Write the test probabilities of a run's ensemble.

    \b
    Example: kaggle-nerve predict --run small
    """
    from kaggle_nerve.cli.terminal import TerminalReporter, load_keras

    load_keras()
    from kaggle_nerve.prediction.ensemble import predict_test
    from kaggle_nerve.runs import open_run

    run = open_run(runs_dir, run_name)
    folder = predict_test(run, data_dir, force=force, reporter=TerminalReporter(), workers=workers)
    click.echo(f"Test probabilities are in {folder}")


@click.command()
@click.option(
    "--run",
    "run_names",
    required=True,
    multiple=True,
    metavar="NAME",
    help="The run; more than one: their blend.",
)
@options.data_option
@options.runs_option
@options.force_option
@options.workers_option
@options.json_option
def tune(
    run_names: tuple[str, ...], data_dir: Path, runs_dir: Path, force: bool, workers: int, as_json: bool
) -> None:
    """Learn the decision (thresholds) on a run's out-of-fold predictions.

    \b
    Example: kaggle-nerve tune --run small
    """
    from kaggle_nerve import pipeline
    from kaggle_nerve.cli.terminal import TerminalReporter
    from kaggle_nerve.runs import open_run

    runs = [open_run(runs_dir, name) for name in run_names]
    decision = pipeline.learn_decision(
        runs, data_dir, force=force, reporter=TerminalReporter(), workers=workers
    )
    if as_json:
        options.print_json(asdict(decision))
        return
    print_decision(decision)
    click.echo(f"Stored in {pipeline.decision_file(runs)}")


def print_decision(decision: "Decision") -> None:
    """The rule and what it was chosen on, for people."""
    rule, figures = decision.rule, decision.figures
    auc = "-" if figures.presence_auc is None else f"{figures.presence_auc:.3f}"
    click.echo(
        f"Rule: pixels from probability {rule.threshold:g}, masks from {rule.area} pixels, "
        f"frames from presence {rule.presence:g}"
    )
    click.echo(
        f"Out-of-fold mean Dice {figures.dice:.4f} (95 % interval over patients {figures.low:.4f} to "
        f"{figures.high:.4f}), all-empty {figures.all_empty:.4f}"
    )
    click.echo(
        f"On {figures.frames} frames of {figures.subjects} subjects; frames with a mask {figures.present_dice:.4f}, "
        f"presence AUC {auc}; masks on {figures.predicted_share:.1%} of frames, truly {figures.true_share:.1%}"
    )
