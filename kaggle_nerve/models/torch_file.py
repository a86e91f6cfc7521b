"""Read the arrays of a file from PyTorch before version 1.6, without PyTorch and without running pickled code.

The format is a sequence of pickles: a magic number, a protocol version, facts about the writing machine,
the object, and the keys of its storages; then for each storage a count of eight bytes and the numbers.
"""

import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

MAGIC = 0x1950A86A20F9469CFC6C
STORAGES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}


def read(path: Path) -> dict[str, np.ndarray]:
    """Read the arrays of a state dictionary by name. Raise ValueError for anything else."""
    with path.open("rb") as file:
        try:
            if _Unpickler(file).load() != MAGIC:
                raise ValueError("it does not begin as PyTorch's files did before version 1.6")
            for _ in ("version", "machine"):
                _Unpickler(file).load()
            unpickler = _Unpickler(file)
            state = unpickler.load()
            for key in _Unpickler(file).load():
                unpickler.fill(key, file)
        except (pickle.UnpicklingError, EOFError, KeyError, TypeError, IndexError, AttributeError) as fault:
            raise ValueError(f"it is no state dictionary ({fault})") from fault
    if not isinstance(state, dict) or not all(isinstance(value, _Tensor) for value in state.values()):
        raise ValueError("it is no state dictionary")
    return {name: tensor.array() for name, tensor in state.items()}


class _Storage:
    """Numbers of one type; they come last in the file."""

    def __init__(self, kind: np.dtype, count: int):
        self.kind, self.count = kind, count
        self.values = np.empty(0, kind)


class _Tensor:
    """View of a storage, as described by the pickle: offset, shape and strides in numbers."""

    def __init__(
        self, storage: _Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *rest: Any
    ):
        self.storage, self.offset, self.shape, self.strides = storage, offset, shape, strides

    def array(self) -> np.ndarray:
        """Return a copy. Raise ValueError if the storage is too short."""
        last = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))
        if min(self.shape, default=1) < 1 or self.offset < 0 or min(self.strides, default=0) < 0:
            raise ValueError("it describes an array that cannot be")
        if last >= len(self.storage.values):
            raise ValueError("it ends before its numbers do")
        steps = tuple(step * self.storage.kind.itemsize for step in self.strides)
        return np.lib.stride_tricks.as_strided(self.storage.values[self.offset :], self.shape, steps).copy()


class _Unpickler(pickle.Unpickler):
    """Unpickler that allows only the names that a state dictionary needs."""

    def __init__(self, file: BinaryIO):
        super().__init__(file)
        self._storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Return the replacement for a pickled name; raise UnpicklingError for a forbidden one."""
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Tensor
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, key: Any) -> _Storage:
        """Return the storage identified by ("storage", kind, key, device, count, view)."""
        _, kind, name, _, count, _ = key
        return self._storages.setdefault(name, _Storage(kind, count))

    def fill(self, key: str, file: BinaryIO) -> None:
        """Read the numbers of a storage."""
        storage = self._storages[key]
        file.read(8)  # the count again
        numbers = file.read(storage.count * storage.kind.itemsize)
        if len(numbers) < storage.count * storage.kind.itemsize:
            raise EOFError("it ends before its numbers do")
        storage.values = np.frombuffer(numbers, storage.kind)
