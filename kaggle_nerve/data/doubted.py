"""Frames with doubted labels: read the table from `audit` and turn it into weights and targets for training."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kaggle_nerve.competition import csv_text
from kaggle_nerve.errors import NerveError
from kaggle_nerve.settings import TrainingSettings

COLUMNS = ("subject", "img", "weight", "presence")
"""Marked frame, weight of its losses, and presence target instead of 0 or 1. Both values are from 0 to 1."""


@dataclass(frozen=True)
class Marks:
    """Loss weights and presence targets of a cache's rows; None: unchanged.

    ``weights``: float32 (n,), the weight of each row's losses, 1 for unmarked frames.
    ``presence``: float32 (n,), the presence target, 0 or 1 for unmarked frames.
    """

    weights: np.ndarray | None = None
    presence: np.ndarray | None = None


def marks(settings: TrainingSettings, table: pd.DataFrame) -> Marks | None:
    """Return the marks for the frames of ``table`` (subject, img, has_mask); None if ``settings`` use none.

    Raise NerveError if the table of doubted labels is missing or faulty.
    """
    if settings.noise == "none":
        return None
    if not settings.noise_table:
        raise NerveError(
            f"training.noise={settings.noise} needs the table of doubted labels; write it with "
            f"`kaggle-nerve audit` and name it in training.noise_table."
        )
    weights, presence = read(Path(settings.noise_table), table)
    return Marks(weights=weights) if settings.noise == "weight" else Marks(presence=presence)


def read(path: Path, table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Read weight and presence target, float32 (n,), of each row of ``table`` (subject, img, has_mask).

    The file has `COLUMNS`, in any order and possibly among others, and lists marked frames only. Raise
    NerveError, with the line, for an unknown frame, a duplicate, or a value that is not from 0 to 1.
    """
    places = {frame: row for row, frame in enumerate(zip(table.subject, table.img, strict=True))}
    weights = np.ones(len(table), np.float32)
    presence = table.has_mask.to_numpy(np.float32, copy=True)
    line_of: dict[tuple[int, int], int] = {}
    for line, values in _rows(path):
        frame = _frame(values)
        if frame is None or frame not in places:
            frame_text = csv_text.quote(f"{values['subject']}_{values['img']}")
            raise NerveError(
                f"{path}, line {line}: {frame_text} is no training frame; run `kaggle-nerve audit` again."
            )
        name = f"{frame[0]}_{frame[1]}"
        if frame in line_of:
            raise NerveError(
                f"{path}, line {line}: frame {name} stands in line {line_of[frame]} already; keep one of the two."
            )
        line_of[frame] = line
        for column, array in (("weight", weights), ("presence", presence)):
            value = _number(values, column)
            if value is None or not 0 <= value <= 1:
                raise NerveError(
                    f"{path}, line {line}: {column} of frame {name} is {csv_text.quote(values[column])}; write a "
                    f"number from 0 to 1."
                )
            array[places[frame]] = value
    return weights, presence


def _rows(path: Path) -> list[tuple[int, dict[str, str]]]:
    """Return line number and values of each row that is not blank."""
    if not path.is_file():
        raise NerveError(
            f"There is no file {path}; write it with `kaggle-nerve audit` or mend training.noise_table."
        )
    data = csv_text.read_bytes(path)
    if fault := csv_text.find_unreadable(data):
        raise NerveError(f"{path}: {fault[1]}; write it anew with `kaggle-nerve audit`.")
    reader = csv.DictReader(csv_text.lines(data), restval="")
    missing = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
    if missing:
        raise NerveError(
            f"{path}, line 1: there is no column {missing[0]}; it takes {','.join(COLUMNS)}: run `kaggle-nerve "
            f"audit` again."
        )
    return [(reader.line_num, values) for values in reader]


def _frame(values: dict[str, str]) -> tuple[int, int] | None:
    """Return subject and img; None if one of them is not an integer."""
    try:
        return int(values["subject"]), int(values["img"])
    except ValueError:
        return None


def _number(values: dict[str, str], column: str) -> float | None:
    try:
        return float(values[column])
    except ValueError:
        return None
