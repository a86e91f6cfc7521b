"""Apply a decision to stored probabilities, with a few frames in memory at a time."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from kaggle_nerve.competition import rle
from kaggle_nerve.decision.decision import Decision, DefaultDecision
from kaggle_nerve.decision.evidence import measure_frame, stack_evidence
from kaggle_nerve.decision.shaping import SHAPES, Images, Shaper
from kaggle_nerve.errors import NerveError
from kaggle_nerve.maps import levels
from kaggle_nerve.prediction.stored import Predictions
from kaggle_nerve.progress import SILENT, Reporter


def encode_masks(
    stored: Predictions,
    decision: Decision | DefaultDecision,
    *,
    images: Images | None = None,
    reporter: Reporter = SILENT,
    workers: int = 2,
) -> Iterator[tuple[int, str]]:
    """Yield (img, run-length encoding) for each frame of ``stored``, in its order; '' for an empty mask.

    ``stored`` must hold the same runs in the same order as those the decision was learned on. ``images`` is
    needed if the decision's shape is the CRF.
    """
    weights = decision.blend.weights or decision.blend.thresholds
    if weights and len(weights) != len(stored.parts):
        raise NerveError(
            f"The decision combines {len(weights)} runs, not {len(stored.parts)}; run `kaggle-nerve tune --force`."
        )
    stored = replace(stored, blend=decision.blend)
    finish = Shaper(SHAPES[decision.shape], decision.prior, images)

    def decide(row: int) -> str:
        frame_levels, evidence = measure_frame(stored, row)
        cut = int(decision.learned.cuts(stack_evidence([evidence]))[0])
        return "" if cut == levels.NOTHING else rle.encode(finish(frame_levels, cut, row))

    imgs = stored.table.img.to_list()
    with ThreadPoolExecutor(workers) as pool, reporter.bar("Writing masks", len(imgs)) as bar:
        for img, text in zip(imgs, pool.map(decide, range(len(imgs))), strict=True):
            yield int(img), text
            bar.update()
