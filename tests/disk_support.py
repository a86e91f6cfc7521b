"""Disks of tests: a small real one where the test may mount it, else this process's own calls say that it is full."""

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kaggle_nerve import arrays


@contextmanager
def small_disk(folder: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose disk has ``size`` bytes free."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    try:
        is_real = subprocess.run(mount, capture_output=True).returncode == 0
    except OSError:
        is_real = False
    if is_real:
        try:
            yield folder
        finally:
            subprocess.run(["umount", "-l", str(folder)], check=True)
        return
    with monkeypatch.context() as patch:
        usage = shutil.disk_usage(folder)._replace(free=size)
        patch.setattr(shutil, "disk_usage", lambda path: usage)
        patch.setattr(arrays, "reserve_blocks", _full)
        yield folder


def _full(file, size: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), file.name)


def refuse(code: int):
    """A call that the file system refuses with ``code``."""

    def call(*_, **__):
        raise OSError(code, os.strerror(code))

    return call
