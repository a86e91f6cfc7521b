"""A training notebook: take over earlier work, train what is missing, then write submission.csv."""

import time
from collections.abc import Sequence

from kaggle_nerve import devices
from kaggle_nerve.competition.facts import SESSION_HOURS
from kaggle_nerve.errors import NerveError
from kaggle_nerve.session.console import ConsoleReporter
from kaggle_nerve.session.places import find_data, here, take_over
from kaggle_nerve.session.submitting import write_submission
from kaggle_nerve.settings import Settings, default_name, load_preset
from kaggle_nerve.training.run_folds import FoldsError, train_folds

WITH_GPU, WITHOUT_GPU = "default", "small"
"""Presets that are taken where the user names none."""

FINISHING = 0.1
"""Share of the hours that is kept for predicting the test frames and writing the file, at most `LONGEST`."""

LONGEST = 0.75
"""Hours."""


def train(
    preset: str | None = None,
    folds: int | str | None = None,
    hours: float = 11.0,
    shorten: bool = False,
    changes: Sequence[str] = (),
    run: str | None = None,
) -> None:
    """Train what is missing of a run's folds within ``hours``; then decide and write submission.csv.

    Goes on with the run where an attached earlier output holds it. What does not fit into ``hours`` is left
    for the next session, or, with ``shorten``, every fold is trained for fewer epochs. Folds are spread over
    the GPUs. The rest is as the command line's ``train-folds`` and ``submit`` have it.

    Raises NerveError, in one sentence, for whatever cannot be done; folds that failed are named at the end.
    """
    began = time.monotonic()
    if not 0 < hours <= SESSION_HOURS:
        raise NerveError(
            f"HOURS = {hours} must lie above 0 and at most at {SESSION_HOURS:g}, Kaggle's own limit."
        )
    left = 3600 * (hours - min(FINISHING * hours, LONGEST))
    places, reporter = here(), ConsoleReporter()
    data = find_data(places)
    reporter.say(f"The competition's data is in {data}")
    settings, name = _settings(preset, folds, changes, reporter)
    name = run or name
    for taken in take_over(places, data):
        reporter.say(f"Going on with what is attached: {taken}")
    try:
        trained, results = train_folds(
            data,
            places.runs,
            name,
            settings,
            time_budget=left if shorten else None,
            stop=lambda: time.monotonic() - began > left,
            reporter=reporter,
        )
        failed = None
    except FoldsError as fault:
        trained, results, failed = fault.run, fault.results, fault
    for result in results:
        reporter.say(result.sentence)
    if failed:
        raise failed
    if not all(result.finished for result in results):
        reporter.say(
            f"The {hours:g} hours are over. Save this version, attach its output to the notebook ('Add Input', "
            "'Notebooks') and run it again: it goes on from here."
        )
    if trained.finished_folds():
        write_submission([trained], data, places, reporter)
    else:
        reporter.say("No fold is finished yet, so there is no submission.csv.")


def _settings(
    preset: str | None, folds: int | str | None, changes: Sequence[str], reporter: ConsoleReporter
) -> tuple[Settings, str]:
    """What to train with, and the run's name."""
    if preset is None:
        gpus = len(devices.visible())
        preset = WITH_GPU if gpus else WITHOUT_GPU
        reporter.say(f"Preset {preset}: {'there is no GPU' if not gpus else f'for {gpus} GPU(s)'}.")
    fixed = () if folds is None else (f"folds={folds}",)
    settings = load_preset(preset, (*changes, *fixed))
    return settings, default_name(preset, settings)
