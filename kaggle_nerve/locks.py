"""Locks between processes, on any file system."""

import os
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from kaggle_nerve.disk import name_in_faults
from kaggle_nerve.errors import NerveError
from kaggle_nerve.progress import SILENT, Reporter

NOTICE_SECONDS = 2.0
"""How long `wait_for_lock` waits before it says so."""

SOFT_PATIENCE = 600.0
"""How long `wait_for_lock` waits for a soft lock, whose owner may be gone."""


@contextmanager
def hold_lock(path: Path, message: str, patience: float = 0) -> Iterator[None]:
    """Hold the lock file ``path``; raise NerveError ``message`` if another process holds it for ``patience`` seconds.

    The operating system releases the lock of a killed process. Where the file system has no locks, a soft lock takes
    its place: a file that exists as long as the lock is held. If it is held, the error also names this file, since its
    owner may be gone. New versions of filelock replace the soft lock of a process that was killed on this machine.
    """
    lock = _choose_lock(path)
    try:
        lock.acquire(timeout=patience)
    except Timeout as fault:
        raise NerveError(message + _hint(lock)) from fault
    try:
        yield
    finally:
        lock.release()


@contextmanager
def wait_for_lock(path: Path, work: str, reporter: Reporter = SILENT) -> Iterator[None]:
    """Hold the lock file ``path`` as soon as no other process holds it; say so if that takes a while.

    ``work`` is what the other process does. Raise NerveError if it holds a soft lock (see `hold_lock`) for
    `SOFT_PATIENCE` seconds.
    """
    lock = _choose_lock(path)
    try:
        lock.acquire(timeout=NOTICE_SECONDS)
    except Timeout:
        reporter.say(f"Waiting for another process, which {work}.{_hint(lock)}")
        try:
            lock.acquire(timeout=SOFT_PATIENCE if isinstance(lock, SoftFileLock) else -1)
        except Timeout as fault:
            raise NerveError(
                f"Another process {work}, and has not ended for {SOFT_PATIENCE / 60:.0f} minutes.{_hint(lock)}"
            ) from fault
    try:
        yield
    finally:
        lock.release()


def _choose_lock(path: Path) -> BaseFileLock:
    path.parent.mkdir(parents=True, exist_ok=True)
    if _has_locks(path.parent):
        return FileLock(path)
    # Another name: an earlier lock file, or one that was copied with its folder, would count as held.
    return SoftFileLock(path.with_name(f"{path.name}.soft"))


def _has_locks(folder: Path) -> bool:
    """Try to lock a new file in ``folder``, which nobody else can hold.

    File systems without locks fail in many ways, and some versions of filelock take each of them for a held lock.
    """
    with name_in_faults(folder):
        handle, name = tempfile.mkstemp(dir=folder, prefix=".lock-")
    os.close(handle)
    lock = FileLock(name)
    try:
        with warnings.catch_warnings(action="ignore"):
            lock.acquire(timeout=0)
        lock.release()
        return True
    except (OSError, NotImplementedError):  # Timeout is an OSError
        return False
    finally:
        Path(name).unlink(missing_ok=True)


def _hint(lock: BaseFileLock) -> str:
    """Return a sentence on the file and owner of a soft lock; nothing for a lock of the operating system."""
    if not isinstance(lock, SoftFileLock):
        return ""
    owner = "a process"
    with suppress(OSError, ValueError):
        pid, host = Path(lock.lock_file).read_text(encoding="utf-8").split("\n")[:2]
        owner = f"process {int(pid)} on {host}"
    return (
        f" If that is {owner} which no longer runs, delete {lock.lock_file} and run the same command again."
    )
