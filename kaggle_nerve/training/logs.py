"""The history of a fold: a CSV that opens anywhere, TensorBoard's event files, pictures of a few held-out frames."""

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
SIZE = (HEIGHT // 2, WIDTH // 2)
"""(height, width) of a picture: a log keeps one of each frame for each scored epoch."""


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


class Overlays:
    """Pictures of the predictions on `COUNT` held-out frames with true and predicted outlines, the same in every epoch.

    ``frames``: uint8 (n, height, width) at working size, with their truths and names. ``conditional``: the maps say
    P(pixel | there is a mask), so that the outline is one that may be there.
    """

    def __init__(self, frames: np.ndarray, truths: Truths, names: list[str], conditional: bool = False):
        self._frames, self._truths, self._names, self._conditional = frames, truths, names, conditional
        self._rows = frozenset(chosen(truths.areas))
        self._made: dict[str, np.ndarray] = {}

    def look(self, row: int, probability: np.ndarray, presence: float) -> None:
        """Draw what is said about a frame: its map (height, width) at working size and P(mask not empty).

        Frames that are not among the few are passed over. The outline is at probability 0.5, whatever the
        presence.
        """
        if row not in self._rows:
            return
        frames, truths, names = self._frames, self._truths, self._names
        truth = cv2.resize(truths.mask(row).astype(np.float32), SIZE[::-1], interpolation=cv2.INTER_AREA)
        frame = cv2.resize(frames[row], SIZE[::-1], interpolation=cv2.INTER_LINEAR)
        outlines = [(truth >= 0.5, TRUE), (enlarge(probability, SIZE) >= 0.5, PREDICTED)]
        what = "with a mask" if truths.areas[row] else "empty"
        caption = f"{names[row]} {what}, presence {presence:.2f}"
        if self._conditional:
            caption += ", outline if there is one"
        self._made[names[row]] = overlay(frame, outlines, caption)

    def taken(self) -> dict[str, np.ndarray]:
        """The pictures since the last call, RGB uint8, by the frames' names."""
        made, self._made = self._made, {}
        return made


def chosen(areas: np.ndarray, count: int = COUNT) -> list[int]:
    """Rows of frames to look at: half of them with a mask where there are enough, spread over all subjects.

    ``areas``: pixels of the true masks, (n,), in the order of the subjects.
    """
    kinds = [np.flatnonzero(areas > 0), np.flatnonzero(areas == 0)]
    half = [min(len(rows), count // 2) for rows in kinds]
    wanted = [min(len(rows), count - other) for rows, other in zip(kinds, half[::-1], strict=True)]
    return sorted(
        int(rows[(2 * place + 1) * len(rows) // (2 * number)])
        for rows, number in zip(kinds, wanted, strict=True)
        for place in range(number)
    )


def _short(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value
