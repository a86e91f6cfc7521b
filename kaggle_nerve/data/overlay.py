"""Draw outlines of masks into a frame at its own size, by OpenCV in milliseconds."""

from collections.abc import Sequence

import cv2
import numpy as np

TRUE, PREDICTED = "#00d0ff", "#ffb000"
"""Outline colours, distinct for colour-blind people, too."""

READABLE = 0.4
"""Smallest scale of OpenCV's font that is easy to read."""

INK, PAPER = (225, 225, 225), 24
"""Colour of a caption and grey level of its background."""

FONT = cv2.FONT_HERSHEY_SIMPLEX


def overlay(frame: np.ndarray, outlines: Sequence[tuple[np.ndarray, str]], caption: str = "") -> np.ndarray:
    """Draw outlines on ``frame`` (uint8, height x width), with a caption on a strip below; return RGB uint8.

    ``outlines``: masks of the frame's size, each with its colour (``#rrggbb``). The caption is ASCII and
    wraps after its commas if the frame is narrow; its strip makes the picture higher than the frame.
    """
    picture = cv2.cvtColor(frame, cv2.COLOR_GRAY2RGB)
    width = max(1, round(min(frame.shape) / 240))
    for mask, colour in outlines:
        contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(picture, contours, -1, _rgb(colour), width, cv2.LINE_AA)
    return np.concatenate([picture, _strip(caption, frame.shape)]) if caption else picture


def png(picture: np.ndarray) -> bytes:
    """Encode a picture, grey (height, width) or RGB (height, width, 3), uint8, as PNG."""
    if picture.ndim == 3:
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    # OpenCV's default level needs two thirds more space.
    return cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 3])[1].tobytes()


def _strip(caption: str, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    scale, pen = max(height / 800, READABLE), max(1, round(height / 600))
    lines = [caption] if _fitting_scale(caption, width, pen) >= READABLE else caption.split(", ")
    scale = min([scale, *(_fitting_scale(line, width, pen) for line in lines)])
    (_, tall), below = cv2.getTextSize(caption, FONT, scale, pen)
    step = round(1.6 * (tall + below))
    strip = np.full((step * len(lines) + below, width, 3), PAPER, np.uint8)
    for number, line in enumerate(lines):
        start = round(0.02 * width), step * number + round(1.3 * tall + below)
        cv2.putText(strip, line, start, FONT, scale, INK, pen, cv2.LINE_AA)
    return strip


def _fitting_scale(line: str, width: int, pen: int) -> float:
    """Return the font scale at which a line fits the width without margins and pen, which OpenCV 4 ignores."""
    return (0.96 * width - 2 * pen) / cv2.getTextSize(line, FONT, 1, pen)[0][0]


def _rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour.removeprefix("#")))
