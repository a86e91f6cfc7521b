"""Combine several probability maps of one frame, from views, folds or runs."""

import numpy as np

METHODS = ("mean", "logits", "agreement")
SHARPNESS = 100.0
"""Base of the weights by agreement, as in jwliao1209's entry to this competition."""

SAME = 1e-9
"""Relative difference below which two eigenvalues count as one."""

CERTAIN = 1e-4
"""Smallest distance of a probability from 0 and 1 in log-odds."""


def combine(maps: np.ndarray, method: str = "mean", weights: np.ndarray | None = None) -> np.ndarray:
    """Combine ``maps`` (members, height, width), probabilities from 0 to 1, into float32 (height, width).

    ``mean`` averages probabilities and ``logits`` their log-odds, both with optional ``weights`` (members,)
    of any scale; ``agreement`` also weights each member by its agreement with the others on this frame
    (`agreement_weights`).
    """
    shares = np.ones(len(maps)) if weights is None else np.asarray(weights, float)
    if method == "agreement" and len(maps) > 1:
        shares = shares * agreement_weights(maps)
    shares = (shares / shares.sum()).astype(np.float32)
    if method == "logits":
        return from_log_odds(np.tensordot(shares, log_odds(maps), 1))
    return np.tensordot(shares, maps.astype(np.float32), 1)


class Mixer:
    """Combine maps and presences of the same frames from members that are added one by one.

    ``method`` is one of `METHODS`, for each frame as in `combine`; the presences get the same weights as the
    frame's maps. ``mean`` and ``logits`` keep running sums; ``agreement`` needs all members of a frame and
    keeps their maps as float16.
    """

    def __init__(self, method: str = "mean"):
        self.method = method
        self._count = 0
        self._sums: list[np.ndarray] = []
        self._maps: list[np.ndarray] = []
        self._presences: list[np.ndarray] = []

    def add(self, maps: np.ndarray, presence: np.ndarray) -> None:
        """Add a member's maps (n, height, width) and presences (n,), all from 0 to 1."""
        self._count += 1
        if self.method == "agreement":
            self._maps.append(maps.astype(np.float16))
            self._presences.append(presence)
            return
        values = [log_odds(value) if self.method == "logits" else value for value in (maps, presence)]
        self._sums = [a + b for a, b in zip(self._sums, values, strict=True)] if self._sums else values

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the combined maps (n, height, width) and presences (n,), float32."""
        if self.method == "agreement":
            return self._combine_by_agreement()
        maps, presence = (total / self._count for total in self._sums)
        return (maps, presence) if self.method == "mean" else (from_log_odds(maps), from_log_odds(presence))

    def _combine_by_agreement(self) -> tuple[np.ndarray, np.ndarray]:
        maps = np.empty(self._maps[0].shape, np.float32)
        presence = np.empty(len(maps), np.float32)
        for row in range(len(maps)):
            members = np.stack([values[row] for values in self._maps])
            weights = agreement_weights(members)
            maps[row] = combine(members, "mean", weights)
            presence[row] = weights @ np.array([values[row] for values in self._presences])
        return maps, presence


def agreement_weights(maps: np.ndarray) -> np.ndarray:
    """Compute weights (members,) that sum to 1 from the pairwise Dice of the maps (members, height, width).

    They grow with the leading eigenvector of the matrix of pairwise Dice, which is large for members that
    agree with members that agree with others. Source: the "ASME" of jwliao1209's entry, after Parisi et al.,
    "Ranking and combining multiple predictors without labeled data", PNAS 2014. Members without any overlap
    get equal weights.
    """
    return weights_of_dice(pairwise_dice(maps))


def weights_of_dice(dice: np.ndarray) -> np.ndarray:
    """Compute the `agreement_weights` (members,) from the members' pairwise Dice (members, members)."""
    values, vectors = np.linalg.eigh(dice)
    # If several vectors lead, as with members without overlap, their order is arbitrary: take the one
    # nearest to equal weights.
    leading = vectors[:, values >= values[-1] * (1 - SAME)]
    part = np.abs(leading @ leading.sum(axis=0))
    powers = SHARPNESS ** (part / np.linalg.norm(part))
    return powers / powers.sum()


def pairwise_dice(maps: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """Compute Dice for all pairs of the maps' masks at ``threshold``, (members, members); 1 for two empty ones."""
    masks = (maps >= np.float32(threshold)).reshape(len(maps), -1).astype(np.float32)
    shared, areas = masks @ masks.T, masks.sum(axis=1)
    area_sums = areas[:, None] + areas[None, :]
    return np.divide(2 * shared, area_sums, out=np.ones_like(area_sums), where=area_sums > 0).astype(
        np.float64
    )


def mean_agreement(maps: np.ndarray) -> float:
    """Compute the mean Dice over pairs of different members; 1 for a single member."""
    count = len(maps)
    return 1.0 if count == 1 else float((pairwise_dice(maps).sum() - count) / (count * (count - 1)))


def log_odds(probability: np.ndarray | float) -> np.ndarray:
    """Compute log(p / (1 - p)), with p clipped to `CERTAIN` away from 0 and 1; at least float32."""
    values = np.asarray(probability)
    clipped = np.clip(values.astype(np.promote_types(values.dtype, np.float32)), CERTAIN, 1 - CERTAIN)
    return np.log(clipped / (1 - clipped))


def from_log_odds(odds: np.ndarray) -> np.ndarray:
    """Convert log-odds of any size to probabilities."""
    # Use tanh, which does not overflow.
    return (1 + np.tanh(odds / 2)) / 2
