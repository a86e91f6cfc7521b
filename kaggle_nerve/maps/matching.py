"""The ensemble's probabilities brought to the scale of a single fold's, on which the decision is learned.

A mean over folds is less extreme than each of them: pixels over 0.95 get rare, and thresholds, areas
and calibrations learned on out-of-fold predictions, which are a single model's, then find too few
masks. So the ensemble keeps its order of pixels and of frames, and takes over the distribution of the
single folds on the same frames: quantile matching, which looks at no label.
"""

from dataclasses import dataclass

import numpy as np

from kaggle_nerve.maps import levels


def curve(ensemble: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """For each level of the ensemble the probability that stands at the same quantile of the folds, (256,).

    ``ensemble``, ``folds``: how many pixels have each level, (256,) each.
    """
    edges = np.clip(levels.probability(np.arange(levels.COUNT + 1) - 0.5), 0, 1)
    reached = np.concatenate([[0], np.cumsum(folds)]) / max(folds.sum(), 1)
    middle = (np.cumsum(ensemble) - ensemble / 2) / max(ensemble.sum(), 1)
    return np.interp(middle, reached, edges)


def match_values(ensemble: np.ndarray, folds: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
    """The values (n,) of the ensemble with the distribution of the folds' (n, folds), in their own order.

    ``values`` (m,): those of other frames by the same ensemble, placed between its own.
    """
    known, times = np.unique(ensemble, return_counts=True)
    middle = (np.cumsum(times) - times / 2) / len(ensemble)
    return np.quantile(folds, np.interp(ensemble if values is None else values, known, middle))


@dataclass(frozen=True)
class Scale:
    """What brings an ensemble to the scale of its folds: a `curve` for maps (256,), and for presences those
    of the frames it was measured on, the ensemble's (n,) and the folds' (n, folds)."""

    curve: np.ndarray
    ensemble: np.ndarray
    folds: np.ndarray

    def presences(self, values: np.ndarray) -> np.ndarray:
        """The presences (m,) of any frames by the same ensemble, matched."""
        return match_values(self.ensemble, self.folds, values)

    def maps(self, maps: np.ndarray) -> "MatchedMaps":
        """The maps (m, height, width), float16, of any frames by the same ensemble, matched."""
        return MatchedMaps(maps, self.curve)


class MatchedMaps:
    """Maps (n, height, width) of float16, read row by row with each pixel moved along a `curve`."""

    def __init__(self, maps: np.ndarray, matched: np.ndarray):
        self._maps = maps
        # One entry for each number that float16 has: a look-up costs a tenth of an interpolation.
        every = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
        number = np.isfinite(every)
        place = np.where(number, every, 0) * (levels.COUNT - 1)
        found = np.interp(place, np.arange(levels.COUNT), matched).astype(np.float32)
        self._table = np.where(number, found, np.float32(np.nan))

    def __len__(self) -> int:
        return len(self._maps)

    def __getitem__(self, row: int) -> np.ndarray:
        return self._table[np.ascontiguousarray(self._maps[row]).view(np.uint16)]
