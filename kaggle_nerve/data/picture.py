"""Read any ultrasound picture as a grey frame, with other sizes, bit depths and colours than the competition's."""

import os
import struct
from pathlib import Path

os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # for a damaged file we raise our own error

import cv2
import numpy as np

from kaggle_nerve.errors import NerveError

MIN_SIDE = 16
"""Minimum height and width of a frame in pixels."""

DEPTHS = (8, 10, 12, 14, 16)
"""Bits per pixel of scanners; files store those above 8 in 16."""

PHOTOMETRIC, WHITE_IS_ZERO = 262, 0
"""TIFF's tag that says what grey levels mean, and its value for pictures in which 0 is white."""


def read_picture(path: Path) -> np.ndarray:
    """Read a TIFF or PNG of 8 or 16 bits, grey or colour, as uint8 grey (height, width), at its own size.

    Read the first of several pages, upright if the file says how the picture was taken (EXIF). For 16 bits, the
    depth is the smallest of `DEPTHS` that holds the largest value; transparency is ignored. Raise NerveError,
    naming the file, if it is not such a picture.
    """
    data = _bytes(path)
    try:
        # IMREAD_UNCHANGED would leave a phone's photo lying on its side.
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR)
    except cv2.error:
        image = None
    if image is None:
        raise NerveError(f"{path} is not a picture, or a damaged one; name a TIFF or PNG file.")
    if image.dtype not in (np.uint8, np.uint16):
        raise NerveError(f"{path} has pixels of type {image.dtype}; save it with 8 or 16 bits a pixel.")
    height, width = image.shape[:2]
    if min(height, width) < MIN_SIDE:
        raise NerveError(
            f"{path} is {width}x{height} pixels; a frame has at least {MIN_SIDE} in each direction."
        )
    grey = _eight_bits(_grey(image))
    # OpenCV inverts such TIFFs itself if they have 8 bits.
    return 255 - grey if image.dtype == np.uint16 and _white_is_zero(data) else grey


def _white_is_zero(data: bytes) -> bool:
    """Return whether ``data`` is a TIFF whose first page says that 0 is white."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(data[:4])
    if order is None:
        return False
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, start)
    entries = range(start + 2, start + 2 + 12 * count, 12)
    return any(
        struct.unpack_from(f"{order}H6xH", data, entry) == (PHOTOMETRIC, WHITE_IS_ZERO) for entry in entries
    )


def _bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise NerveError(f"There is no file {path}; check the path.") from None
    except IsADirectoryError:
        raise NerveError(f"{path} is a folder; name the pictures in it one by one.") from None
    except OSError as fault:
        raise NerveError(f"{path} cannot be read ({fault.strerror}); check its rights.") from fault
    if not data:
        raise NerveError(f"{path} is empty; name a TIFF or PNG file.")
    return data


def _grey(image: np.ndarray) -> np.ndarray:
    if image.ndim == 2:
        return image
    if image.shape[2] in (3, 4):
        return cv2.cvtColor(np.ascontiguousarray(image[..., :3]), cv2.COLOR_BGR2GRAY)
    return np.ascontiguousarray(image[..., 0])


def _eight_bits(image: np.ndarray) -> np.ndarray:
    if image.dtype == np.uint8:
        return image
    bits = next(bits for bits in DEPTHS if image.max() < 2**bits)
    return np.round(image * (255 / (2**bits - 1))).astype(np.uint8)
