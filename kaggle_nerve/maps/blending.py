"""Several probability maps of one frame, from views, folds or runs, into one."""

import numpy as np

METHODS = ("mean", "logits", "agreement")
SHARPNESS = 100.0
"""Base of the weights by agreement, as in jwliao1209's entry to this competition."""

SAME = 1e-9
"""Relative difference below which two eigenvalues count as one."""

CERTAIN = 1e-4
"""How near to 0 or 1 a probability is believed."""


def combine(maps: np.ndarray, method: str = "mean", weights: np.ndarray | None = None) -> np.ndarray:
    """One map from ``maps`` (members, height, width), probabilities from 0 to 1; float32 (height, width).

    ``mean`` takes the mean of probabilities and ``logits`` that of their log-odds, both with
    ``weights`` (members,) of any scale if given; ``agreement`` weighs each member by how far it agrees
    with the others on this very frame (`agreement_weights`), on top of ``weights``.
    """
    shares = np.ones(len(maps)) if weights is None else np.asarray(weights, float)
    if method == "agreement" and len(maps) > 1:
        shares = shares * agreement_weights(maps)
    shares = (shares / shares.sum()).astype(np.float32)
    if method == "logits":
        return from_log_odds(np.tensordot(shares, log_odds(maps), 1))
    return np.tensordot(shares, maps.astype(np.float32), 1)


class Mixer:
    """Maps and presences of the same frames from several members, combined as the members come in.

    ``method`` is one of `METHODS`, for each frame as in `combine`; the presences get the same weights as
    the frame's maps. ``mean`` and ``logits`` keep running sums; ``agreement`` has to see all members of a
    frame first, and keeps their maps as float16.
    """

    def __init__(self, method: str = "mean"):
        self.method = method
        self._count = 0
        self._sums: list[np.ndarray] = []
        self._maps: list[np.ndarray] = []
        self._presences: list[np.ndarray] = []

    def add(self, maps: np.ndarray, presence: np.ndarray) -> None:
        """Take a member's maps (n, height, width) and presences (n,), all from 0 to 1."""
        self._count += 1
        if self.method == "agreement":
            self._maps.append(maps.astype(np.float16))
            self._presences.append(presence)
            return
        values = [log_odds(each) if self.method == "logits" else each for each in (maps, presence)]
        self._sums = [a + b for a, b in zip(self._sums, values, strict=True)] if self._sums else values

    def result(self) -> tuple[np.ndarray, np.ndarray]:
        """What the members make together, float32: maps (n, height, width) and presences (n,)."""
        if self.method == "agreement":
            return self._agreed()
        maps, presence = (total / self._count for total in self._sums)
        return (maps, presence) if self.method == "mean" else (from_log_odds(maps), from_log_odds(presence))

    def _agreed(self) -> tuple[np.ndarray, np.ndarray]:
        maps = np.empty(self._maps[0].shape, np.float32)
        presence = np.empty(len(maps), np.float32)
        for row in range(len(maps)):
            members = np.stack([each[row] for each in self._maps])
            weights = agreement_weights(members)
            maps[row] = combine(members, "mean", weights)
            presence[row] = weights @ np.array([each[row] for each in self._presences])
        return maps, presence


def agreement_weights(maps: np.ndarray) -> np.ndarray:
    """Weights (members,) that sum to 1 from the pairwise Dice of the maps (members, height, width).

    They grow with the leading eigenvector of the matrix of pairwise Dice, which is large for the
    members that agree with those that agree. Source: the "ASME" of jwliao1209's entry, after
    Parisi et al., "Ranking and combining multiple predictors without labeled data", PNAS 2014. Members
    that share nothing get equal parts.
    """
    return weights_of_dice(pairwise_dice(maps))


def weights_of_dice(dice: np.ndarray) -> np.ndarray:
    """The weights (members,) of `agreement_weights` from the members' pairwise Dice (members, members)."""
    values, vectors = np.linalg.eigh(dice)
    # Where several vectors lead, as with members that share nothing, which of them comes last is chance:
    # the one nearest to equal parts is taken.
    leading = vectors[:, values >= values[-1] * (1 - SAME)]
    part = np.abs(leading @ leading.sum(axis=0))
    powers = SHARPNESS ** (part / np.linalg.norm(part))
    return powers / powers.sum()


def pairwise_dice(maps: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """Dice between all pairs of the maps' masks at ``threshold``, (members, members); 1 for two empty ones."""
    masks = (maps >= np.float32(threshold)).reshape(len(maps), -1).astype(np.float32)
    shared, areas = masks @ masks.T, masks.sum(axis=1)
    both = areas[:, None] + areas[None, :]
    return np.divide(2 * shared, both, out=np.ones_like(both), where=both > 0).astype(np.float64)


def mean_agreement(maps: np.ndarray) -> float:
    """Mean Dice over the pairs of different members, 1 for a single one."""
    count = len(maps)
    return 1.0 if count == 1 else float((pairwise_dice(maps).sum() - count) / (count * (count - 1)))


def log_odds(probability: np.ndarray | float) -> np.ndarray:
    """The logarithm of p / (1 - p), with p kept `CERTAIN` away from 0 and 1; float32 at least."""
    values = np.asarray(probability)
    kept = np.clip(values.astype(np.promote_types(values.dtype, np.float32)), CERTAIN, 1 - CERTAIN)
    return np.log(kept / (1 - kept))


def from_log_odds(odds: np.ndarray) -> np.ndarray:
    """The probability of log-odds of any size."""
    # By way of tanh, which nothing overflows.
    return (1 + np.tanh(odds / 2)) / 2
