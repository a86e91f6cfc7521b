"""The last step of a mask: shape operations, the shape prior, or the CRF, and what each would have scored."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from kaggle_nerve.competition.metric import dice_of_counts
from kaggle_nerve.decision import crf, presence, shape, shape_prior
from kaggle_nerve.decision.evidence import Way, map_levels
from kaggle_nerve.decision.shape_prior import ShapePrior
from kaggle_nerve.errors import NerveError
from kaggle_nerve.maps import levels
from kaggle_nerve.maps.blending import from_log_odds, log_odds
from kaggle_nerve.maps.fullsize import Truths
from kaggle_nerve.prediction.stored import Predictions
from kaggle_nerve.progress import SILENT, Reporter

Images = Callable[[int], np.ndarray]
"""Gives the frame of a row of the predictions, uint8 (height, width)."""

PRIOR, CRF = "prior", "crf"
COMPONENTS = 40
"""Of the shape prior: with 20, true masks of unseen patients lose 0.08 Dice to their own reconstruction."""

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
"""What may be done to a mask, from the simplest on."""


@dataclass(frozen=True)
class Shaper:
    """Finishes masks. ``steps``: the names of `shape.OPERATIONS`, `PRIOR` or `CRF`, in their order. Without a
    ``prior``, for there was no mask to learn one from, the step `PRIOR` changes nothing.
    """

    steps: tuple[str, ...] = ()
    prior: ShapePrior | None = None
    images: Images | None = None

    def __call__(self, seen: np.ndarray, cut: int, row: int) -> np.ndarray:
        """The mask, bool (height, width), of levels ``seen`` that reach ``cut``."""
        mask = seen >= cut
        for step in self.steps:
            if step == CRF:
                mask = self._refined(seen, cut, row)
            elif step == PRIOR:
                mask = self.prior.apply(mask) if self.prior else mask
            else:
                mask = shape.refine(mask, (step,))
        return mask

    def _refined(self, seen: np.ndarray, cut: int, row: int) -> np.ndarray:
        if self.images is None:
            raise NerveError("The CRF looks at the frames themselves; name their --data.")
        # Seen from the cut: a pixel at it is as likely inside as outside.
        odds = log_odds(levels.probability(seen)) - log_odds(levels.probability(cut - 0.5))
        probability = from_log_odds(odds).astype(np.float32)
        mask = crf.refine(probability, self.images(row)) >= 0.5
        return mask if mask.any() else seen >= cut


Shapers = Callable[[int], list[Shaper]]
"""The ways to finish the mask of the frame of a row."""


def counts(
    stored: Predictions,
    truths: Truths,
    cuts: np.ndarray,
    shapers: Shapers,
    *,
    way: Way | None = None,
    reporter: Reporter = SILENT,
    workers: int = 2,
) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (shapers, n) of the frames' masks, and how many of them are in the true masks.

    Each frame is masked from its cut (n,) on and finished by each shaper. A frame that is called empty stays so,
    whatever the shape. ``way``: how the runs are combined.
    """

    def count(row: int) -> list[tuple[int, int]]:
        seen = map_levels(stored, row, way and way(row))
        masks = [shaper(seen, int(cuts[row]), row) for shaper in shapers(row)]
        return [(int(mask.sum()), int(np.count_nonzero(truths.inside(row, mask)))) for mask in masks]

    kept = np.flatnonzero(cuts < levels.NOTHING)
    areas, shared = np.zeros((2, len(shapers(0)), len(cuts)), int)
    with ThreadPoolExecutor(workers) as pool, reporter.bar("Shaping masks", len(kept)) as bar:
        for row, pairs in zip(kept, pool.map(count, kept), strict=True):
            areas[:, row], shared[:, row] = zip(*pairs, strict=True)
            bar.update()
    return areas, shared


def score(stored: Predictions, truths: Truths, cuts: np.ndarray, shapers: Shapers, **how: Any) -> np.ndarray:
    """Dice (shapers, n) of the frames' masks, see `counts`."""
    areas, shared = counts(stored, truths, cuts, shapers, **how)
    return dice_of_counts(shared, truths.areas, areas)


def cross_fitted_priors(texts: list[str], subjects: np.ndarray) -> list[ShapePrior | None]:
    """For each frame a shape prior that has seen no true mask of its subject, None where none of the other
    subjects has a mask. ``texts``: the true masks.
    """
    found: list[ShapePrior | None] = [None] * len(texts)
    for seen, unseen in presence.parts(subjects):
        masks = [texts[row] for row in seen if texts[row]]
        prior = learn_prior(masks) if masks else None
        for row in unseen:
            found[row] = prior
    return found


def learn_prior(texts: list[str]) -> ShapePrior:
    """The shape prior of true masks, given as run-length texts."""
    return shape_prior.fit(texts, COMPONENTS)
