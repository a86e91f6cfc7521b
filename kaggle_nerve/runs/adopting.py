"""Import runs from elsewhere: continue a Kaggle notebook's run on a laptop, or the other way round."""

import shutil
from contextlib import nullcontext
from pathlib import Path

from kaggle_nerve.errors import NerveError
from kaggle_nerve.locks import hold_lock
from kaggle_nerve.runs.models import require_model
from kaggle_nerve.runs.run import LOCK, SETTINGS, Run, is_begun, is_run
from kaggle_nerve.settings import load_settings
from kaggle_nerve.storage import read_completion


def adopt(source: Path, runs_dir: Path) -> list[str]:
    """Copy what ``runs_dir`` lacks from ``source``, a run's folder or a folder of runs.

    Return a line for each run. Finished folds replace unfinished ones; unfinished folds are copied only if
    ``runs_dir`` has no checkpoint of them; finished folds in ``runs_dir`` stay. Each folder is copied to a temporary
    one and then renamed, so that a kill leaves no partial copy.

    Raise NerveError, before copying anything, if a run of the same name has other settings or data, if something
    else has its name, or if the model file of a fold to be copied is damaged; OSError if the copy cannot be written.
    """
    folders = check(source, runs_dir)
    for folder in folders:
        _refuse_damaged(folder, runs_dir / folder.name)
    return [_take(folder, runs_dir / folder.name) for folder in folders]


def check(source: Path, runs_dir: Path) -> list[Path]:
    """Return the folders of the runs in ``source``; raise NerveError if ``runs_dir`` has a different run, or
    something that is not a run, of the same name."""
    folders = [source] if is_run(source) else sorted(folder for folder in source.glob("*") if is_run(folder))
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
    """Raise NerveError if ``target`` exists and is not an empty folder: its contents would be lost."""
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise NerveError(
            f"{target} is in the way of a run of that name, and is no run itself, since it has no {SETTINGS}: "
            "move it away, or use another folder of runs."
        )


def _refuse_damaged(source: Path, target: Path) -> None:
    """Raise DamagedModelError if a finished fold that ``target`` lacks has not the model file that training left."""
    for fold in _run(source).test_folds():
        if not read_completion(target / fold.folder.name):
            require_model(fold)


def _difference(source: Path, target: Path) -> str:
    """Describe how two runs differ: in settings, data or folds; "" if they do not."""
    source_run, target_run = _run(source), _run(target)
    if difference := source_run.settings.difference(target_run.settings):
        key, value, other = difference
        return f"{key} = {value!r} and {other!r}"
    data = source_run.session().get("source"), target_run.session().get("source")
    if None not in data and data[0] != data[1]:
        return "other training data"
    folds = [
        run.folds_csv.read_text(encoding="utf-8")
        for run in (source_run, target_run)
        if run.folds_csv.is_file()
    ]
    return f"other {target_run.folds_csv.name}" if len(set(folds)) > 1 else ""


def _take(source: Path, target: Path) -> str:
    if not is_run(target):
        _copy(source, target)
        return f"run {target.name} with {len(_run(target).finished_folds())} finished folds"
    folders = [folder for folder in sorted(source.iterdir()) if folder.is_dir() and _is_ahead(folder, target)]
    for folder in folders:
        message = f"Another process works on {target / folder.name}: wait until it has ended, and run again."
        with (
            hold_lock(target / folder.name / LOCK, message)
            if (target / folder.name).exists()
            else nullcontext()
        ):
            _copy(folder, target / folder.name)
    names = ", ".join(folder.name for folder in folders) or "nothing new"
    return f"run {target.name}: {names}"


def _is_ahead(folder: Path, target: Path) -> bool:
    """Return whether a folder of a run is further along than the one of the same name in ``target``."""
    counterpart = target / folder.name
    if read_completion(counterpart):
        return False
    return (
        bool(read_completion(folder))
        or (is_begun(folder) and not is_begun(counterpart))
        or not counterpart.exists()
    )


def _run(folder: Path) -> Run:
    return Run(folder, load_settings(folder / SETTINGS))


def _copy(source: Path, target: Path) -> None:
    """Replace ``target`` by a copy of folder ``source``, completely or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.parent / f".adopting-{target.name}"
    shutil.rmtree(aside, ignore_errors=True)  # left by a kill
    copied = aside / "new"
    try:
        _copy_files(source, copied)
        if target.exists():
            target.rename(aside / "old")
        copied.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _copy_files(source: Path, target: Path) -> None:
    """Do as shutil.copytree, but raise a full disk's own OSError, and make copies of read-only files writable."""
    target.mkdir(parents=True)
    for path in sorted(source.iterdir()):
        if path.is_dir():
            _copy_files(path, target / path.name)
        elif not path.name.startswith(LOCK):
            shutil.copyfile(path, target / path.name)
