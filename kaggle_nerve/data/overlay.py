"""Outlines of masks drawn into a frame, pixel by pixel at the frame's own size: by OpenCV, in milliseconds."""

from collections.abc import Sequence

import cv2
import numpy as np

TRUE, PREDICTED = "#00d0ff", "#ffb000"
"""Outline colours, apart for colour-blind eyes, too."""

READABLE = 0.4
"""The scale of OpenCV's letters below which they are hard to read."""

INK, PAPER = (225, 225, 225), 24
"""Grey levels of a caption and of the strip that it stands on."""

FONT = cv2.FONT_HERSHEY_SIMPLEX


def overlay(frame: np.ndarray, outlines: Sequence[tuple[np.ndarray, str]], caption: str = "") -> np.ndarray:
    """``frame`` (uint8, height x width) in colour, RGB uint8, with outlines and the caption on a strip below.

    ``outlines``: masks of the frame's size, each with its colour (``#rrggbb``). The caption is ASCII,
    broken after its commas where the frame is narrow; its strip makes the picture higher than the frame.
    """
    picture = cv2.cvtColor(frame, cv2.COLOR_GRAY2RGB)
    width = max(1, round(min(frame.shape) / 240))
    for mask, colour in outlines:
        found, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, found, -1, _rgb(colour), width, cv2.LINE_AA)
    return np.concatenate([picture, _strip(caption, frame.shape)]) if caption else picture


def png(picture: np.ndarray) -> bytes:
    """A picture as a PNG file: grey (height, width) or RGB (height, width, 3), uint8."""
    if picture.ndim == 3:
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    # OpenCV's own default takes two thirds more room.
    return cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 3])[1].tobytes()


def _strip(caption: str, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    scale, pen = max(height / 800, READABLE), max(1, round(height / 600))
    lines = [caption] if _fitting(caption, width, pen) >= READABLE else caption.split(", ")
    scale = min([scale, *(_fitting(line, width, pen) for line in lines)])
    (_, tall), below = cv2.getTextSize(caption, FONT, scale, pen)
    step = round(1.6 * (tall + below))
    strip = np.full((step * len(lines) + below, width, 3), PAPER, np.uint8)
    for number, line in enumerate(lines):
        start = round(0.02 * width), step * number + round(1.3 * tall + below)
        cv2.putText(strip, line, start, FONT, scale, INK, pen, cv2.LINE_AA)
    return strip


def _fitting(line: str, width: int, pen: int) -> float:
    """The scale at which a line takes the width, but for margins and the pen, which OpenCV 4 does not count."""
    return (0.96 * width - 2 * pen) / cv2.getTextSize(line, FONT, 1, pen)[0][0]


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour.removeprefix("#")))
