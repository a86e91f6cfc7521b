"""Create a run, or open one by its name."""

import dataclasses
import re
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

from kaggle_nerve.errors import NerveError
from kaggle_nerve.runs.run import DECISION, SEARCH, SETTINGS, Run, is_begun, is_run
from kaggle_nerve.settings import Settings, load_settings, save_settings
from kaggle_nerve.settings.schema import COMBINE, TTA
from kaggle_nerve.storage import digest_text, write_json

NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,80}$")


def create(runs_dir: Path, name: str, settings: Settings, environment: dict[str, Any], source: str) -> Run:
    """Create the run ``name``, or open it if it exists.

    ``source`` is the digest of the training data. Raise NerveError, naming the first difference, if the
    existing run has other settings or other data; it is then left unchanged. If no epoch of it was ever finished, it
    is made anew instead.
    """
    if not NAME.match(name):
        raise NerveError(f"--run {name!r} must be a plain name of letters, digits, '.', '_', '+' and '-'.")
    run = Run(runs_dir / name, settings)
    if (run.folder / SEARCH).is_file():
        raise NerveError(f"{run.folder} is a search's, whose runs lie within; use another --run.")
    if run.settings_file.is_file():
        if difference := _difference(run, source):
            _clear_unused(run, difference)
            save_settings(settings, run.settings_file)
    else:
        save_settings(settings, run.settings_file)
    # Rewritten at each start: it describes the latest session, and holds the data's digest.
    write_json(run.environment, {"source": source, **environment})
    return run


def open_run(runs_dir: Path, name: str) -> Run:
    """Open the existing run ``name``; raise NerveError, listing the existing runs, if there is no such run.

    ``small@flips`` is run ``small`` with another test-time augmentation (`PredictionSettings.tta`), and
    ``small@flips-logits`` also combines its views in another way; raise NerveError, listing the known ones,
    for an unknown name. If the run already predicts like this, return the run itself.
    """
    plain, at, views = name.partition("@")
    folder = runs_dir / plain
    if not NAME.match(plain) or not is_run(folder):
        names = sorted(path.name for path in runs_dir.glob("*") if is_run(path))
        hint = f"there are {', '.join(names)}" if names else "there are none yet: `kaggle-nerve train-folds`"
        raise NerveError(f"No run is called {plain!r} in {runs_dir}; {hint}.")
    run = Run(folder, load_settings(folder / SETTINGS))
    return _with_views(run, views) if at else run


def sort_runs(runs: list[Run]) -> list[Run]:
    """Sort runs by name, since a blend's weights follow that order; raise NerveError if a run is named twice."""
    ordered = sorted(runs, key=lambda run: run.name)
    for one, other in pairwise(ordered):
        if one.name == other.name:
            raise NerveError(f"Run {one.name} is named twice; name each run once.")
    return ordered


def decision_file(runs: list[Run]) -> Path:
    """Return the path of the runs' decision: in the run's folder, or in a folder of the blend."""
    if len(runs) == 1:
        return runs[0].decision_file
    names = [run.name for run in sort_runs(runs)]
    return runs[0].folder.parent / f"blend-{digest_text(*names)[:12]}" / DECISION


def join_names(runs: list[Run]) -> str:
    """Join the runs' names, for file names and messages."""
    return "+".join(run.name for run in runs)


def _with_views(run: Run, views: str) -> Run:
    run_settings = run.settings.prediction
    tta, dash, combine = views.partition("-")
    combine = combine if dash else run_settings.combine
    if tta not in TTA or combine not in COMBINE:
        raise NerveError(
            f"There are no views {views!r} for run {run.name}@{views}: known are {', '.join(TTA)}, each alone or "
            f"followed by one of -{', -'.join(COMBINE)}."
        )
    prediction = dataclasses.replace(run_settings, tta=tta, combine=combine)
    if prediction == run_settings:
        return run
    # One spelling per prediction, or it would be computed twice.
    views = tta if combine == run_settings.combine else f"{tta}-{combine}"
    return Run(run.folder, dataclasses.replace(run.settings, prediction=prediction), views)


def _difference(run: Run, source: str) -> str | None:
    """Return a sentence with the first difference between the stored run and ``run``, or their data; None if equal."""
    if difference := run.settings.difference(load_settings(run.settings_file)):
        key, value, stored = difference
        return (
            f"Run {run.name} was made with {key} = {stored!r}, not {value!r}; "
            f"use the same settings to go on with it, or another --run for another run."
        )
    if run.environment.is_file() and run.session().get("source") != source:
        return f"Run {run.name} was made from other training data; use another --run for this data."
    return None


def _clear_unused(run: Run, difference: str) -> None:
    """Remove the folds of a run that never finished an epoch; raise NerveError with ``difference`` if it did."""
    folds = run.begun_folds()
    if any(fold.facts() or is_begun(fold.folder) for fold in folds):
        raise NerveError(difference)
    for fold in folds:
        with fold.lock():  # nobody trains it
            pass
        shutil.rmtree(fold.folder)
    run.folds_csv.unlink(missing_ok=True)
