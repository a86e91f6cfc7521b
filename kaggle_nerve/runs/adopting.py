"""Runs brought from elsewhere: what a Kaggle notebook made goes on on a laptop, and the other way round."""

import shutil
from contextlib import nullcontext
from pathlib import Path

from kaggle_nerve.errors import NerveError
from kaggle_nerve.runs.run import LOCK, SETTINGS, Run, is_begun, is_run
from kaggle_nerve.settings import load_settings
from kaggle_nerve.storage import completed, locked


def adopt(found: Path, runs_dir: Path) -> list[str]:
    """Copy what ``found``, a run's folder or a folder of runs, has and ``runs_dir`` has not.

    Returns a line for each run. Finished folds take the place of unfinished ones, begun ones of none; what is
    finished in ``runs_dir`` stays. Each folder is copied aside and renamed, so that a kill leaves no half of it.

    Raises NerveError, before anything is copied, where a run of the same name has other settings or data, or where
    what has its name is no run; OSError where the disk does not take the copy.
    """
    return [_take(folder, runs_dir / folder.name) for folder in check(found, runs_dir)]


def check(found: Path, runs_dir: Path) -> list[Path]:
    """The folders of the runs in ``found``. NerveError where ``runs_dir`` has another run, or something that is no
    run, of the same name."""
    folders = [found] if is_run(found) else sorted(folder for folder in found.glob("*") if is_run(folder))
    for folder in folders:
        target = runs_dir / folder.name
        if not is_run(target):
            _refuse_replacing(target)
        elif difference := _difference(folder, target):
            raise NerveError(
                f"{folder} and {target} are two runs of one name, with {difference}: rename the folder of one of "
                "them, or use another folder of runs."
            )
    return folders


def _refuse_replacing(target: Path) -> None:
    """NerveError unless ``target`` is free: what lies there would be gone."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise NerveError(
            f"{target} is in the way of a run of that name, and is no run itself, since it has no {SETTINGS}: "
            "move it away, or use another folder of runs."
        )


def _difference(source: Path, target: Path) -> str:
    """What makes two folders two runs; "" where they are one: settings, data, or who is held out where."""
    theirs, mine = _run(source), _run(target)
    if difference := theirs.settings.difference(mine.settings):
        key, value, other = difference
        return f"{key} = {value!r} and {other!r}"
    data = theirs.session().get("source"), mine.session().get("source")
    if None not in data and data[0] != data[1]:
        return "other training data"
    folds = [run.folds_csv.read_text(encoding="utf-8") for run in (theirs, mine) if run.folds_csv.is_file()]
    return f"other {mine.folds_csv.name}" if len(set(folds)) > 1 else ""


def _take(source: Path, target: Path) -> str:
    if not is_run(target):
        _copy(source, target)
        return f"run {target.name} with {len(_run(target).finished_folds())} finished folds"
    taken = [folder for folder in sorted(source.iterdir()) if folder.is_dir() and _is_ahead(folder, target)]
    for folder in taken:
        told = f"Another process works on {target / folder.name}: wait until it has ended, and run again."
        with locked(target / folder.name / LOCK, told) if (target / folder.name).exists() else nullcontext():
            _copy(folder, target / folder.name)
    names = ", ".join(folder.name for folder in taken) or "nothing new"
    return f"run {target.name}: {names}"


def _is_ahead(folder: Path, target: Path) -> bool:
    """Whether a folder of a run has come further than its namesake in ``target``."""
    mine = target / folder.name
    if completed(mine):
        return False
    return bool(completed(folder)) or (is_begun(folder) and not is_begun(mine)) or not mine.exists()


def _run(folder: Path) -> Run:
    return Run(folder, load_settings(folder / SETTINGS))


def _copy(source: Path, target: Path) -> None:
    """Put a copy of folder ``source`` in ``target``'s place, whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.parent / f".adopting-{target.name}"
    shutil.rmtree(aside, ignore_errors=True)  # what a kill left
    copied = aside / "new"
    try:
        _copy_files(source, copied)
        if target.exists():
            target.rename(aside / "old")
        copied.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _copy_files(source: Path, target: Path) -> None:
    """As shutil.copytree, but a full disk is the OSError that it is, and what was read-only can be written to."""
    target.mkdir(parents=True)
    for path in sorted(source.iterdir()):
        if path.is_dir():
            _copy_files(path, target / path.name)
        elif path.name != LOCK:
            shutil.copyfile(path, target / path.name)
