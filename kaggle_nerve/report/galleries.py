"""Galleries of frames for the page: small JPEGs with outlines."""

import base64
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from kaggle_nerve.competition import rle
from kaggle_nerve.data.overlay import PREDICTED, TRUE, overlay
from kaggle_nerve.data.tiff import read_grey
from kaggle_nerve.report.gather import OutOfFold, TestFrames

COUNT = 12
TEST_COUNT = 36
SHRINK = 0.6
QUALITY = 80


@dataclass(frozen=True)
class Picture:
    """A picture as a data URL, and its caption."""

    address: str
    caption: str


@dataclass(frozen=True)
class Gallery:
    """Pictures with a heading and a description."""

    name: str
    title: str
    about: str
    pictures: list[Picture]


def galleries(oof: OutOfFold) -> list[Gallery]:
    """Pick the best, median and worst frames with a mask, and the most confident false positives and
    negatives."""
    frames = oof.frames
    present, predicted = frames.area > 0, frames.predicted_area > 0
    hits = frames[present & predicted].sort_values("dice")
    false_positives = frames[~present & predicted].sort_values("presence", ascending=False)
    false_negatives = frames[present & ~predicted].sort_values("presence")
    middle = max(0, len(hits) // 2 - COUNT // 2)
    selections = [
        ("best", "Best", "Highest Dice among frames with a mask.", hits[::-1]),
        ("median", "Median", "From the middle of the frames with a mask that got one.", hits[middle:]),
        ("worst", "Worst", "Lowest Dice among frames with a mask that got one.", hits),
        (
            "false-positives",
            "False positives",
            f"No mask is there, one was drawn: {len(false_positives)} frames, presence surest first.",
            false_positives,
        ),
        (
            "false-negatives",
            "False negatives",
            f"A mask is there, none was drawn: {len(false_negatives)} frames, absence surest first.",
            false_negatives,
        ),
    ]
    return [Gallery(name, title, about, _pictures(oof, rows)) for name, title, about, rows in selections]


def _pictures(oof: OutOfFold, rows: pd.DataFrame) -> list[Picture]:
    rows = rows.head(COUNT)
    return [
        Picture(
            picture(row.path, [(row.pixels, TRUE), (mask, PREDICTED)]),
            f"{row.subject}_{row.img}: Dice {row.dice:.3f}, presence {row.presence:.2f}",
        )
        for row, mask in zip(rows.itertuples(), oof.masks(rows), strict=True)
    ]


def test_sheet(test: TestFrames) -> Gallery:
    """Pick evenly spaced test frames, with their predicted masks."""
    frames = test.frames
    indices = np.unique(np.linspace(0, len(frames) - 1, min(TEST_COUNT, len(frames))).round().astype(int))
    pictures = [
        Picture(
            picture(row.path, [(row.predicted, PREDICTED)]),
            f"{row.img}: {f'{row.area} pixels' if row.area else 'empty'}",
        )
        for row in frames.iloc[indices].itertuples()
    ]
    return Gallery(
        "test", "Test frames", f"{len(pictures)} of {len(frames)} frames, at even steps.", pictures
    )


def picture(path: Path, outlines: list[tuple[str, str]]) -> str:
    """Return a frame with outlines of run-length encoded masks, each in its colour, as a JPEG data URL."""
    frame = read_grey(path)
    size = round(frame.shape[1] * SHRINK), round(frame.shape[0] * SHRINK)
    masks = [
        (cv2.resize(rle.decode(text, frame.shape), size, interpolation=cv2.INTER_NEAREST), colour)
        for text, colour in outlines
    ]
    rgb = overlay(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), masks)
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()
