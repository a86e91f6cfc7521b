"""Assign subjects to folds. Frames of one patient leak, so a subject is never in both train and held-out."""

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedKFold, train_test_split

from kaggle_nerve.errors import NerveError
from kaggle_nerve.settings.schema import ALL, AND_ALL, FoldName
from kaggle_nerve.storage import write_text

ALWAYS_TRAIN = -1
"""Fold number of the subjects that a plain hold-out never holds out."""

COLUMNS = ["subject", "fold", "frames", "with_mask"]


def assign(frames: pd.DataFrame, folds: str, seed: int) -> pd.DataFrame:
    """Assign folds; return one row per subject: subject, fold, frames, with_mask.

    ``frames`` has subject and has_mask; ``folds`` is a number K, or TRAIN/HELD for one hold-out (scaled if
    the data has another number of subjects); `AND_ALL` at its end is ignored here. Both are stratified by
    the subject's positive rate: subjects are ranked by it, and each group of neighbours is distributed over
    the folds.
    """
    per_subject = frames.groupby("subject").has_mask.agg(["size", "sum"]).reset_index()
    per_subject.columns = ["subject", "frames", "with_mask"]
    rates = (per_subject.with_mask / per_subject.frames).to_numpy()
    if len(rates) < 2:
        raise NerveError(
            "The training data has one subject; each fold holds some out and trains on the others, so add frames of "
            "another subject."
        )
    folds = folds.removesuffix(AND_ALL)
    fold = _hold_out(rates, folds, seed) if "/" in folds else _k_folds(rates, int(folds), seed)
    return per_subject.assign(fold=fold)[COLUMNS]


def count(folds: pd.DataFrame) -> int:
    """Count the folds (1 for a plain hold-out)."""
    return int(folds.fold.max()) + 1


def split(frames: pd.DataFrame, folds: pd.DataFrame, fold: FoldName) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of the training and the held-out frames of ``fold``, both ascending; `ALL` holds out none.

    Raise NerveError if a subject is on both sides or has no fold.
    """
    if fold == ALL:
        return np.arange(len(frames)), np.empty(0, int)
    if not 0 <= fold < count(folds):
        raise NerveError(f"There is no fold {fold}: the folds are 0 to {count(folds) - 1}.")
    unknown = set(frames.subject) - set(folds.subject)
    if unknown:
        raise NerveError(f"Subject {min(unknown)} has no fold in folds.csv; the data is not the run's own.")
    held_subjects = set(folds.subject[folds.fold == fold])
    train_subjects = set(folds.subject[folds.fold != fold])
    if held_subjects & train_subjects:
        raise NerveError(
            f"Subject {min(held_subjects & train_subjects)} is in fold {fold} and outside it: a leak; mend folds.csv."
        )
    is_held = frames.subject.isin(held_subjects).to_numpy()
    if is_held.all() or not is_held.any():
        raise NerveError(f"Fold {fold} leaves no frames to train on or none to validate on; use other folds.")
    return np.flatnonzero(~is_held), np.flatnonzero(is_held)


def save(folds: pd.DataFrame, path: Path) -> None:
    """Write folds.csv, atomically."""
    write_text(path, folds.to_csv(index=False))


def load(path: Path) -> pd.DataFrame:
    """Read folds.csv; raise NerveError for a wrong header, a subject with two folds, or a gap in the folds."""
    try:
        folds = pd.read_csv(path)
    except (OSError, ValueError) as fault:
        raise NerveError(f"{path} cannot be read ({fault}); restore it or start another run.") from fault
    if list(folds.columns) != COLUMNS:
        raise NerveError(f"{path} must have the columns {','.join(COLUMNS)}.")
    duplicates = folds.subject[folds.subject.duplicated()]
    if len(duplicates):
        raise NerveError(
            f"{path} puts subject {duplicates.iloc[0]} into two folds: a leak; keep one row each."
        )
    numbers = set(folds.fold) - {ALWAYS_TRAIN}
    if not numbers or numbers != set(range(max(numbers) + 1)):
        raise NerveError(f"{path} must number its folds from 0 without a gap.")
    return folds


def _k_folds(rates: np.ndarray, folds: int, seed: int) -> np.ndarray:
    if folds > len(rates):
        raise NerveError(
            f"{folds} folds need {folds} subjects or more; the data has {len(rates)}: set --folds {len(rates)} or less."
        )
    strata = _strata(rates, folds)
    fold = np.empty(len(rates), int)
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    for number, (_, held_rows) in enumerate(splitter.split(strata, strata)):
        fold[held_rows] = number
    return fold


def _hold_out(rates: np.ndarray, folds: str, seed: int) -> np.ndarray:
    train, held_share = map(int, folds.split("/"))
    count = max(1, round(len(rates) * held_share / (train + held_share)))
    if count >= len(rates):
        raise NerveError(
            f"A hold-out {folds} of {len(rates)} subjects leaves none to train on; set --folds {len(rates) - 1}/1."
        )
    strata = _strata(rates, len(rates) // count) if count > 1 else None
    strata = strata if strata is not None and strata.max() < count else None
    _, rows = train_test_split(np.arange(len(rates)), test_size=count, stratify=strata, random_state=seed)
    fold = np.full(len(rates), ALWAYS_TRAIN)
    fold[rows] = 0
    return fold


def _strata(rates: np.ndarray, width: int) -> np.ndarray:
    """Group subjects of similar positive rate into strata of ``width`` members (the last may be larger)."""
    ranks = np.argsort(np.argsort(rates, kind="stable"), kind="stable")
    return np.minimum(ranks // width, max(len(rates) // width - 1, 0))
