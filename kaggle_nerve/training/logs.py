"""Logs of a fold: the history as CSV, TensorBoard event files, pictures of a few held-out frames."""

import csv
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from kaggle_nerve.competition.facts import HEIGHT, WIDTH
from kaggle_nerve.data.overlay import PREDICTED, TRUE, overlay, png
from kaggle_nerve.maps.fullsize import Truths, enlarge
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

COUNT = 4
"""Held-out frames whose pictures the TensorBoard log shows."""

SIZE = (HEIGHT // 2, WIDTH // 2)
"""(height, width) of a picture. Half size: the log stores `COUNT` pictures per scored epoch."""


def write_history(rows: list[dict[str, Any]], path: Path) -> None:
    """Write ``rows`` (one per epoch) as CSV, atomically."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows({key: _short(value) for key, value in row.items()} for row in rows)


class BoardLog:
    """TensorBoard log of one fold, written with TensorBoard's own event file writer on every Keras backend.

    TensorBoard's `summary.Writer` does not support pictures, and a second event file beside it would be
    read only after the first one ends.
    """

    def __init__(self, folder: Path):
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._writer = EventFileWriter(str(folder))

    def add(self, row: dict[str, Any], pictures: Mapping[str, np.ndarray] | None = None) -> None:
        """Record one epoch's figures, and its pictures (RGB uint8, height x width x 3) by name."""
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
        """Close the file."""
        self._writer.close()


class Overlays:
    """Pictures of `COUNT` held-out frames, the same in every epoch, with the outlines of true and predicted masks.

    ``frames``: uint8 (n, height, width) at working size, with their truths and names. ``conditional``: the maps are
    P(pixel | frame has a mask), so the outline is drawn even if the frame may have no mask.
    """

    def __init__(self, frames: np.ndarray, truths: Truths, names: list[str], conditional: bool = False):
        self._frames, self._truths, self._names, self._conditional = frames, truths, names, conditional
        self._rows = frozenset(pick_rows(truths.areas))
        self._pictures: dict[str, np.ndarray] = {}

    def draw(self, row: int, probability: np.ndarray, presence: float) -> None:
        """Draw the prediction for a frame: its probability map (height, width) at working size and P(mask not empty).

        Ignore frames that were not picked. The outline is at probability 0.5, regardless of the presence.
        """
        if row not in self._rows:
            return
        frames, truths, names = self._frames, self._truths, self._names
        truth = cv2.resize(truths.mask(row).astype(np.float32), SIZE[::-1], interpolation=cv2.INTER_AREA)
        frame = cv2.resize(frames[row], SIZE[::-1], interpolation=cv2.INTER_LINEAR)
        outlines = [(truth >= 0.5, TRUE), (enlarge(probability, SIZE) >= 0.5, PREDICTED)]
        kind = "with a mask" if truths.areas[row] else "empty"
        caption = f"{names[row]} {kind}, presence {presence:.2f}"
        if self._conditional:
            caption += ", outline if there is one"
        self._pictures[names[row]] = overlay(frame, outlines, caption)

    def pop_pictures(self) -> dict[str, np.ndarray]:
        """Return the pictures drawn since the last call, RGB uint8, by frame name."""
        pictures, self._pictures = self._pictures, {}
        return pictures


def pick_rows(areas: np.ndarray, count: int = COUNT) -> list[int]:
    """Pick rows of frames to show: half of them with a mask if there are enough, spread over all subjects.

    ``areas``: pixels of the true masks, (n,), in the order of the subjects.
    """
    kinds = [np.flatnonzero(areas > 0), np.flatnonzero(areas == 0)]
    half = [min(len(rows), count // 2) for rows in kinds]
    counts = [min(len(rows), count - other) for rows, other in zip(kinds, half[::-1], strict=True)]
    return sorted(
        int(rows[(2 * index + 1) * len(rows) // (2 * number)])
        for rows, number in zip(kinds, counts, strict=True)
        for index in range(number)
    )


def _short(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value
