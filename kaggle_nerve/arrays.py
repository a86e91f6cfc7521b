"""Arrays on disk that are filled in chunks and can be resumed after a kill."""

import json
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap

from kaggle_nerve.storage import write_text


class GrowingArrays:
    """Memory-mapped arrays ``<name>.npy`` in ``folder``, named ``<name>.partial.npy`` until complete.

    ``shapes``: name -> (shape, dtype), all with the same first length. ``key`` identifies their inputs: a
    partial array with another key is started again. Call `note` after each chunk, and `finish` at the end.
    """

    def __init__(self, folder: Path, shapes: dict[str, tuple[tuple[int, ...], type]], key: str):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.key = folder, key
        self._pointer = folder / "partial.json"
        self.done = self._rows_done(shapes)
        self.arrays = {name: self._open(name, *shapes[name]) for name in shapes}

    def note(self, rows: int) -> None:
        """Flush the arrays, then record that the first ``rows`` rows are filled."""
        for array in self.arrays.values():
            array.flush()
        write_text(self._pointer, json.dumps({"rows": rows, "key": self.key}))
        self.done = rows

    def finish(self) -> None:
        """Give the filled arrays their final names."""
        self.arrays.clear()
        for partial in self.folder.glob("*.partial.npy"):
            partial.replace(self._final(partial.name.removesuffix(".partial.npy")))
        self._pointer.unlink()

    def _rows_done(self, shapes: dict[str, tuple[tuple[int, ...], type]]) -> int:
        try:
            stored = json.loads(self._pointer.read_text())
        except (FileNotFoundError, ValueError):
            return 0
        for name in shapes:
            # A kill inside `finish` leaves some arrays under their final names: rename them back.
            if not self._partial(name).is_file() and self._final(name).is_file():
                self._final(name).replace(self._partial(name))
        all_exist = all(self._partial(name).is_file() for name in shapes)
        return stored["rows"] if all_exist and stored["key"] == self.key else 0

    def _open(self, name: str, shape: tuple[int, ...], dtype: type) -> np.memmap:
        if self.done:
            return open_memmap(self._partial(name), mode="r+")
        return open_memmap(self._partial(name), mode="w+", dtype=dtype, shape=shape)

    def _partial(self, name: str) -> Path:
        return self.folder / f"{name}.partial.npy"

    def _final(self, name: str) -> Path:
        return self.folder / f"{name}.npy"
