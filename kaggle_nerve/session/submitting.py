"""The last stage of a notebook: predict, decide, write submission.csv."""

from collections.abc import Sequence
from pathlib import Path

from kaggle_nerve import devices, pipeline
from kaggle_nerve.decision import text
from kaggle_nerve.errors import NerveError
from kaggle_nerve.runs import Run, open_run
from kaggle_nerve.runs.run import SETTINGS
from kaggle_nerve.session.console import ConsoleReporter
from kaggle_nerve.session.places import Places, attached_runs, copy_attached_runs, find_data, find_places


def submit(runs: Sequence[str] = ()) -> None:
    """Write submission.csv from the attached runs named in ``runs``, such as ``small`` or ``small@flips``, or
    from all.

    Missing predictions and decisions are made; several runs are blended. Raises NerveError if no run is
    attached.
    """
    devices.prepare_environment()
    places, reporter = find_places(), ConsoleReporter()
    data = find_data(places)
    attached = {folder.name for folder in attached_runs(places, data)}
    copy_attached_runs(places, data)
    names = list(runs) or sorted(attached)
    if not names:
        raise NerveError(
            f"No run is attached: there is no {SETTINGS} under {places.input}; add the output of "
            "nerve-train-folds, or the dataset that `kaggle-nerve kernels dataset` made, with 'Add Input'."
        )
    write_submission([open_run(places.runs, name) for name in names], data, places, reporter)


def write_submission(runs: list[Run], data: Path, places: Places, reporter: ConsoleReporter) -> None:
    """Write the notebook's submission.csv from ``runs`` and print the score to expect."""
    prepared = pipeline.prepare(runs, data, places.submission, reporter=reporter)
    reporter.say("")
    reporter.say(text.comparison(prepared.decision))
    reporter.say(text.summary(prepared.decision))
    report = prepared.report
    reporter.say(f"{places.submission}: {report.rows} rows, {report.non_empty} with a mask, valid")
