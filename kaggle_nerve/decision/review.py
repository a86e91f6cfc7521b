"""What a decision makes of the out-of-fold frames, one by one."""

import pandas as pd

from kaggle_nerve.competition.metric import dice_of_texts
from kaggle_nerve.decision.decision import Decision
from kaggle_nerve.decision.masks import encoded_masks
from kaggle_nerve.decision.shaping import Images
from kaggle_nerve.errors import NerveError
from kaggle_nerve.prediction.stored import Stored
from kaggle_nerve.progress import SILENT, Reporter


def review(
    stored: Stored,
    frames: pd.DataFrame,
    decision: Decision,
    *,
    images: Images | None = None,
    reporter: Reporter = SILENT,
    workers: int = 2,
) -> pd.DataFrame:
    """The rows of ``stored`` with pixels (the true mask), predicted (its run-length encoding) and dice.

    The decision was learned on these very frames: the Dice of a single one is for looking at, their mean is
    the in-sample figure. ``frames`` has subject, img and pixels; NerveError where one is missing there.
    """
    masks = encoded_masks(stored, decision, images=images, reporter=reporter, workers=workers)
    table = stored.table.assign(predicted=[text for _, text in masks])
    table = table.merge(frames[["subject", "img", "pixels"]], on=["subject", "img"], how="left")
    if table.pixels.isna().any():
        raise NerveError("The data has no mask rows for some out-of-fold frames; name the run's own --data.")
    pairs = zip(table.pixels, table.predicted, strict=True)
    return table.assign(dice=[dice_of_texts(truth, predicted) for truth, predicted in pairs])
