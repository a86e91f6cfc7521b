"""The history of a fold: a CSV that opens anywhere, and TensorBoard's event files."""

import csv
from pathlib import Path
from typing import Any

from kaggle_nerve.storage import atomic_path

COLUMNS = [
    "epoch",
    "learning_rate",
    "loss",
    "dice",
    "present_dice",
    "presence_auc",
    "presence_threshold",
    "empty_share",
    "full_share",
    "pixel_dice",
    "iou",
    "pixel_accuracy",
    "train_frames",
    "train_seconds",
    "seconds",
]


def write_history(rows: list[dict[str, Any]], path: Path) -> None:
    """Write ``rows`` (one an epoch) as CSV, atomically."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows({key: _short(value) for key, value in row.items()} for row in rows)


class BoardLog:
    """TensorBoard scalars of one fold, by TensorBoard's own writer: it serves every Keras backend."""

    def __init__(self, folder: Path):
        from tensorboard.summary import Writer

        self._writer = Writer(str(folder))

    def add(self, row: dict[str, Any]) -> None:
        """Record one epoch's figures."""
        for name in COLUMNS[1:]:
            if row.get(name) is not None:
                self._writer.add_scalar(name, row[name], row["epoch"])
        self._writer.flush()

    def close(self) -> None:
        """End the file."""
        self._writer.close()


def _short(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value
