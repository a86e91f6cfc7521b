"""Training notebook: continue earlier work, train missing folds, then write submission.csv."""

import time
from collections.abc import Sequence

from kaggle_nerve import devices
from kaggle_nerve.competition.facts import SESSION_HOURS
from kaggle_nerve.errors import NerveError
from kaggle_nerve.session.console import ConsoleReporter
from kaggle_nerve.session.places import copy_attached_runs, find_data, find_places
from kaggle_nerve.session.submitting import write_submission
from kaggle_nerve.settings import Settings, default_name, load_preset
from kaggle_nerve.settings.parts import parse_part
from kaggle_nerve.settings.schema import FoldName
from kaggle_nerve.training.run_folds import FoldsError, train_folds

WITH_GPU, WITHOUT_GPU = "default", "small"
"""Default presets."""

FINISHING = 0.1
"""Share of the hours reserved for predicting the test frames and writing the file, at most `LONGEST`."""

LONGEST = 0.75
"""Hours."""


def train(
    preset: str | None = None,
    folds: int | str | None = None,
    hours: float = 11.0,
    shorten: bool = False,
    changes: Sequence[str] = (),
    run: str | None = None,
    part: str | None = None,
) -> None:
    """Train a run's missing folds within ``hours``; then decide and write submission.csv.

    Continues a run found in an attached earlier output. Folds that do not fit into ``hours`` are left for the
    next session or, with ``shorten``, every fold is trained for fewer epochs. Folds are spread over the GPUs.
    With ``part``, such as ``1/2``, only the folds of this part are trained (see `Part.folds`), and submission.csv is
    written only if attached outputs hold all the others.
    The other arguments are those of the command line's ``train-folds`` and ``submit``.

    Raises NerveError, in one sentence, for whatever cannot be done; failed folds are named at the end.
    """
    start = time.monotonic()
    devices.prepare_environment()
    if not 0 < hours <= SESSION_HOURS:
        raise NerveError(
            f"HOURS = {hours} must lie above 0 and at most at {SESSION_HOURS:g}, Kaggle's own limit."
        )
    seconds = 3600 * (hours - min(FINISHING * hours, LONGEST))
    places, reporter = find_places(), ConsoleReporter()
    data = find_data(places)
    reporter.say(f"The competition's data is in {data}")
    settings, name = _settings(preset, folds, changes, reporter)
    name = run or name
    own_part = None if part is None else parse_part(part)
    own_folds = own_part and own_part.folds(settings)
    if own_folds:
        reporter.say(f"Part {own_part} of run {name}: {_join(own_folds)}")
    for line in copy_attached_runs(places, data):
        reporter.say(f"Going on with what is attached: {line}")
    try:
        trained_run, results = train_folds(
            data,
            places.runs,
            name,
            settings,
            fold=own_folds,
            time_budget=seconds if shorten else None,
            stop=lambda: time.monotonic() - start > seconds,
            reporter=reporter,
        )
        error = None
    except FoldsError as fault:
        trained_run, results, error = fault.run, fault.results, fault
    for result in results:
        reporter.say(result.sentence)
    if error:
        raise error
    if not all(result.finished for result in results):
        reporter.say(
            f"The {hours:g} hours are over. Save this version, attach its output to the notebook ('Add Input', "
            "'Notebooks') and run it again: it goes on from here."
        )
    if own_part and (missing_folds := trained_run.missing_folds()):
        reporter.say(
            f"Part {own_part} writes no submission.csv, since run {name} lacks {_join(missing_folds)} here: attach the "
            "outputs of all parts to nerve-predict-submit, or join them on your machine with `kaggle-nerve kernels "
            f"output nerve-train-folds --split {own_part.count}`."
        )
    elif trained_run.finished_folds():
        write_submission([trained_run], data, places, reporter)
    else:
        reporter.say("No fold is finished yet, so there is no submission.csv.")


def _join(folds: Sequence[FoldName]) -> str:
    return f"fold{'s' * (len(folds) > 1)} {', '.join(map(str, folds))}"


def _settings(
    preset: str | None, folds: int | str | None, changes: Sequence[str], reporter: ConsoleReporter
) -> tuple[Settings, str]:
    """Return the settings to train with, and the run's name."""
    if preset is None:
        gpus = len(devices.visible_gpus())
        preset = WITH_GPU if gpus else WITHOUT_GPU
        reporter.say(f"Preset {preset}: {'there is no GPU' if not gpus else f'for {gpus} GPU(s)'}.")
    fold_change = () if folds is None else (f"folds={folds}",)
    settings = load_preset(preset, (*changes, *fold_change))
    return settings, default_name(preset, settings)
