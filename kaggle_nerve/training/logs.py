"""The history of a fold: a CSV that opens anywhere, and TensorBoard's event files."""

import csv
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kaggle_nerve.data.overlay import png
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
    """TensorBoard figures and pictures of one fold, as the events that TensorBoard's own file writer takes.

    It serves every Keras backend. TensorBoard's `summary.Writer` has no pictures, and a second file
    beside it would be read only after the first one's end.
    """

    def __init__(self, folder: Path):
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._writer = EventFileWriter(str(folder))

    def add(self, row: dict[str, Any], pictures: Mapping[str, np.ndarray] | None = None) -> None:
        """Record one epoch's figures, and pictures (RGB uint8, height x width x 3) by name."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [
            Summary.Value(tag=name, simple_value=row[name])
            for name in COLUMNS[1:]
            if row.get(name) is not None
        ]
        for name, picture in (pictures or {}).items():
            height, width, colours = picture.shape
            image = Summary.Image(
                height=height, width=width, colorspace=colours, encoded_image_string=png(picture)
            )
            values.append(Summary.Value(tag=f"held-out/{name}", image=image))
        summary = Summary(value=values)
        self._writer.add_event(Event(wall_time=time.time(), step=row["epoch"], summary=summary))
        self._writer.flush()

    def close(self) -> None:
        """End the file."""
        self._writer.close()


def _short(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value
