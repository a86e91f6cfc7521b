"""Draw a picture of the phantom for the docs: ``python -m kaggle_nerve.phantom.sheet docs/phantom.png``."""

import sys
from pathlib import Path

import cv2
import numpy as np

from kaggle_nerve.errors import NerveError
from kaggle_nerve.phantom.frame import meet_subject, render
from kaggle_nerve.phantom.plan import Shot, plan_train

TITLE = "Synthetic phantom: computed, not of any patient"

_ROWS, _COLUMNS = 4, 3
_TILE = (308, 223)
_GAP, _HEAD = 6, 34
_OUTLINE = (0, 200, 255)
_GREYS = 24
"""Grey levels of the picture: speckle compresses badly, and more levels would not be visible."""


def draw_sheet(path: Path, seed: int = 0) -> None:
    """Write a PNG with 12 frames of 12 subjects: 6 with the nerve outlined, then 6 without one.

    Raise NerveError if ``path`` cannot be written.
    """
    tiles = [_draw_tile(seed, shot) for shot in _choose(seed)]
    rows = [np.hstack(tiles[start : start + _COLUMNS]) for start in range(0, len(tiles), _COLUMNS)]
    sheet = np.vstack([_head(rows[0].shape[1]), *rows])
    _, data = cv2.imencode(".png", sheet, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    try:
        Path(path).write_bytes(data.tobytes())
    except OSError as fault:
        raise NerveError(f"{path} cannot be written ({fault.strerror}); choose another path.") from fault


def _choose(seed: int) -> list[Shot]:
    """Choose one frame of each of 12 subjects: 6 with a clear nerve and its mask, then 6 without."""
    half = _ROWS * _COLUMNS // 2
    shots = plan_train(seed, subjects=4 * half, frames=20)
    clear = {shot.subject: shot for shot in shots if shot.labelled and shot.edge > 0.05}
    with_nerve = [clear[subject] for subject in sorted(clear)[:half]]
    nerve_subjects = {shot.subject for shot in with_nerve}
    empty = {shot.subject: shot for shot in shots if not shot.nerve and shot.subject not in nerve_subjects}
    return with_nerve + [empty[subject] for subject in sorted(empty)[:half]]


def _draw_tile(seed: int, shot: Shot) -> np.ndarray:
    """Draw a small frame with its outline: uint8 (height, width, 3)."""
    frame, mask = render(*meet_subject(seed, shot.subject), shot)
    small = cv2.resize(frame, _TILE, interpolation=cv2.INTER_AREA).astype(np.float32)
    steps = np.round(small / 255 * (_GREYS - 1)) / (_GREYS - 1) * 255
    tile = cv2.cvtColor(steps.astype(np.uint8), cv2.COLOR_GRAY2BGR)
    inside = cv2.resize(mask, _TILE, interpolation=cv2.INTER_AREA)
    outlines, _ = cv2.findContours((inside > 127).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(tile, outlines, -1, _OUTLINE, 1, cv2.LINE_8)
    return cv2.copyMakeBorder(tile, 0, _GAP, 0, _GAP, cv2.BORDER_CONSTANT, value=(255, 255, 255))


def _head(width: int) -> np.ndarray:
    """Draw the title above the frames: uint8 (height, width, 3)."""
    head = np.full((_HEAD, width, 3), 255, np.uint8)
    cv2.putText(head, TITLE, (4, 23), cv2.FONT_HERSHEY_SIMPLEX, 0.62, (0, 0, 0), 1, cv2.LINE_AA)
    note = "above: nerve outlined; below: no nerve"
    cv2.putText(head, note, (width - 345, 23), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (80, 80, 80), 1, cv2.LINE_AA)
    return head


if __name__ == "__main__":
    draw_sheet(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/phantom.png"))
