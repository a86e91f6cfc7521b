"""Read stored probabilities, out-of-fold or test, frame by frame, without any deep-learning framework."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kaggle_nerve.arrays import open_array
from kaggle_nerve.errors import NerveError
from kaggle_nerve.maps import matching
from kaggle_nerve.maps.blending import combine
from kaggle_nerve.maps.fullsize import enlarge
from kaggle_nerve.maps.matching import Scale
from kaggle_nerve.runs import Fold, Run, TestFacts
from kaggle_nerve.storage import digest_text

LEAST_PRESENCE = 0.1
"""Lower limit for a presence that divides a map: below it, the frame will be called empty anyway."""

VIEWS = {"agreement": 1.0, "spread": 0.0}
"""Columns for the agreement of a frame's views on its mask and the spread of their presences; values of one view."""


@dataclass(frozen=True)
class Blend:
    """Method to combine the maps of several runs. ``method``: ``mean``, ``logits`` or ``agreement`` (see
    `blending.combine`), or ``vote``: the share of runs in which the pixel reaches the run's own threshold.

    ``weights`` and ``thresholds`` have one entry per run; no weights mean equal ones.
    """

    method: str = "mean"
    weights: tuple[float, ...] = ()
    thresholds: tuple[float, ...] = ()


@dataclass(frozen=True)
class Predictions:
    """Probabilities of some frames by one or several runs.

    ``table``: img and, for out-of-fold frames, subject and fold; agreement and spread of the views; one
    row per frame. ``presences``: P(mask not empty), float (n, runs). ``parts``: memory-mapped float16 maps
    (n, height, width) of each run; ``rows[part]`` is the index into them for each row of the table. Runs may
    differ in working size, so they are combined at full resolution, by ``blend``. ``source`` is a digest of
    all inputs, ``names`` are those of the runs.

    ``conditional``: for each run, whether its maps are P(pixel | frame has a mask)
    (`LossSettings.empty_frames`).
    """

    table: pd.DataFrame
    presences: np.ndarray
    parts: tuple[Any, ...]
    rows: tuple[np.ndarray, ...]
    source: str
    names: tuple[str, ...] = ("run",)
    blend: Blend = Blend()
    conditional: tuple[bool, ...] = (False,)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def presence(self) -> np.ndarray:
        """P(mask not empty) of each frame, (n,): the weighted mean over the runs."""
        return np.average(self.presences, axis=1, weights=self.blend.weights or None)

    @property
    def is_conditional(self) -> bool:
        """Whether `members` and `full` are P(pixel | frame has a mask): if one run's maps are, all are converted."""
        return any(self.conditional)

    def members(self, row: int) -> np.ndarray:
        """Return each run's map for a row at the competition's size, float32 (runs, height, width).

        All maps are of one kind: P(pixel | frame has a mask) is P(pixel) / P(frame has a mask), since an empty
        mask has no pixels.
        """
        maps = np.stack([enlarge(self._working(part, row)) for part in range(len(self.parts))])
        if self.is_conditional:
            for part, conditional in enumerate(self.conditional):
                if not conditional:
                    presence = max(float(self.presences[row, part]), LEAST_PRESENCE)
                    np.minimum(maps[part] / np.float32(presence), 1, out=maps[part])
        return maps

    def full(self, row: int) -> np.ndarray:
        """Return the combined probability map of a row at the competition's size, float32 (height, width)."""
        return self.mix(self.members(row), self.blend)

    def mix(self, members: np.ndarray, blend: Blend) -> np.ndarray:
        """Combine the runs' maps into one."""
        if len(members) == 1:
            return members[0]
        weights = np.array(blend.weights) if blend.weights else None
        if blend.method == "vote":
            votes = members >= np.array(blend.thresholds, np.float32)[:, None, None]
            return combine(votes, "mean", weights)
        return combine(members, blend.method, weights)

    def _working(self, part: int, row: int) -> np.ndarray:
        probability = self.parts[part][self.rows[part][row]]
        # NaN fails both comparisons, too.
        if not (probability.min() >= 0 and probability.max() <= 1):
            raise NerveError(
                f"Frame {self.table.img.iloc[row]} has a probability that is no number from 0 to 1 in a stored "
                "prediction; predict it again with `kaggle-nerve predict --force`, or train its fold again."
            )
        return probability


