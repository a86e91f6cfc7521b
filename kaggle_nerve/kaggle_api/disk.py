"""Explain disk errors in a sentence."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kaggle_nerve.disk import FULL
from kaggle_nerve.errors import NerveError


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
