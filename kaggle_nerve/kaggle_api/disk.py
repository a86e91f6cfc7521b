"""Check disk space, and explain disk errors in a sentence."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kaggle_nerve.errors import NerveError

FULL = (errno.ENOSPC, errno.EDQUOT)
RESERVE = 64 << 20
"""Bytes to keep free for everything else on the disk."""


@contextmanager
def explain_disk_errors(folder: Path, option: str = "--data") -> Iterator[None]:
    """Convert full-disk, permission and read-only errors in ``folder`` into a NerveError.

    ``option`` is the command-line option that selects another folder.
    """
    try:
        yield
    except OSError as fault:
        if fault.errno in FULL:
            raise NerveError(
                f"The disk of {folder} became full: free some space, or choose another folder with {option}, "
                "and run the same command again; what is there already is kept."
            ) from fault
        if isinstance(fault, PermissionError) or fault.errno == errno.EROFS:
            raise NerveError(
                f"{fault.filename or folder} cannot be written ({fault.strerror}): change its permissions, or "
                f"choose another folder with {option}."
            ) from fault
        raise


def require_space(folder: Path, needed: int) -> None:
    """Raise NerveError unless ``needed`` more bytes fit on the disk of ``folder``."""
    free = shutil.disk_usage(folder).free
    if needed > 0 and free < needed + RESERVE:
        raise NerveError(
            f"{folder} needs {as_size(needed)} for the archive and what is in it, and its disk has "
            f"{as_size(free)} free: free {as_size(needed + RESERVE - free)}, or choose another folder with "
            "--data."
        )


def as_size(count: int) -> str:
    """Format bytes for people: ``1.5 GB``."""
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if count >= 10**power:
            return f"{count / 10**power:.1f} {unit}"
    return f"{count} bytes"
