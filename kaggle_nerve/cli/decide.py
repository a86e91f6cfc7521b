"""The commands `predict` and `tune`."""

from pathlib import Path

import click

from kaggle_nerve.cli import options

# Copies of the lists in decision.candidates and decision.shaping, whose import would slow down --help.
RULES = ("fixed", "area", "thresholds", "triplet", "classifier", "expected")
SHAPES = ("none", "largest", "close", "smooth", "hull", "ellipse", "prior", "crf")


@click.command()
@options.run_option
@click.option(
    "--frame",
    "frames",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Predict this TIFF or PNG of any size in place of the test frames; may be given several times.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="PNG_or_FOLDER",
    help="Where the overlays of --frame go; the mask of one.png is one-mask.png.",
)
@options.data_option
@options.runs_option
@options.force_option
@options.workers_option
@options.json_option
def predict(
    run_name: str,
    frames: tuple[Path, ...],
    out: Path | None,
    data_dir: Path,
    runs_dir: Path,
    force: bool,
    workers: int,
    as_json: bool,
) -> None:
    """Write the test probabilities of a run's ensemble, or try the run on single pictures.

    small@flips predicts with run small and other views, its held-out frames too: none, hflip, flips or
    scales; small@flips-agreement combines them in another way than small: mean, logits or agreement.
    tune and submit take such names as well.

    With --frame it draws the outline that the run's decision gives a picture, and writes the mask beside it.

    \b
    Example: kaggle-nerve predict --run small
             kaggle-nerve predict --run small@flips-agreement
             kaggle-nerve predict --run small --frame scan.png --out overlay.png
    """
    if bool(frames) != (out is not None):
        raise click.UsageError("--frame and --out belong together.")
    if out is not None:
        _try_frames(run_name, frames, out, data_dir, runs_dir, workers, as_json)
        return
    from kaggle_nerve.cli.backend import load_keras
    from kaggle_nerve.cli.terminal import TerminalReporter
    from kaggle_nerve.data.frames import locate
    from kaggle_nerve.runs import open_run

    run, reporter = open_run(runs_dir, run_name), TerminalReporter()
    locate(data_dir)
    load_keras()
    from kaggle_nerve.prediction.ensemble import predict_test
    from kaggle_nerve.prediction.held_out import predict_oof

    predict_oof(run, data_dir, force=force, reporter=reporter, workers=workers)
    folder = predict_test(run, data_dir, force=force, reporter=reporter, workers=workers)
    if as_json:
        options.print_json({"folder": str(folder)})
    else:
        click.echo(f"Test probabilities are in {folder}")


def _try_frames(
    run_name: str,
    frames: tuple[Path, ...],
    out: Path,
    data_dir: Path,
    runs_dir: Path,
    workers: int,
    as_json: bool,
) -> None:
    from kaggle_nerve.cli.backend import load_keras
    from kaggle_nerve.cli.terminal import TerminalReporter
    from kaggle_nerve.data.picture import read_picture
    from kaggle_nerve.runs import open_run

    run = open_run(runs_dir, run_name)
    for frame in frames:
        read_picture(frame)  # loading Keras takes long: name a wrong file before it
    load_keras()
    from kaggle_nerve.trial import try_frames

    trials = try_frames(run, frames, out, data_dir, reporter=TerminalReporter(), workers=workers)
    if as_json:
        options.print_json([trial.as_dict() for trial in trials])
        return
    for trial in trials:
        click.echo(f"{trial.frame}: presence {trial.presence:.3f}, {trial.verdict}; {trial.overlay}")


@click.command()
@click.option(
    "--run",
    "run_names",
    required=True,
    multiple=True,
    metavar="NAME",
    help="The run; more than one: their blend.",
)
@click.option("--rule", type=click.Choice(RULES), help="Take this rule.  [default: the best, see below]")
@click.option("--shape", type=click.Choice(SHAPES), help="Finish masks this way.  [default: the best]")
@click.option("--blend", metavar="WAY", help="Combine runs this way.  [default: the best]")
@options.data_option
@options.runs_option
@options.force_option
@options.workers_option
@options.json_option
def tune(
    run_names: tuple[str, ...],
    rule: str | None,
    shape: str | None,
    blend: str | None,
    data_dir: Path,
    runs_dir: Path,
    force: bool,
    workers: int,
    as_json: bool,
) -> None:
    """Learn the decision on out-of-fold predictions: from probabilities to the masks that score best.

    Rules, shapes and, with several runs, blends are compared nested by patient; of those within noise of
    the best the simplest is taken, unless you name one. submit applies the decision that lies there.
    Blends are a run's name, mean, logits, agreement, weights and vote. The crf is compared only where
    --shape asks for it, for it takes minutes.

    \b
    Example: kaggle-nerve tune --run small
             kaggle-nerve tune --run small@flips --run tiny --blend logits
             kaggle-nerve tune --run small --rule expected --shape none
    """
    from kaggle_nerve import pipeline
    from kaggle_nerve.cli.terminal import TerminalReporter
    from kaggle_nerve.decision import text
    from kaggle_nerve.runs import decision_file, open_run

    choices = {"rule": rule, "shape": shape, "blend": blend}
    runs = [open_run(runs_dir, name) for name in run_names]
    decision = pipeline.learn_decision(
        runs,
        data_dir,
        user_choices={what: name for what, name in choices.items() if name},
        force=force,
        reporter=TerminalReporter(),
        workers=workers,
    )
    if as_json:
        options.print_json(decision.as_dict())
        return
    click.echo(text.comparison(decision))
    click.echo(text.summary(decision))
    click.echo(f"Stored in {decision_file(runs)}")
