"""Views for test-time augmentation: mirror and zoom frames, and undo it for their masks."""

from typing import NamedTuple

import cv2
import numpy as np


class View(NamedTuple):
    """A view of a frame: mirrored along ``axes`` of (n, height, width), enlarged ``zoom`` times."""

    axes: tuple[int, ...] = ()
    zoom: float = 1.0


VIEWS: dict[str, tuple[View, ...]] = {
    "none": (View(),),
    "hflip": (View(), View((2,))),
    "flips": (View(), View((2,)), View((1,)), View((1, 2))),
    "scales": tuple(View(axes, zoom) for zoom in (0.9, 1.0, 1.1) for axes in ((), (2,))),
}
"""Views of each kind of test-time augmentation."""


def apply_view(frames: np.ndarray, view: View) -> np.ndarray:
    """Transform ``frames`` (float32, n x height x width) by ``view``; the shape stays the same."""
    return _zoom(np.flip(frames, view.axes), view.zoom, cv2.BORDER_REPLICATE)


def undo_view(masks: np.ndarray, view: View) -> np.ndarray:
    """Transform the masks (float32, n x height x width) of a view's frames back to the original frames.

    The border that an enlarged view did not show is 0.
    """
    return np.flip(_zoom(masks, 1 / view.zoom, cv2.BORDER_CONSTANT), view.axes)


def _zoom(images: np.ndarray, factor: float, border: int) -> np.ndarray:
    """Enlarge ``images`` about the frame's centre; height and width stay the same."""
    if factor == 1:
        return images
    height, width = images.shape[1:]
    across, down = (1 - factor) * (width - 1) / 2, (1 - factor) * (height - 1) / 2
    matrix = np.array([[factor, 0, across], [0, factor, down]])
    result = np.empty(images.shape, np.float32)
    for image, target in zip(images, result, strict=True):
        cv2.warpAffine(
            np.ascontiguousarray(image), matrix, (width, height), target, cv2.INTER_LINEAR, border, 0
        )
    return result