def open_oof(run: Run) -> Predictions:
    """Open the out-of-fold probabilities of a run's finished folds, sorted by subject and img."""
    folds = run.require_finished_folds()
    return _join_folds([_open_fold(fold) for fold in folds], _identity(folds))


def open_test(run: Run) -> Predictions:
    """Open the test probabilities of a run, at the scale of a single fold's (see `matching`).

    Raise NerveError if `predict` has not finished.
    """
    facts = run.test_facts()
    if facts is None:
        raise NerveError(
            f"Run {run.name} has no test probabilities; run `kaggle-nerve predict --run {run.name}`."
        )
    stored = _open_test(run, facts)
    return rescale(stored, _scale(run, stored)) if len(facts.folds) > 1 else stored


def ensemble_scale(run: Run) -> Scale | None:
    """Return the scale that maps the run's ensemble to a single fold, as measured on its test frames.

    None if the test frames were not predicted, or not with the current models.
    """
    facts = run.test_facts()
    return _scale(run, _open_test(run, facts)) if facts and is_current(run, facts) else None


def is_current(run: Run, facts: TestFacts) -> bool:
    """Return whether finished test predictions are those of the current models."""
    return facts.models == run.models()


def rescale(stored: Predictions, scale: Scale) -> Predictions:
    """Bring the ensemble's predictions of one run to the scale of a single fold's."""
    presences = scale.presences(stored.presences[:, 0])
    return replace(stored, presences=presences[:, None], parts=(scale.maps(stored.parts[0]),))


def blend(stored: list[Predictions]) -> Predictions:
    """Join several runs over the frames that all of them have, combined by their mean."""
    if len(stored) == 1:
        return stored[0]
    keys = [name for name in ("subject", "img") if name in stored[0].table]
    table = stored[0].table.assign(row0=range(len(stored[0])))
    for number, other in enumerate(stored[1:], 1):
        columns = {f"row{number}": range(len(other)), **{name: other.table[name] for name in VIEWS}}
        table = table.merge(
            other.table[keys].assign(**columns), on=keys, suffixes=("", f"_{number}"), validate="one_to_one"
        )
    if table.empty:
        raise NerveError("The runs to blend have no frame in common; name runs of the same data.")
    parts, rows, presences = [], [], []
    for number, other in enumerate(stored):
        row_numbers = table[f"row{number}"].to_numpy()
        parts += other.parts
        rows += [places[row_numbers] for places in other.rows]
        presences.append(other.presences[row_numbers])
    for name in VIEWS:
        columns = [name, *(f"{name}_{number}" for number in range(1, len(stored)))]
        table[name] = table[columns].mean(axis=1)
    source = "+".join(other.source for other in stored)
    table = table[[*stored[0].table.columns]]
    return Predictions(
        table,
        np.concatenate(presences, axis=1),
        tuple(parts),
        tuple(rows),
        source,
        names=tuple(name for other in stored for name in other.names),
        conditional=tuple(kind for other in stored for kind in other.conditional),
    )


def _open_fold(fold: Fold) -> Predictions:
    fold.require_oof_facts()
    command = "predict" if fold.run.views else "train-folds"
    again = f"delete {fold.oof_folder} and run `kaggle-nerve {command}` again"
    return _open(fold.oof_table, fold.oof_maps, fold.run, "", again, ("subject", "img"))


