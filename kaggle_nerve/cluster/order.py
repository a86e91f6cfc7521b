"""What the training of a fold needs on another machine: files of its run, and those that its settings name."""

from dataclasses import dataclass
from pathlib import Path, PurePath

from kaggle_nerve.cluster.mirror import visible_files
from kaggle_nerve.errors import NerveError
from kaggle_nerve.runs import Fold
from kaggle_nerve.runs.run import Run, is_begun, is_run
from kaggle_nerve.settings.schema import FoldName
from kaggle_nerve.storage import COMPLETE, digest_file

RUNS, WORK = "runs", "work"
"""Folders on the node: of runs, and the one that the worker works in."""


@dataclass(frozen=True)
class FoldOrder:
    """Order to train a fold on a node.

    ``files``: contents by path below the node's scratch folder; ``fixed_files``: SHA-256 by absolute path of files
    that the node must have itself. ``seconds``: how long training may take, or None. ``jobs``: how many folds are
    trained side by side. ``cpus`` and ``gpus``: what the fold may use. ``variables``: environment variables.
    """

    run: str
    fold: FoldName
    files: dict[str, bytes]
    fixed_files: dict[str, str]
    seconds: float | None
    jobs: int
    cpus: int
    gpus: float
    variables: dict[str, str]


def files_of(fold: Fold) -> dict[str, bytes]:
    """Read the files that a node needs to begin or resume ``fold``, by their path below its scratch folder.

    These are the run's own, what tells that other folds are finished, and what ``training.start`` and other settings
    name by a relative path.
    """
    run = fold.run
    paths = [path for path in run.folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    paths += [other.folder / COMPLETE for other in run.begun_folds() if other.number != fold.number]
    paths += [path for path in visible_files(fold.folder) if path != fold.log]
    runs_dir = run.folder.parent
    files = {PurePath(RUNS) / path.relative_to(runs_dir): path for path in paths}
    start = run.settings.training.start
    if start and not _is_path(start) and is_run(runs_dir / start):
        files |= _start_files(runs_dir / start, PurePath(RUNS) / start, fold)
    for name in filter(_is_below, _named_paths(fold)):
        target = PurePath(WORK) / name
        files |= {target: Path(name)} if Path(name).is_file() else _start_files(Path(name), target, fold)
    return {target.as_posix(): path.read_bytes() for target, path in files.items() if path.is_file()}


def fixed_files_of(fold: Fold) -> dict[str, str]:
    """Return the SHA-256 of each file that the settings of ``fold`` name by an absolute path.

    Raise NerveError for what can neither be sent nor be looked for there: a path with ``..``, and the absolute path of
    a run to start from.
    """
    digests = {}
    for name in _named_paths(fold):
        path = Path(name)
        if _is_below(name):
            continue
        if path.is_dir() or not path.is_absolute():
            raise NerveError(
                f"{name} cannot be sent to a cluster: name it by a path below the current folder, or a run to start "
                "from by its name in --runs."
            )
        digests[name] = digest_file(path)
    return digests


def _named_paths(fold: Fold) -> list[str]:
    """List the files and folders that the settings of ``fold`` name; a begun fold needs no start."""
    settings = fold.run.settings
    training, weights = settings.training, settings.model.weights
    named = [training.noise_table, weights]
    if not is_begun(fold.folder):
        named.append(training.start)
    return [name for name in named if name and _is_path(name)]


def _is_path(name: str) -> bool:
    """Return whether ``name`` is the path of a file or of a run."""
    return Path(name).is_file() or is_run(Path(name))


def _is_below(name: str) -> bool:
    """Return whether a path is relative and stays below the working folder."""
    path = PurePath(name)
    return not path.is_absolute() and ".." not in path.parts


def _start_files(folder: Path, target: PurePath, fold: Fold) -> dict[PurePath, Path]:
    """Map the files of the run in ``folder`` from which ``fold`` starts."""
    source = Run(folder, fold.run.settings)
    other = source.fold(fold.number)
    paths = [source.settings_file, source.folds_csv, other.model, other.folder / COMPLETE]
    return {target / path.relative_to(folder): path for path in paths}
