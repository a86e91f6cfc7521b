"""Arrays on disk: filled in chunks and resumable after a kill, and read without loading them.

They are written with ordinary writes. Writing to a memory map would kill the process if the disk is full or a
network drive fails, and some file systems have no shared maps.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy

from kaggle_nerve.disk import FULL, UNSUPPORTED, NoSpaceError, allocated, name_in_faults, reserve_blocks
from kaggle_nerve.storage import flush, write_text

Shapes = dict[str, tuple[tuple[int, ...], type]]


class GrowingArrays:
    """Arrays ``<name>.npy`` in ``folder``, named ``<name>.partial.npy`` until complete.

    ``shapes``: name -> (shape, dtype), all with the same first length. ``key`` identifies their inputs: a
    partial array with another key is started again. Call `note` after each chunk, and `finish` at the end.
    Their whole space is reserved first. Raise NoSpaceError for ``purpose``, with ``advice``, if the disk lacks it.
    """

    def __init__(self, folder: Path, shapes: Shapes, key: str, purpose: str = "arrays", advice: str = ""):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.key, self._shapes = folder, key, shapes
        self._pointer = folder / "partial.json"
        self.done = self._rows_done()
        self._reserve(purpose, advice)

    def write(self, row: int, values: Mapping[str, np.ndarray]) -> None:
        """Store consecutive rows from ``row`` on of some arrays: name -> (rows, ...)."""
        for name, rows in values.items():
            shape, dtype = self._shapes[name]
            path = self._partial(name)
            with name_in_faults(path), path.open("r+b") as file:
                _read_header(file)
                file.seek(row * _size(shape[1:], dtype), 1)
                file.write(np.ascontiguousarray(rows, dtype).data)

    def read(self, name: str) -> np.ndarray:
        """Read a whole array."""
        return np.load(self._partial(name))

    def note(self, rows: int) -> None:
        """Flush the arrays, then record that the first ``rows`` rows are filled."""
        for name in self._shapes:
            path = self._partial(name)
            with name_in_faults(path):
                flush(path)
        write_text(self._pointer, json.dumps({"rows": rows, "key": self.key}))
        self.done = rows

    def finish(self) -> None:
        """Give the filled arrays their final names."""
        for partial in self.folder.glob("*.partial.npy"):
            partial.replace(self._final(partial.name.removesuffix(".partial.npy")))
        self._pointer.unlink()

    def _rows_done(self) -> int:
        try:
            stored = json.loads(self._pointer.read_text())
        except (FileNotFoundError, ValueError):
            return 0
        for name in self._shapes:
            # A kill inside `finish` leaves some arrays under their final names: rename them back.
            if not self._partial(name).is_file() and self._final(name).is_file():
                self._final(name).replace(self._partial(name))
        whole = all(self._is_whole(name) for name in self._shapes)
        return stored["rows"] if whole and stored["key"] == self.key else 0

    def _is_whole(self, name: str) -> bool:
        shape, dtype = self._shapes[name]
        try:
            with self._partial(name).open("rb") as file:
                header, size = _read_header(file), file.tell() + _size(shape, dtype)
        except (OSError, ValueError):
            return False
        return header == (shape, False, np.dtype(dtype)) and self._partial(name).stat().st_size == size

    def _reserve(self, purpose: str, advice: str) -> None:
        """Reserve the blocks of all arrays; create those without filled rows."""
        paths = [self._partial(name) for name in self._shapes]
        if not self.done:
            self._remove(paths)
        needed = sum(_size(shape, dtype) for shape, dtype in self._shapes.values())
        missing = needed - sum(allocated(path) for path in paths)
        try:
            for path, (shape, dtype) in zip(paths, self._shapes.values(), strict=True):
                with name_in_faults(path), path.open("r+b" if self.done else "wb") as file:
                    if self.done:
                        _read_header(file)
                    else:
                        _write_header(file, shape, dtype)
                    reserve_blocks(file, file.tell() + _size(shape, dtype))
        except OSError as fault:
            if fault.errno not in FULL:
                raise
            if not self.done:
                self._remove(paths)
            raise NoSpaceError(self.folder, missing, purpose, advice) from fault

    def _remove(self, paths: list[Path]) -> None:
        for path in [self._pointer, *paths]:
            path.unlink(missing_ok=True)

    def _partial(self, name: str) -> Path:
        return self.folder / f"{name}.partial.npy"

    def _final(self, name: str) -> Path:
        return self.folder / f"{name}.npy"


def open_array(path: Path) -> np.ndarray:
    """Open an array read-only without loading it; load it if the file system has no memory maps.

    Raise OSError or ValueError if the file cannot be read.
    """
    with name_in_faults(path):
        array = _map(path)
        if array is None:
            array = np.load(path)
    array.flags.writeable = False
    return array


def _map(path: Path) -> np.ndarray | None:
    """Map an array into memory; return None if the file system has no maps."""
    for mode in ("r", "c"):  # some network drives have private maps only
        try:
            return np.load(path, mmap_mode=mode)
        except OSError as fault:
            if fault.errno not in UNSUPPORTED:
                raise
    return None


def _size(shape: tuple[int, ...], dtype: type) -> int:
    return math.prod(shape) * np.dtype(dtype).itemsize


def _write_header(file: BinaryIO, shape: tuple[int, ...], dtype: type) -> None:
    header = {"descr": npy.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    npy.write_array_header_1_0(file, header)


def _read_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read shape, order and type up to the first value. Raise ValueError for any other file."""
    if npy.read_magic(file) != (1, 0):
        raise ValueError(f"{file.name} is no array of version 1.0")
    return npy.read_array_header_1_0(file)
