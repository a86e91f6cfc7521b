"""Probabilities on disk, out-of-fold or test, read frame by frame. Knows no deep-learning framework."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kaggle_nerve.data.fullsize import enlarge
from kaggle_nerve.errors import NerveError
from kaggle_nerve.runs import Run
from kaggle_nerve.storage import completed, digest_text


@dataclass(frozen=True)
class Stored:
    """Probabilities of some frames.

    ``table``: img and presence (0 to 1), and for out-of-fold frames subject and fold; one row a
    frame. ``parts``: memory-mapped float16 maps (n, height, width), and for each row of the table
    its place ``rows[part]`` in each of them; a frame's map is the mean over the parts, taken at full
    resolution because runs may differ in working size. ``source`` is a digest of all inputs.
    """

    table: pd.DataFrame
    parts: tuple[np.ndarray, ...]
    rows: tuple[np.ndarray, ...]
    source: str

    def __len__(self) -> int:
        return len(self.table)

    def full(self, row: int) -> np.ndarray:
        """The probability map of a row at the competition's size, float32 (height, width)."""
        total = enlarge(self.parts[0][self.rows[0][row]])
        for part, places in zip(self.parts[1:], self.rows[1:], strict=True):
            total += enlarge(part[places[row]])
        return total / len(self.parts) if len(self.parts) > 1 else total


def open_oof(run: Run) -> Stored:
    """The out-of-fold probabilities of a run's finished folds, sorted by subject and img."""
    numbers = run.needs_finished_folds()
    return _joined([_open_fold(run, fold) for fold in numbers], _identity(run, numbers))


def open_test(run: Run) -> Stored:
    """The test probabilities of a run; NerveError where `predict` has not finished."""
    done = completed(run.test_folder)
    if not done:
        raise NerveError(
            f"Run {run.name} has no test probabilities; run `kaggle-nerve predict --run {run.name}`."
        )
    table = _read_index(run.test_folder / "index.csv")
    maps = _read_maps(run.test_folder / "probabilities.npy", len(table))
    return Stored(table, (maps,), (np.arange(len(table)),), done["source"])


def blend(stored: list[Stored]) -> Stored:
    """The mean of several runs, over the frames that all of them have."""
    if len(stored) == 1:
        return stored[0]
    keys = [name for name in ("subject", "img") if name in stored[0].table]
    table = stored[0].table[keys].assign(row0=range(len(stored[0])), presence0=stored[0].table.presence)
    for number, other in enumerate(stored[1:], 1):
        columns = {f"row{number}": range(len(other)), f"presence{number}": other.table.presence}
        table = table.merge(other.table[keys].assign(**columns), on=keys, validate="one_to_one")
    if table.empty:
        raise NerveError("The runs to blend have no frame in common; name runs of the same data.")
    presence = table[[f"presence{number}" for number in range(len(stored))]].mean(axis=1)
    parts, rows = [], []
    for number, other in enumerate(stored):
        mine = table[f"row{number}"].to_numpy()
        parts += other.parts
        rows += [places[mine] for places in other.rows]
    source = "+".join(other.source for other in stored)
    return Stored(table[keys].assign(presence=presence), tuple(parts), tuple(rows), source)


def _open_fold(run: Run, fold: int) -> Stored:
    folder = run.fold_folder(fold)
    table = _read_index(folder / "oof.csv")
    maps = _read_maps(folder / "oof.npy", len(table))
    return Stored(table, (maps,), (np.arange(len(table)),), "")


def _identity(run: Run, folds: list[int]) -> str:
    """What out-of-fold predictions were made from: data, settings and the folds that are finished."""
    facts = [completed(run.fold_folder(fold)) for fold in folds]
    return digest_text(facts[0]["source"], facts[0]["settings"], *map(str, folds))


def _joined(folds: list[Stored], source: str) -> Stored:
    """Folds one after the other, as one: their maps stay where they are."""
    table = pd.concat([fold.table for fold in folds], ignore_index=True)
    maps = _Chained([fold.parts[0] for fold in folds])
    order = np.lexsort((table.img, table.subject))
    return Stored(table.iloc[order].reset_index(drop=True), (maps,), (order,), source)


class _Chained:
    """Several arrays read by one row number."""

    def __init__(self, arrays: list[np.ndarray]):
        self.arrays = arrays
        self.starts = np.cumsum([0, *(len(array) for array in arrays)])

    def __getitem__(self, row: int) -> np.ndarray:
        which = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.arrays[which][row - self.starts[which]]


def _read_index(path: Path) -> pd.DataFrame:
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as fault:
        raise NerveError(f"{path} cannot be read ({fault}); predict again with --force.") from fault
    if not np.isfinite(table.presence).all():
        raise NerveError(f"{path} has a presence that is no number; train or predict again.")
    return table


def _read_maps(path: Path, count: int) -> np.ndarray:
    try:
        maps = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as fault:
        raise NerveError(f"{path} cannot be read ({fault}); predict again with --force.") from fault
    if len(maps) != count:
        raise NerveError(
            f"{path} holds {len(maps)} frames and its index {count}; predict again with --force."
        )
    return maps
