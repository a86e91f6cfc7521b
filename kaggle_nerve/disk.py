"""Disk space, and what a disk or file system refuses, in sentences."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from kaggle_nerve.errors import NerveError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

UNSUPPORTED = frozenset(
    {errno.EINVAL, errno.ENODEV, errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
)
"""What file systems answer to a call that they do not have: network drives and FUSE lack some."""

BROKEN = frozenset({errno.EIO, errno.ENXIO, errno.ESTALE, errno.ENOTCONN})
"""What a failing disk, or a network drive that has gone, answers."""

FILES = frozenset({errno.EMFILE, errno.ENFILE})

FOLDERS = "--data, --runs, --submissions or KAGGLE_NERVE_CACHE"


def as_size(count: float) -> str:
    """Format bytes for people: ``1.5 GB``."""
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if count >= 10**power:
            return f"{count / 10**power:.1f} {unit}"
    return f"{count:.0f} bytes"


def require_space(folder: Path, needed: int, purpose: str, advice: str = "", reserve: int = 0) -> None:
    """Raise NerveError unless ``needed`` more bytes for ``purpose`` fit on the disk of ``folder``.

    ``advice`` continues "free 2.5 GB"; ``reserve`` bytes must stay free for everything else on the disk.
    """
    free = shutil.disk_usage(folder).free
    if needed > 0 and free < needed + reserve:
        raise NoSpaceError(folder, needed, purpose, advice, reserve)


class NoSpaceError(NerveError):
    """There is no room for ``needed`` bytes in ``folder``; see `require_space` for the arguments."""

    def __init__(self, folder: Path, needed: int, purpose: str, advice: str = "", reserve: int = 0):
        free = shutil.disk_usage(folder).free
        fact = f"its disk has {as_size(free)} free: free {as_size(needed + reserve - free)}"
        if free >= needed + reserve:
            fact = "its disk, or your quota there, does not have that: free some"
        super().__init__(f"{folder} needs {as_size(needed)} for {purpose}, and {fact}{advice}.")


def reserve_blocks(file: BinaryIO, size: int) -> None:
    """Make ``file`` ``size`` bytes long and reserve its blocks, so that later writes find room.

    Where the system or the file system cannot reserve, only compare with the free space. Raise OSError (`FULL`) if it
    does not suffice.
    """
    file.flush()
    try:
        os.posix_fallocate(file.fileno(), 0, size)
        return
    except AttributeError:  # macOS and Windows do not have it
        pass
    except OSError as fault:
        if fault.errno not in UNSUPPORTED:
            raise
    if shutil.disk_usage(file.name).free < size - allocated(Path(file.name)):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.name)
    file.truncate(size)


def allocated(path: Path) -> int:
    """Return the bytes of the disk that a file uses: none if it is missing, and less than its size if it is sparse."""
    try:
        return 512 * getattr(path.stat(), "st_blocks", 0)
    except FileNotFoundError:
        return 0


@contextmanager
def name_in_faults(path: Path) -> Iterator[None]:
    """Make an OSError of the block name ``path``, unless it names another file of the user's.

    A full or broken disk fails the write or the close of an open file, and the error then has no name; that of a
    temporary file, which begins with a dot, says nothing to the user.
    """
    try:
        yield
    except OSError as fault:
        name = _file(fault)
        if fault.errno and (name is None or Path(name).name.startswith(".")):
            fault.filename, fault.filename2 = str(path), None
        raise


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


def disk_sentence(fault: OSError) -> str | None:
    """Say in one sentence what the disk refused, and what to do; None if ``fault`` is of another kind."""
    name, number = _file(fault), fault.errno
    if number == errno.EPIPE:
        return None
    if number in FULL:
        where = f" while writing {name}" if name else ""
        return f"The disk is full{where}; free some space and run the same command again."
    if number in FILES:
        return f"{fault.strerror}; allow more with `ulimit -n 4096` and run the same command again."
    if number == errno.ENOENT and not name and "temporary" in str(fault.strerror):
        return "There is no folder for temporary files; set TMPDIR to a folder that can be written."
    place = name or "a folder in use"
    if number in BROKEN:
        return (
            f"The drive of {place} fails ({fault.strerror}); see that it is connected and sound, and run the same "
            "command again: what is finished is kept."
        )
    if number in UNSUPPORTED:
        return (
            f"The file system of {place} cannot do what is needed ({fault.strerror}); choose a folder on a local disk "
            f"with {FOLDERS}."
        )
    if name or number == errno.EROFS:
        return f"{place}: {fault.strerror}; check the path and its rights."
    return None


def _file(fault: OSError) -> str | None:
    """Return the file that ``fault`` is about: of a copy that fills the disk, its target."""
    name = fault.filename2 if fault.errno in FULL and fault.filename2 else fault.filename
    return os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else None
