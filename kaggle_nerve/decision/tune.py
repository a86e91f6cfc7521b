"""Learning the rule on out-of-fold predictions, and what it may be expected to score on new patients."""

from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import roc_auc_score

from kaggle_nerve.data.fullsize import Truths
from kaggle_nerve.decision.rule import Rule
from kaggle_nerve.decision.table import Table, measure
from kaggle_nerve.errors import NerveError
from kaggle_nerve.prediction.stored import Stored
from kaggle_nerve.progress import SILENT, Reporter
from kaggle_nerve.storage import read_json, write_json

THRESHOLDS = np.round(np.arange(0.2, 0.71, 0.05), 2)
AREAS = (0, 1000, 1500, 2000, 2500, 3000, 3500, 4000)
"""Pixels at full resolution; the smallest training mask has 2684."""
PRESENCES = np.round(np.arange(0.0, 0.96, 0.05), 2)

DRAWS = 2000
"""Bootstrap draws of subjects."""


@dataclass(frozen=True)
class Figures:
    """What was measured on out-of-fold frames, each share from 0 to 1.

    ``dice`` is the nested figure: each subject is scored by the rule that is best on the others.
    ``low`` and ``high`` are its 95 % interval over a bootstrap of subjects. ``in_sample`` is what the
    chosen rule scores on the very frames it was chosen on. ``present_dice`` is the nested Dice over
    frames with a mask; ``kept_present_dice`` the same if no frame had been dropped.
    """

    frames: int
    subjects: int
    dice: float
    low: float
    high: float
    in_sample: float
    all_empty: float
    present_dice: float
    kept_present_dice: float
    presence_auc: float | None
    false_positive_rate: float | None
    false_negative_rate: float | None
    predicted_share: float
    true_share: float


@dataclass(frozen=True)
class Decision:
    """A rule, the figures it was chosen on, and the digest of the data."""

    rule: Rule
    figures: Figures
    source: str

    def save(self, path: Path) -> None:
        """Write decision.json, atomically."""
        write_json(path, asdict(self))


def load(path: Path) -> Decision:
    """Read decision.json."""
    stored: dict[str, Any] = read_json(path)
    try:
        return Decision(Rule(**stored["rule"]), Figures(**stored["figures"]), stored["source"])
    except (KeyError, TypeError) as fault:
        raise NerveError(f"{path} is not a decision ({fault}); run `kaggle-nerve tune` again.") from fault


def tune(
    stored: Stored, frames: pd.DataFrame, *, seed: int = 0, reporter: Reporter = SILENT, workers: int = 2
) -> Decision:
    """Choose the rule with the best mean Dice over the out-of-fold frames of ``stored``.

    ``frames`` has subject, img and pixels (the true masks). Every frame counts, contradictory ones too.
    """
    pixels = stored.table.merge(
        frames[["subject", "img", "pixels"]], on=["subject", "img"], how="left"
    ).pixels
    if pixels.isna().any():
        raise NerveError("The data has no mask rows for some out-of-fold frames; name the run's own --data.")
    table = measure(stored, Truths(list(pixels)), THRESHOLDS, reporter=reporter, workers=workers)
    return decide(table, stored.source, seed)


def decide(table: Table, source: str, seed: int = 0) -> Decision:
    """The decision for measured counts."""
    grid = [Rule(float(t), a, float(p)) for t, a, p in product(THRESHOLDS, AREAS, PRESENCES)]
    names, groups = np.unique(table.subjects, return_inverse=True)
    sizes = np.bincount(groups)
    sums = np.array([np.bincount(groups, table.dice(rule)) for rule in grid])
    chosen = grid[int(sums.sum(axis=1).argmax())]
    nested = _nested(table, grid, sums, groups)
    return Decision(chosen, _figures(table, chosen, nested, groups, sizes, len(names), seed), source)


def interval(sums: np.ndarray, sizes: np.ndarray, seed: int) -> tuple[float, float]:
    """95 % bootstrap interval of a mean over frames, subjects drawn with replacement.

    ``sums``: (subjects,) sum of the frames' values of each subject; ``sizes``: its number of frames.
    """
    draws = np.random.default_rng(seed).integers(0, len(sums), (DRAWS, len(sums)))
    means = sums[draws].sum(axis=1) / sizes[draws].sum(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


@dataclass(frozen=True)
class _Nested:
    dice: np.ndarray
    kept: np.ndarray
    open_dice: np.ndarray


def _nested(table: Table, grid: list[Rule], sums: np.ndarray, groups: np.ndarray) -> _Nested:
    """Each subject scored by the rule that is best on all others (on itself, where it is the only one)."""
    total = sums.sum(axis=1)
    result = _Nested(*(np.zeros(len(groups)) for _ in range(3)))
    for subject in range(sums.shape[1]):
        others = total - sums[:, subject] if sums.shape[1] > 1 else total
        rule = grid[int(others.argmax())]
        mine = groups == subject
        result.dice[mine] = table.dice(rule)[mine]
        result.kept[mine] = table.kept(rule)[mine]
        result.open_dice[mine] = table.dice(Rule(rule.threshold))[mine]
    return result


def _figures(
    table: Table,
    chosen: Rule,
    nested: _Nested,
    groups: np.ndarray,
    sizes: np.ndarray,
    subjects: int,
    seed: int,
) -> Figures:
    there = table.truth > 0
    low, high = interval(np.bincount(groups, nested.dice), sizes, seed)
    mixed = 0 < there.sum() < len(there)
    return Figures(
        frames=len(there),
        subjects=subjects,
        dice=float(nested.dice.mean()),
        low=low,
        high=high,
        in_sample=float(table.dice(chosen).mean()),
        all_empty=float((~there).mean()),
        present_dice=float(nested.dice[there].mean()) if there.any() else 0.0,
        kept_present_dice=float(nested.open_dice[there].mean()) if there.any() else 0.0,
        presence_auc=float(roc_auc_score(there, table.presence)) if mixed else None,
        false_positive_rate=float(nested.kept[~there].mean()) if (~there).any() else None,
        false_negative_rate=float(1 - nested.kept[there].mean()) if there.any() else None,
        predicted_share=float(nested.kept.mean()),
        true_share=float(there.mean()),
    )
