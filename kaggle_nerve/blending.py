"""Several probability maps of one frame, from views, folds or runs, into one."""

import numpy as np

METHODS = ("mean", "logits", "agreement")
SHARPNESS = 100.0
"""Base of the weights by agreement, as in jwliao1209's entry to this competition."""

_CLIP = 1e-4


def combine(maps: np.ndarray, method: str = "mean", weights: np.ndarray | None = None) -> np.ndarray:
    """One map from ``maps`` (members, height, width), probabilities from 0 to 1; float32 (height, width).

    ``mean`` takes the mean of probabilities and ``logits`` that of their log-odds, both with
    ``weights`` (members,) of any scale if given; ``agreement`` weighs each member by how far it agrees
    with the others on this very frame (`agreement_weights`), on top of ``weights``.
    """
    weights = np.ones(len(maps)) if weights is None else np.asarray(weights, float)
    if method == "agreement" and len(maps) > 1:
        weights = weights * agreement_weights(maps)
    weights = (weights / weights.sum()).astype(np.float32)
    if method == "logits":
        clipped = np.clip(maps.astype(np.float32), _CLIP, 1 - _CLIP)
        return 1 / (1 + np.exp(-np.tensordot(weights, np.log(clipped / (1 - clipped)), 1)))
    return np.tensordot(weights, maps.astype(np.float32), 1)


def agreement_weights(maps: np.ndarray) -> np.ndarray:
    """Weights (members,) that sum to 1 from the pairwise Dice of the maps (members, height, width).

    They grow with the leading eigenvector of the matrix of pairwise Dice, which is large for the
    members that agree with those that agree. Source: the "ASME" of jwliao1209's entry, after
    Parisi et al., "Ranking and combining multiple predictors without labeled data", PNAS 2014.
    """
    _, vectors = np.linalg.eigh(pairwise_dice(maps))
    powers = SHARPNESS ** np.abs(vectors[:, -1])
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
