"""The competition's metric: mean Dice over frames, where two empty masks score 1.

Dice of a frame is ``2 |X and Y| / (|X| + |Y|)``, and 1 if both masks are empty. So a single pixel on a
frame without a true mask reduces that frame's score from 1 to 0.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from kaggle_nerve.competition import rle
from kaggle_nerve.competition.facts import SIZE
from kaggle_nerve.errors import NerveError

Runs = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Score:
    """Score of a submission. Means are in [0, 1], or None if the part has no frames.

    Attributes:
        all: mean Dice of all scored frames.
        public, private: the same for the frames of that ``Usage``; None if the solution has no such column.
        frames: number of scored frames; with a ``Usage`` column, those that are Public or Private.
        per_frame: table with the columns ``img``, ``usage`` ("public", "private" or ""), ``dice``,
            ``intersection``, ``truth_area`` and ``predicted_area`` (pixels), in the solution's order.
    """

    all: float | None
    public: float | None
    private: float | None
    frames: int
    per_frame: pd.DataFrame = field(repr=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """Convert the figures to plain values for JSON."""
        return {"all": self.all, "public": self.public, "private": self.private, "frames": self.frames}


def dice(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Compute Dice of two masks of the same (height, width), in [0, 1]; non-zero pixels belong to the mask.

    Raise NerveError if the shapes differ or an array is not a mask (see ``rle.check_mask``).

    >>> dice(np.array([[1, 1, 0]]), np.array([[0, 1, 0]]))
    0.6666666666666666
    """
    truth, predicted = rle.check_mask(truth) != 0, rle.check_mask(predicted) != 0
    if truth.shape != predicted.shape:
        raise NerveError(
            f"cannot compare masks of {truth.shape} and {predicted.shape} (height, width); "
            "enlarge the prediction to the size of the truth first"
        )
    counts = ((truth & predicted).sum(), truth.sum(), predicted.sum())
    return float(dice_of_counts(*counts))


def dice_of_counts(intersection: Any, truth_area: Any, predicted_area: Any) -> np.ndarray:
    """Compute Dice from pixel counts: numbers, or arrays whose shapes broadcast; float64 in [0, 1].

    The counts are not checked: none may be negative, and the intersection may not exceed either area.

    >>> dice_of_counts([1, 0, 0], [2, 0, 0], [1, 0, 5]).tolist()
    [0.6666666666666666, 1.0, 0.0]
    """
    areas = np.add(truth_area, predicted_area, dtype=np.float64)
    doubled = np.multiply(2.0, intersection, dtype=np.float64)
    doubled, areas = np.broadcast_arrays(doubled, areas)
    return np.divide(doubled, areas, out=np.ones(areas.shape), where=areas > 0)


def dice_of_texts(truth: str, predicted: str, size: tuple[int, int] = SIZE) -> float:
    """Compute Dice of two run-length encodings without decoding them; raise rle.RunLengthError for a faulty one."""
    return float(dice_of_counts(*counts_of_texts(truth, predicted, size)))


def counts_of_texts(truth: str, predicted: str, size: tuple[int, int] = SIZE) -> tuple[int, int, int]:
    """Count (intersection, truth area, predicted area) in pixels of two run-length encodings."""
    return _counts(rle.runs(truth, size), rle.runs(predicted, size))


def score(submission: pd.DataFrame, solution: pd.DataFrame, size: tuple[int, int] = SIZE) -> Score:
    """Score a submission (columns ``img``, ``pixels``) against the true masks.

    ``solution`` has ``img``, ``pixels`` and optionally ``Usage``: then only frames marked Public or Private
    are scored, not others (such as Ignored). The tables come from ``submission.read`` and
    ``submission.read_solution``; their rows may be in different orders.

    Raise NerveError if the frames of the two differ or repeat, or if a scored encoding is faulty.
    """
    truth, predicted = _by_frame(solution, "solution"), _by_frame(submission, "submission")
    _refuse_other_frames(truth.index, predicted.index)
    if "Usage" in solution:
        usage = truth["Usage"].astype(str).str.strip().str.lower()
        truth, usage = (part[usage.isin(["public", "private"])] for part in (truth, usage))
    else:
        usage = pd.Series("", index=truth.index)
    rows = zip(truth.index, truth["pixels"], predicted["pixels"].loc[truth.index], strict=True)
    counts = [
        _counts(_runs("solution", img, true_text, size), _runs("submission", img, predicted_text, size))
        for img, true_text, predicted_text in rows
    ]
    counts = np.array(counts, np.int64).reshape(-1, 3)
    values = dice_of_counts(*counts.T)
    per_frame = pd.DataFrame({"img": truth.index, "usage": usage.to_numpy(), "dice": values})
    per_frame[["intersection", "truth_area", "predicted_area"]] = counts

    def mean(part_rows: np.ndarray) -> float | None:
        return float(values[part_rows].mean()) if part_rows.any() else None

    return Score(
        all=mean(np.ones(len(values), bool)),
        public=mean((usage == "public").to_numpy()),
        private=mean((usage == "private").to_numpy()),
        frames=len(values),
        per_frame=per_frame,
    )


def _by_frame(table: pd.DataFrame, table_name: str) -> pd.DataFrame:
    for column in ("img", "pixels"):
        if column not in table:
            raise NerveError(
                f"the {table_name} has no column {column!r}; its header must begin with img,pixels"
            )
    repeated = table["img"][table["img"].duplicated()]
    if len(repeated):
        raise NerveError(f"the {table_name} has frame {repeated.iloc[0]} more than once; keep one row of it")
    return table.set_index("img")


def _refuse_other_frames(truth: pd.Index, predicted: pd.Index) -> None:
    missing, unknown = truth.difference(predicted), predicted.difference(truth)
    differences = [
        f"{problem} {len(frames)} frames ({', '.join(map(str, frames[:5]))}{', ...' * (len(frames) > 5)})"
        for problem, frames in (("lacks", missing), ("has besides", unknown))
        if len(frames)
    ]
    if differences:
        raise NerveError(
            f"the submission does not belong to the solution: it {' and '.join(differences)}; "
            "score it against the solution of the same frames"
        )


def _counts(truth: Runs, predicted: Runs) -> tuple[int, int, int]:
    return rle.intersection(truth, predicted), int(truth[1].sum()), int(predicted[1].sum())


def _runs(whose: str, img: int, text: str, size: tuple[int, int]) -> Runs:
    try:
        return rle.runs(text, size)
    except rle.RunLengthError as fault:
        raise NerveError(f"frame {img} of the {whose}: {fault}") from fault
