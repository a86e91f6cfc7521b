"""Frames for the page: small JPEG pictures with outlines, chosen so that they tell something."""

import base64
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from kaggle_nerve.competition import rle
from kaggle_nerve.data.overlay import PREDICTED, TRUE, overlay
from kaggle_nerve.data.tiff import read_grey
from kaggle_nerve.report.gather import Seen, Tested

COUNT = 12
TEST_COUNT = 36
SHRINK = 0.6
QUALITY = 80


@dataclass(frozen=True)
class Picture:
    """A picture as a data address, and the line below it."""

    address: str
    caption: str


@dataclass(frozen=True)
class Gallery:
    """Pictures under a heading, and what they are."""

    name: str
    title: str
    about: str
    pictures: list[Picture]


def galleries(seen: Seen) -> list[Gallery]:
    """Best, median and worst frames with a mask; false positives and false negatives, the surest first."""
    frames = seen.frames
    present, kept = frames.area > 0, frames.predicted_area > 0
    drawn = frames[present & kept].sort_values("dice")
    invented = frames[~present & kept].sort_values("presence", ascending=False)
    missed = frames[present & ~kept].sort_values("presence")
    middle = max(0, len(drawn) // 2 - COUNT // 2)
    chosen = [
        ("best", "Best", "Highest Dice among frames with a mask.", drawn[::-1]),
        ("median", "Median", "From the middle of the frames with a mask that got one.", drawn[middle:]),
        ("worst", "Worst", "Lowest Dice among frames with a mask that got one.", drawn),
        (
            "false-positives",
            "False positives",
            f"No mask is there, one was drawn: {len(invented)} frames, presence surest first.",
            invented,
        ),
        (
            "false-negatives",
            "False negatives",
            f"A mask is there, none was drawn: {len(missed)} frames, absence surest first.",
            missed,
        ),
    ]
    return [Gallery(name, title, about, _pictures(seen, rows)) for name, title, about, rows in chosen]


def _pictures(seen: Seen, rows: pd.DataFrame) -> list[Picture]:
    rows = rows.head(COUNT)
    return [
        Picture(
            picture(row.path, [(row.pixels, TRUE), (mask, PREDICTED)]),
            f"{row.subject}_{row.img}: Dice {row.dice:.3f}, presence {row.presence:.2f}",
        )
        for row, mask in zip(rows.itertuples(), seen.masks(rows), strict=True)
    ]


def test_sheet(tested: Tested) -> Gallery:
    """Test frames from first to last at even steps, with what was drawn."""
    frames = tested.frames
    places = np.unique(np.linspace(0, len(frames) - 1, min(TEST_COUNT, len(frames))).round().astype(int))
    pictures = [
        Picture(
            picture(row.path, [(row.predicted, PREDICTED)]),
            f"{row.img}: {f'{row.area} pixels' if row.area else 'empty'}",
        )
        for row in frames.iloc[places].itertuples()
    ]
    return Gallery(
        "test", "Test frames", f"{len(pictures)} of {len(frames)} frames, at even steps.", pictures
    )


def picture(path: Path, outlines: list[tuple[str, str]]) -> str:
    """A frame with the outlines of run-length encoded masks, each in its colour, as a JPEG in a data address."""
    frame = read_grey(path)
    size = round(frame.shape[1] * SHRINK), round(frame.shape[0] * SHRINK)
    masks = [
        (cv2.resize(rle.decode(text, frame.shape), size, interpolation=cv2.INTER_NEAREST), colour)
        for text, colour in outlines
    ]
    drawn = overlay(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), masks)
    bgr = cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
