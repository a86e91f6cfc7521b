"""The competition's training data on a node: a folder that it sees as well, or a copy that is sent once."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

from kaggle_nerve.competition import facts
from kaggle_nerve.data.cache import FOLDER_VARIABLE, training_source
from kaggle_nerve.data.frames import locate, training_frames
from kaggle_nerve.disk import require_space
from kaggle_nerve.errors import NerveError
from kaggle_nerve.locks import wait_for_lock
from kaggle_nerve.storage import (
    digest_bytes,
    digest_file,
    digest_text,
    mark_complete,
    read_completion,
    user_cache,
)

PART = 32 << 20
"""Bytes of data that are sent at once, give or take a file."""

Part = list[tuple[str, bytes]]
"""Names and contents of some files."""


@dataclass(frozen=True)
class File:
    """A file to send: ``name`` as in the competition's folder, ``time``: when it was changed, in nanoseconds."""

    name: str
    size: int
    time: int
    digest: str


@dataclass(frozen=True)
class Manifest:
    """The files of the training data. ``digest`` identifies their names and contents."""

    files: list[File]

    @property
    def digest(self) -> str:
        """SHA-256 of the names and contents."""
        return digest_text(*(f"{file.name} {file.digest}" for file in self.files))

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(file.size for file in self.files)


class Shipment:
    """Training data of ``data_dir``, packed when the first node needs it. Safe to use from several threads.

    ``put`` stores a part where nodes can get it, and returns its reference.
    """

    def __init__(self, data_dir: Path, put: Callable[[Part], Any]):
        self._data_dir, self._put, self._lock = data_dir, put, Lock()
        self._parts: list[Any] | None = None

    @cached_property
    def _paths(self) -> dict[str, Path]:
        layout = locate(self._data_dir)
        paths = {f"{facts.TRAIN_FOLDER}/{path.name}": path for path in training_frames(layout).path}
        return {facts.TRAIN_CSV: layout.train_csv, **paths}

    @cached_property
    def _manifest(self) -> Manifest:
        return Manifest([_describe(name, path) for name, path in self._paths.items()])

    def manifest(self) -> Manifest:
        """Read all files and return their digests."""
        with self._lock:
            return self._manifest

    def parts(self) -> list[Any]:
        """Store the parts; return their references."""
        with self._lock:
            if self._parts is None:
                self._parts = [self._put(part) for part in _parts(self._paths)]
            return self._parts


def sees(data_dir: Path, source: str) -> bool:
    """Return whether this machine has the training data with the digest ``source`` (see `Cache`) in ``data_dir``."""
    try:
        return training_source(locate(data_dir)) == source
    except (NerveError, OSError):
        return False


def copy_folder(digest: str) -> Path:
    """Return the folder of this machine's copy of the data with this `Manifest.digest`."""
    root = os.environ.get(FOLDER_VARIABLE) or user_cache()
    return Path(root) / f"data-{digest[:12]}"


def has_copy(digest: str) -> bool:
    """Return whether this machine's copy is complete."""
    return read_completion(copy_folder(digest)) is not None


def receive(manifest: Manifest, parts: Iterator[Part]) -> None:
    """Write the copy from its ``parts``, unless another process has done so meanwhile.

    Raise NerveError if a file is not the one that was sent, or if the disk lacks the space.
    """
    folder = copy_folder(manifest.digest)
    files = {file.name: file for file in manifest.files}
    with wait_for_lock(folder / ".lock", f"receives {folder}"):
        if read_completion(folder):
            return
        advice = f", or set {FOLDER_VARIABLE} to a folder on another disk"
        require_space(folder, manifest.size, "the training data", advice)
        for part in parts:
            for name, content in part:
                _write(folder / name, files.pop(name), content)
        if files:
            raise NerveError(f"{next(iter(files))} was not sent; run the same command again.")
        mark_complete(folder, {"digest": manifest.digest})


def _write(path: Path, file: File, content: bytes) -> None:
    if digest_bytes(content) != file.digest:
        raise NerveError(f"{file.name} was changed while it was sent; run the same command again.")
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    # The caches' names depend on it.
    os.utime(path, ns=(file.time, file.time))


def _describe(name: str, path: Path) -> File:
    status = path.stat()
    return File(name, status.st_size, status.st_mtime_ns, digest_file(path))


def _parts(paths: dict[str, Path]) -> Iterator[Part]:
    part, size = [], 0
    for name, path in paths.items():
        part.append((name, path.read_bytes()))
        size += len(part[-1][1])
        if size >= PART:
            yield part
            part, size = [], 0
    if part:
        yield part
