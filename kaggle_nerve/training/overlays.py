"""A few held-out frames with their true and predicted outlines, to be looked at epoch by epoch."""

from typing import NamedTuple

import cv2
import numpy as np

from kaggle_nerve.competition.facts import HEIGHT, WIDTH
from kaggle_nerve.data.fullsize import Truths, enlarge
from kaggle_nerve.data.overlay import PREDICTED, TRUE, overlay

COUNT = 4
SIZE = (HEIGHT // 2, WIDTH // 2)
"""(height, width) of a picture: a log keeps one of each frame for each scored epoch."""


class Held(NamedTuple):
    """The held-out subjects' frames, uint8 (n, height, width) at working size, their truths and names."""

    frames: np.ndarray
    truths: Truths
    names: list[str]


class Overlays:
    """Pictures of the predictions on `COUNT` frames, the same in every epoch.

    ``conditional``: the maps say P(pixel | there is a mask), so that the outline is one that may be there.
    """

    def __init__(self, held: Held, conditional: bool = False):
        self._held, self._conditional = held, conditional
        self._rows = frozenset(chosen(held.truths.areas))
        self._made: dict[str, np.ndarray] = {}

    def look(self, row: int, probability: np.ndarray, presence: float) -> None:
        """Draw what is said about a frame: its map (height, width) at working size and P(mask not empty).

        Frames that are not among the few are passed over. The outline is at probability 0.5, whatever the
        presence.
        """
        if row not in self._rows:
            return
        frames, truths, names = self._held
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