def _open(index: Path, maps: Path, run: Run, source: str, again: str, keys: tuple[str, ...]) -> Predictions:
    """Open predictions of ``run``; ``again`` tells the user how to redo them, ``keys`` are a frame's columns."""
    table = _read_index(index, keys, again)
    array = _read_array(maps, 3, len(table), again)
    presences = table.presence.to_numpy(float)[:, None]
    # Older predictions lack these columns: use a single view's values.
    views = {name: table.get(name, alone) for name, alone in VIEWS.items()}
    table = table.drop(columns="presence").assign(**views)
    rows, kind = np.arange(len(table)), run.settings.loss.is_conditional
    return Predictions(table, presences, (array,), (rows,), source, (run.name,), conditional=(kind,))


def _open_test(run: Run, facts: TestFacts) -> Predictions:
    return _open(
        run.test_table, run.test_array("probabilities"), run, facts.source, _predict_again(run), ("img",)
    )


def _scale(run: Run, stored: Predictions) -> Scale:
    """Measure the scale of a run on its stored test predictions."""
    arrays = {
        name: _read_array(run.test_array(name), 2, len(stored), _predict_again(run))
        for name in ("levels", "fold_levels", "fold_presences")
    }
    curve = matching.curve(arrays["levels"].sum(axis=0), arrays["fold_levels"].sum(axis=0))
    return Scale(curve, stored.presences[:, 0], arrays["fold_presences"])


def _predict_again(run: Run) -> str:
    return f"run `kaggle-nerve predict --run {run.name} --force`"


def _identity(folds: list[Fold]) -> str:
    """Digest the inputs of out-of-fold predictions: data, settings and the models of the finished folds."""
    facts = [fold.require_oof_facts() for fold in folds]
    models = [f"{fold.number} {fact.model}" for fold, fact in zip(folds, facts, strict=True)]
    return digest_text(facts[0].source, facts[0].settings, *models)


def _join_folds(folds: list[Predictions], source: str) -> Predictions:
    """Concatenate folds; their maps stay on disk."""
    table = pd.concat([fold.table for fold in folds], ignore_index=True)
    maps = _Chained([fold.parts[0] for fold in folds])
    order = np.lexsort((table.img, table.subject))
    presences = np.concatenate([fold.presences for fold in folds])[order]
    table = table.iloc[order].reset_index(drop=True)
    return replace(folds[0], table=table, presences=presences, parts=(maps,), rows=(order,), source=source)


class _Chained:
    """Several arrays indexed by one row number."""

    def __init__(self, arrays: list[np.ndarray]):
        self.arrays = arrays
        self.starts = np.cumsum([0, *(len(array) for array in arrays)])

    def __getitem__(self, row: int) -> np.ndarray:
        which = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.arrays[which][row - self.starts[which]]


def _read_index(path: Path, keys: tuple[str, ...], again: str) -> pd.DataFrame:
    try:
        table = pd.read_csv(path)
    except (OSError, ValueError) as fault:
        raise NerveError(f"{path} cannot be read ({fault}); {again}.") from fault
    missing = [name for name in (*keys, "presence") if name not in table]
    if missing:
        raise NerveError(f"{path} has no column {missing[0]}; {again}.")
    for name in ("presence", *VIEWS):
        if name in table and not pd.to_numeric(table[name], errors="coerce").between(0, 1).all():
            raise NerveError(f"{path} has a {name} that is no number from 0 to 1; {again}.")
    return table


def _read_array(path: Path, axes: int, count: int, again: str) -> np.ndarray:
    try:
        array = open_array(path)
    except (OSError, ValueError) as fault:
        raise NerveError(f"{path} cannot be read ({fault}); {again}.") from fault
    if array.ndim != axes or array.dtype.kind not in "fi":
        raise NerveError(f"{path} holds an array of {array.dtype} {array.shape}, no predictions; {again}.")
    if len(array) != count:
        raise NerveError(f"{path} holds {len(array)} frames and its index {count}; {again}.")
    return array
