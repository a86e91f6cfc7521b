"""Match an ensemble's probabilities to the scale of a single fold's, on which the decision is learned.

A mean over folds is less extreme than each fold: pixels over 0.95 become rare, and thresholds, areas and
calibrations learned on out-of-fold predictions, which come from a single model, then find too few masks.
So the ensemble keeps its order of pixels and of frames, but gets the distribution of the single folds on
the same frames: quantile matching, which needs no labels.
"""

from dataclasses import dataclass

import numpy as np

from kaggle_nerve.maps import levels


def curve(ensemble: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Map each level of the ensemble to the probability at the same quantile of the folds, (256,).

    ``ensemble``, ``folds``: number of pixels of each level, (256,) each.
    """
    edges = np.clip(levels.probability(np.arange(levels.COUNT + 1) - 0.5), 0, 1)
    quantiles = np.concatenate([[0], np.cumsum(folds)]) / max(folds.sum(), 1)
    middle = (np.cumsum(ensemble) - ensemble / 2) / max(ensemble.sum(), 1)
    return np.interp(middle, quantiles, edges)


def match_values(ensemble: np.ndarray, folds: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
    """Give the ensemble's values (n,) the distribution of the folds' (n, folds), keeping their order.

    ``values`` (m,): values of other frames by the same ensemble to map instead, by interpolation.
    """
    distinct, times = np.unique(ensemble, return_counts=True)
    middle = (np.cumsum(times) - times / 2) / len(ensemble)
    return np.quantile(folds, np.interp(ensemble if values is None else values, distinct, middle))


@dataclass(frozen=True)
class Scale:
    """Mapping of an ensemble to the scale of its folds: a `curve` for maps (256,), and the presences of the
    frames that it was measured on, the ensemble's (n,) and the folds' (n, folds)."""

    curve: np.ndarray
    ensemble: np.ndarray
    folds: np.ndarray

    def presences(self, values: np.ndarray) -> np.ndarray:
        """Match the presences (m,) of any frames by the same ensemble."""
        return match_values(self.ensemble, self.folds, values)

    def maps(self, maps: np.ndarray) -> "MatchedMaps":
        """Match the maps (m, height, width), float16, of any frames by the same ensemble."""
        return MatchedMaps(maps, self.curve)


class MatchedMaps:
    """Maps (n, height, width) of float16, read row by row with each pixel mapped by a `curve`."""

    def __init__(self, maps: np.ndarray, curve: np.ndarray):
        self._maps = maps
        # One entry for each float16 number: a look-up costs a tenth of an interpolation.
        numbers = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
        is_finite = np.isfinite(numbers)
        place = np.where(is_finite, numbers, 0) * (levels.COUNT - 1)
        mapped = np.interp(place, np.arange(levels.COUNT), curve).astype(np.float32)
        self._table = np.where(is_finite, mapped, np.float32(np.nan))

    def __len__(self) -> int:
        return len(self._maps)

    def __getitem__(self, row: int) -> np.ndarray:
        return self._table[np.ascontiguousarray(self._maps[row]).view(np.uint16)]
