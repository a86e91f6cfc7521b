"""Which subjects are held out when. Frames of one patient leak, so a subject is never on both sides."""

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold, train_test_split

from kaggle_nerve.errors import NerveError
from kaggle_nerve.settings.schema import ALL, AND_ALL, FoldName
from kaggle_nerve.storage import write_text

ALWAYS_TRAIN = -1
"""The fold of subjects that a plain hold-out never holds out."""

COLUMNS = ["subject", "fold", "frames", "with_mask"]


def assign(frames: pd.DataFrame, folds: str, seed: int) -> pd.DataFrame:
    """One row per subject: subject, fold, frames, with_mask.

    ``frames`` has subject and has_mask; ``folds`` is a number K, or TRAIN/HELD for one hold-out
    (scaled where the data has another number of subjects); `AND_ALL` at its end changes nothing here. Both
    are stratified by the subject's positive rate: subjects are ranked by it, and each group of neighbours
    is dealt over the folds.
    """
    per_subject = frames.groupby("subject").has_mask.agg(["size", "sum"]).reset_index()
    per_subject.columns = ["subject", "frames", "with_mask"]
    rates = (per_subject.with_mask / per_subject.frames).to_numpy()
    folds = folds.removesuffix(AND_ALL)
    fold = _hold_out(rates, folds, seed) if "/" in folds else _k_folds(rates, int(folds), seed)
    return per_subject.assign(fold=fold)[COLUMNS]


def count(folds: pd.DataFrame) -> int:
    """How many folds are held out (1 for a plain hold-out)."""
    return int(folds.fold.max()) + 1


def split(frames: pd.DataFrame, folds: pd.DataFrame, fold: FoldName) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of the training and of the held-out frames of ``fold``, both rising; of `ALL` none is held out.

    Raises NerveError where a subject stands on both sides, or has no fold.
    """
    if fold == ALL:
        return np.arange(len(frames)), np.empty(0, int)
    if not 0 <= fold < count(folds):
        raise NerveError(f"There is no fold {fold}: the folds are 0 to {count(folds) - 1}.")
    unknown = set(frames.subject) - set(folds.subject)
    if unknown:
        raise NerveError(f"Subject {min(unknown)} has no fold in folds.csv; the data is not the run's own.")
    held = set(folds.subject[folds.fold == fold])
    trained = set(folds.subject[folds.fold != fold])
    if held & trained:
        raise NerveError(
            f"Subject {min(held & trained)} is in fold {fold} and outside it: a leak; mend folds.csv."
        )
    inside = frames.subject.isin(held).to_numpy()
    if inside.all() or not inside.any():
        raise NerveError(f"Fold {fold} leaves no frames to train on or none to validate on; use other folds.")
    return np.flatnonzero(~inside), np.flatnonzero(inside)


def save(folds: pd.DataFrame, path: Path) -> None:
    """Write folds.csv, atomically."""
    write_text(path, folds.to_csv(index=False))


def load(path: Path) -> pd.DataFrame:
    """Read folds.csv. NerveError for a wrong header, a subject with two folds, or a gap in the folds."""
    try:
        folds = pd.read_csv(path)
    except (OSError, ValueError) as fault:
        raise NerveError(f"{path} cannot be read ({fault}); restore it or start another run.") from fault
    if list(folds.columns) != COLUMNS:
        raise NerveError(f"{path} must have the columns {','.join(COLUMNS)}.")
    twice = folds.subject[folds.subject.duplicated()]
    if len(twice):
        raise NerveError(f"{path} puts subject {twice.iloc[0]} into two folds: a leak; keep one row each.")
    numbers = set(folds.fold) - {ALWAYS_TRAIN}
    if not numbers or numbers != set(range(max(numbers) + 1)):
        raise NerveError(f"{path} must number its folds from 0 without a gap.")
    return folds


def _k_folds(rates: np.ndarray, folds: int, seed: int) -> np.ndarray:
    if folds > len(rates):
        raise NerveError(
            f"{folds} folds need {folds} subjects or more; the data has {len(rates)}: lower --folds."
        )
    strata = _strata(rates, folds)
    fold = np.empty(len(rates), int)
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    for number, (_, held) in enumerate(splitter.split(strata, strata)):
        fold[held] = number
    return fold


def _hold_out(rates: np.ndarray, folds: str, seed: int) -> np.ndarray:
    train, held = map(int, folds.split("/"))
    wanted = max(1, round(len(rates) * held / (train + held)))
    if wanted >= len(rates):
        raise NerveError(f"A hold-out {folds} of {len(rates)} subjects leaves none to train on.")
    strata = _strata(rates, len(rates) // wanted) if wanted > 1 else None
    strata = strata if strata is not None and strata.max() < wanted else None
    _, rows = train_test_split(np.arange(len(rates)), test_size=wanted, stratify=strata, random_state=seed)
    fold = np.full(len(rates), ALWAYS_TRAIN)
    fold[rows] = 0
    return fold


def _strata(rates: np.ndarray, width: int) -> np.ndarray:
    """Subjects of like positive rate share a stratum of ``width`` members (the last one may be wider)."""
    ranks = np.argsort(np.argsort(rates, kind="stable"), kind="stable")
    return np.minimum(ranks // width, max(len(rates) // width - 1, 0))
