"""Read a frame or a mask from its TIFF file; reject other files with an error that names them."""

import os
from pathlib import Path

os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")  # for a damaged file we raise our own error

import cv2
import numpy as np

from kaggle_nerve.competition.facts import SIZE
from kaggle_nerve.errors import NerveError

AGAIN = "delete it and run `kaggle-nerve fetch` again"


def read_grey(path: Path, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Read the pixels of an 8-bit grey TIFF as uint8 of ``size`` (height, width).

    Raise NerveError, naming the file, if it is missing, truncated or damaged, 16-bit, coloured, or of
    another size.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise NerveError(f"{path} is missing; run `kaggle-nerve fetch` again.") from None
    except OSError as fault:
        raise NerveError(
            f"{path} cannot be read ({fault.strerror}); check the disk and its rights."
        ) from fault
    if data[:4] not in (b"II*\0", b"MM\0*"):
        raise NerveError(f"{path} is not a TIFF file; {AGAIN}.")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        image = None
    if image is None:
        raise NerveError(f"{path} is truncated or damaged; {AGAIN}.")
    if image.ndim != 2:
        raise NerveError(f"{path} has {image.shape[2]} colour channels instead of one grey; {AGAIN}.")
    if image.dtype != np.uint8:
        raise NerveError(f"{path} has {image.dtype.itemsize * 8} bits a pixel instead of 8; {AGAIN}.")
    if image.shape != tuple(size):
        raise NerveError(
            f"{path} is {image.shape[1]}x{image.shape[0]} pixels instead of {size[1]}x{size[0]}; {AGAIN}."
        )
    return image
