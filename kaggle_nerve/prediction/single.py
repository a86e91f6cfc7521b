"""Predict pictures from outside the competition with every finished fold of a run."""

import cv2
import numpy as np
import pandas as pd

from kaggle_nerve.data.cache import shrink
from kaggle_nerve.prediction.ensemble import combine_models, load_fold
from kaggle_nerve.prediction.forward import probabilities
from kaggle_nerve.prediction.stored import Predictions, ensemble_scale, rescale
from kaggle_nerve.progress import SILENT, Reporter
from kaggle_nerve.runs import Run

ARRAYS = ("probabilities", "presence", "agreement", "spread")


def predict_frames(run: Run, frames: list[np.ndarray], *, reporter: Reporter = SILENT) -> Predictions:
    """Predict ``frames``, uint8 (height, width) of any sizes, with the run; their img is 1, 2, ...

    Each frame is stretched to the working size, regardless of its shape. The folds are combined as for test
    frames. A few frames have no distribution to match, so the combined values are rescaled to those of a
    single fold by what was measured on the run's test frames (see `matching`). Without test predictions of
    these folds, the values are not rescaled, which finds rather too few masks; the reporter gets a message.
    """
    folds = len(run.require_finished_folds())
    models = [load_fold(fold) for fold in run.test_folds()]
    small = np.stack([shrink(frame, run.settings.size) for frame in frames])
    settings = run.settings.prediction
    options = {"tta": settings.tta, "combine": settings.combine, "batch": min(settings.batch, len(small))}
    streams = [probabilities(model, small, **options) for model in models]
    parts = [combine_models(list(each), folds, settings.combine) for each in zip(*streams, strict=True)]
    combined = {name: np.concatenate([part[name] for part in parts]) for name in ARRAYS}
    rows = np.arange(len(frames))
    table = pd.DataFrame({"img": rows + 1, "agreement": combined["agreement"], "spread": combined["spread"]})
    presences = combined["presence"].astype(float)[:, None]
    maps = combined["probabilities"].astype(np.float16)
    kind = run.settings.loss.is_conditional
    stored = Predictions(table, presences, (maps,), (rows,), "", (run.name,), conditional=(kind,))
    return _at_scale(run, stored, len(models), reporter)


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a mask (height, width), bool: a pixel is in the result if at least half of it is covered."""
    if mask.shape == size:
        return mask.astype(bool)
    interpolation = cv2.INTER_AREA if size[0] < mask.shape[0] else cv2.INTER_LINEAR
    return cv2.resize(mask.astype(np.float32), size[::-1], interpolation=interpolation) >= 0.5


def _at_scale(run: Run, stored: Predictions, models: int, reporter: Reporter) -> Predictions:
    if models == 1:
        return stored
    scale = ensemble_scale(run)
    if scale is None:
        reporter.say(
            f"Run {run.name} has no test predictions by its {models} models, so their mean is taken as it is and may "
            f"find too few masks; `kaggle-nerve predict --run {run.name}` gives it the scale of a single fold."
        )
        return stored
    return rescale(stored, scale)
