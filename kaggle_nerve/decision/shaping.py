"""Refine masks by shape operations, the shape prior or the CRF, and score each option."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from kaggle_nerve.competition.metric import dice_of_counts
from kaggle_nerve.decision import crf, presence, shape, shape_prior
from kaggle_nerve.decision.evidence import BlendByRow, map_levels
from kaggle_nerve.decision.shape_prior import ShapePrior
from kaggle_nerve.errors import NerveError
from kaggle_nerve.maps import levels
from kaggle_nerve.maps.blending import from_log_odds, log_odds
from kaggle_nerve.maps.fullsize import Truths
from kaggle_nerve.prediction.stored import Predictions
from kaggle_nerve.progress import SILENT, Reporter

Images = Callable[[int], np.ndarray]
"""Function from a row of the predictions to its frame, uint8 (height, width)."""

PRIOR, CRF = "prior", "crf"
COMPONENTS = 40
"""Components of the shape prior: reconstructing true masks of unseen patients costs 0.05 Dice, with 20 components
0.08 (see `shape_prior`)."""

SHAPES: dict[str, tuple[str, ...]] = {
    "none": (),
    "largest": ("fill", "largest"),
    "close": ("fill", "largest", "close"),
    "smooth": ("fill", "largest", "smooth"),
    "hull": ("largest", "hull"),
    "ellipse": ("largest", "ellipse"),
    PRIOR: ("fill", "largest", PRIOR),
    CRF: (CRF, "fill", "largest"),
}
"""Options to refine a mask, simplest first."""


@dataclass(frozen=True)
class Shaper:
    """Refine a frame's mask by steps. ``steps``: names of `shape.OPERATIONS`, `PRIOR` or `CRF`, in order. Without a
    ``prior``, which needs at least one true mask, the step `PRIOR` changes nothing.
    """

    steps: tuple[str, ...] = ()
    prior: ShapePrior | None = None
    images: Images | None = None

    def __call__(self, frame_levels: np.ndarray, cut: int, row: int) -> np.ndarray:
        """Return the refined mask, bool (height, width), of the pixels of ``frame_levels`` that reach ``cut``."""
        mask = frame_levels >= cut
        for step in self.steps:
            if step == CRF:
                mask = self._apply_crf(frame_levels, cut, row)
            elif step == PRIOR:
                mask = self.prior.apply(mask) if self.prior else mask
            else:
                mask = shape.apply_operations(mask, (step,))
        return mask

    def _apply_crf(self, frame_levels: np.ndarray, cut: int, row: int) -> np.ndarray:
        if self.images is None:
            raise NerveError("The CRF looks at the frames themselves; name their --data.")
        # Shift the log-odds so that a pixel at the cut has probability one half.
        logits = log_odds(levels.probability(frame_levels)) - log_odds(levels.probability(cut - 0.5))
        probability = from_log_odds(logits).astype(np.float32)
        mask = crf.marginals(probability, self.images(row)) >= 0.5
        return mask if mask.any() else frame_levels >= cut


Shapers = Callable[[int], list[Shaper]]
"""Function from a frame's row to its shapers, one per option."""


def counts(
    stored: Predictions,
    truths: Truths,
    cuts: np.ndarray,
    shapers: Shapers,
    *,
    blend_by_row: BlendByRow | None = None,
    reporter: Reporter = SILENT,
    workers: int = 2,
) -> tuple[np.ndarray, np.ndarray]:
    """Count the pixels (shapers, n) of the frames' masks, and those inside the true masks.

    Each frame's mask at its cut (n,) is refined by each shaper. A frame decided as empty stays empty with every
    shape. ``blend_by_row``: the blend of the runs on each frame; None: the stored blend.
    """

    def count(row: int) -> list[tuple[int, int]]:
        frame_levels = map_levels(stored, row, blend_by_row and blend_by_row(row))
        masks = [shaper(frame_levels, int(cuts[row]), row) for shaper in shapers(row)]
        return [(int(mask.sum()), int(np.count_nonzero(truths.inside(row, mask)))) for mask in masks]

    rows = np.flatnonzero(cuts < levels.NOTHING)
    areas, intersections = np.zeros((2, len(shapers(0)), len(cuts)), int)
    with ThreadPoolExecutor(workers) as pool, reporter.bar("Shaping masks", len(rows)) as bar:
        for row, pairs in zip(rows, pool.map(count, rows), strict=True):
            areas[:, row], intersections[:, row] = zip(*pairs, strict=True)
            bar.update()
    return areas, intersections


def score(
    stored: Predictions, truths: Truths, cuts: np.ndarray, shapers: Shapers, **options: Any
) -> np.ndarray:
    """Compute the Dice (shapers, n) of the frames' masks; see `counts` for the arguments."""
    areas, intersections = counts(stored, truths, cuts, shapers, **options)
    return dice_of_counts(intersections, truths.areas, areas)


def cross_fit_priors(texts: list[str], subjects: np.ndarray) -> list[ShapePrior | None]:
    """Learn for each frame a shape prior without the true masks of its subject; None if the other subjects have no
    masks. ``texts``: the true masks (run-length encoding).
    """
    priors: list[ShapePrior | None] = [None] * len(texts)
    for train_rows, test_rows in presence.subject_splits(subjects):
        masks = [texts[row] for row in train_rows if texts[row]]
        prior = learn_prior(masks) if masks else None
        for row in test_rows:
            priors[row] = prior
    return priors


def learn_prior(texts: list[str]) -> ShapePrior:
    """Learn the shape prior from run-length encodings of true masks."""
    return shape_prior.fit(texts, COMPONENTS)
