"""Shape prior: a linear model of the shape and position of true masks.

Principal components of true masks shrunk to a small grid (T. F. Cootes et al., Active shape models, 1995,
use outline points). With few components, every result resembles the training masks. On unseen patients, true masks
have a Dice with their own reconstruction of about .92 with 20 components, .95 with 40 and .97 with 80: an
upper limit for predictions with this prior.
"""

import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from sklearn.decomposition import PCA

from kaggle_nerve.competition import rle
from kaggle_nerve.competition.facts import SIZE
from kaggle_nerve.errors import NerveError
from kaggle_nerve.storage import atomic_path

GRID = (105, 145)
"""(height, width) of the grid: a quarter of a frame's size, 4 x 4 pixels a cell."""


@dataclass(frozen=True, eq=False)
class ShapePrior:
    """Shape prior. ``mean``: float32 (rows, columns), the share of true masks that cover each cell of the grid.

    ``components``: float32 (k, rows, columns), orthonormal, largest variance first, every value exact in
    float16. ``size``: (height, width) of the masks in pixels.
    """

    mean: np.ndarray
    components: np.ndarray
    size: tuple[int, int]

    def apply(self, mask: np.ndarray) -> np.ndarray:
        """Return ``mask``, bool ``size``, projected onto the components and thresholded at one half.

        An empty mask, or one that would become empty, is returned unchanged. Raise NerveError for a mask of
        another size.
        """
        if mask.shape != self.size:
            raise NerveError(f"This shape prior is for masks of {self.size}, got one of {mask.shape}.")
        if not mask.any():
            return mask
        basis = self.components.reshape(-1, self.mean.size)
        offset = _shrink(mask, self.mean.shape) - self.mean
        soft = self.mean + ((basis @ offset.reshape(-1)) @ basis).reshape(self.mean.shape)
        result = cv2.resize(soft, self.size[::-1], interpolation=cv2.INTER_LINEAR) >= 0.5
        return result if result.any() else mask

    def save(self, path: Path) -> None:
        """Write an .npz file, atomically: at most 30 kB per component, as float16."""
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(
                file, mean=self.mean, components=self.components.astype(np.float16), size=self.size
            )


def fit(
    texts: Sequence[str],
    components: int,
    *,
    grid: tuple[int, int] = GRID,
    size: tuple[int, int] = SIZE,
    seed: int = 0,
) -> ShapePrior:
    """Learn the prior from the run-length encodings of true masks of ``size``; empty ones are ignored.

    ``components``: number of components, at most n - 1 for n masks. The same masks and seed give the same
    prior, including signs. Memory: n * rows * columns float32, 141 MB for all 2323 true masks of the
    competition.

    Raise NerveError if no mask is left, and RunLengthError for a damaged encoding.
    """
    texts = [text for text in texts if text]
    if not texts:
        raise NerveError("A shape prior needs at least one true mask that is not empty; there is none.")
    shrunk = np.empty((len(texts), grid[0] * grid[1]), np.float32)
    for row, text in enumerate(texts):
        shrunk[row] = _shrink(rle.decode(text, size), grid).reshape(-1)
    mean = shrunk.mean(axis=0)
    count = min(components, len(texts) - 1, mean.size)
    basis = np.empty((0, mean.size), np.float32)
    # Identical masks have no variance to divide by.
    if count > 0 and (shrunk != shrunk[0]).any():
        basis = PCA(count, svd_solver="randomized", random_state=seed).fit(shrunk).components_
    # Round to float16 now, so that a saved prior is identical when loaded.
    rounded = basis.astype(np.float16).astype(np.float32).reshape(-1, *grid)
    return ShapePrior(mean.reshape(grid), rounded, size)


def load(path: Path) -> ShapePrior:
    """Load a prior written by ``ShapePrior.save``; raise NerveError if the file is missing or damaged."""
    if not path.is_file():
        raise NerveError(f"There is no shape prior at {path}.")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            mean, components = stored["mean"], stored["components"].astype(np.float32)
            height, width = stored["size"].tolist()
        if mean.ndim != 2 or components.shape[1:] != mean.shape:
            raise ValueError(f"a mean of {mean.shape} with components of {components.shape}")
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile, zlib.error) as fault:
        raise NerveError(f"{path} is not a shape prior ({fault}).") from fault
    return ShapePrior(mean, components, (height, width))


def _shrink(mask: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Return the share of each cell of ``grid`` that a mask of 0/1 covers, float32 from 0 to 1."""
    return cv2.resize(np.asarray(mask, np.float32), grid[::-1], interpolation=cv2.INTER_AREA)
