"""Copy a fold's folder to another machine while it is trained, consistent at every moment."""

import os
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from kaggle_nerve.runs.run import LOCK, STATE
from kaggle_nerve.storage import COMPLETE, atomic_path

POINTERS = (STATE, COMPLETE)
"""Files that say which other files count. They are written last."""

LOGS = ("worker.log", "events.out.tfevents.*")
"""Files that only grow. Every other file is replaced by another, perhaps with the same inode."""

TRIES = 5
"""Readings of a folder that training changes meanwhile, before the next call tries again."""


@dataclass(frozen=True)
class Change:
    """Content of a file from byte ``offset`` on; with offset 0, the whole file. ``path`` is relative."""

    path: str
    offset: int
    data: bytes


@dataclass(frozen=True)
class Update:
    """Files that were changed, pointers last, and the relative paths of those that were removed."""

    changes: list[Change]
    removed: list[str]


@dataclass(frozen=True)
class _Stamp:
    inode: int
    size: int
    time: int


class Mirror:
    """Tells what has changed in ``folder`` since the last call; what is there already counts as known."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._stamps = self._list()

    def update(self) -> Update:
        """Return the changes since the last call.

        Training writes files first, then a pointer, then removes older files. So if no pointer has changed while the
        files were read, they belong together; otherwise they are read again, or nothing is returned.
        """
        for _ in range(TRIES):
            pointers, stamps = self._pointers(), self._list()
            try:
                changes = [
                    self._change(path, stamp) for path, stamp in stamps.items() if self._is_new(path, stamp)
                ]
            except FileNotFoundError:
                continue
            if self._pointers() == pointers:
                removed = sorted(self._stamps.keys() - stamps.keys())
                self._stamps = stamps
                return Update(sorted(changes, key=_order), removed)
        return Update([], [])

    def _is_new(self, path: str, stamp: _Stamp) -> bool:
        return self._stamps.get(path) != stamp

    def _change(self, path: str, stamp: _Stamp) -> Change:
        """Read a file, or the new end of a log."""
        known, is_log = self._stamps.get(path), any(fnmatch(Path(path).name, pattern) for pattern in LOGS)
        offset = known.size if known and is_log and known.size <= stamp.size else 0
        with (self._folder / path).open("rb") as file:
            file.seek(offset)
            return Change(path, offset, file.read(stamp.size - offset))

    def _pointers(self) -> dict[Path, bytes]:
        pointers = {}
        for path in visible_files(self._folder):
            if path.name not in POINTERS:
                continue
            with suppress(FileNotFoundError):
                pointers[path] = path.read_bytes()
        return pointers

    def _list(self) -> dict[str, _Stamp]:
        stamps = {}
        for path in visible_files(self._folder):
            with suppress(FileNotFoundError):
                status = path.stat()
                name = path.relative_to(self._folder).as_posix()
                stamps[name] = _Stamp(status.st_ino, status.st_size, status.st_mtime_ns)
        return stamps


def visible_files(folder: Path) -> list[Path]:
    """List the files in ``folder`` and below, sorted, without locks and temporary files.

    Folders may vanish meanwhile.
    """
    files = []
    for root, _, names in os.walk(folder):
        files += [Path(root) / name for name in names if not name.startswith(".")]
    return sorted(files)


def remove_temporary(folder: Path) -> None:
    """Remove what a kill has left of files that `apply` was writing; nothing else writes in ``folder``."""
    for root, _, names in os.walk(folder):
        for name in names:
            if name.startswith(".") and not name.startswith(LOCK):
                (Path(root) / name).unlink(missing_ok=True)


def apply(update: Update, folder: Path) -> None:
    """Make the changes of ``update`` in ``folder``. A kill at any moment leaves what a kill of training would."""
    for change in update.changes:
        path = folder / change.path
        if change.offset:
            with path.open("r+b") as file:
                file.truncate(change.offset)
                file.seek(change.offset)
                file.write(change.data)
        else:
            with atomic_path(path) as temporary:
                temporary.write_bytes(change.data)
    for name in update.removed:
        path = folder / name
        path.unlink(missing_ok=True)
        if path.parent != folder:
            with suppress(OSError):  # it is not empty
                path.parent.rmdir()


def _order(change: Change) -> int:
    name = Path(change.path).name
    # A finished fold counts as finished before anything of its checkpoint.
    return POINTERS.index(name) + 1 if name in POINTERS else 0
