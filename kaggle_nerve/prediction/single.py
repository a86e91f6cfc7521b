"""Pictures that belong to no competition through every finished fold of a run."""

import cv2
import numpy as np
import pandas as pd

from kaggle_nerve.data.cache import shrink
from kaggle_nerve.prediction.ensemble import load_fold, together
from kaggle_nerve.prediction.forward import probabilities
from kaggle_nerve.prediction.stored import Stored, scale_of, scaled
from kaggle_nerve.progress import SILENT, Reporter
from kaggle_nerve.runs import Run

TAKEN = ("probabilities", "presence", "agreement", "spread")


def predict_frames(run: Run, frames: list[np.ndarray], *, reporter: Reporter = SILENT) -> Stored:
    """What the run says about ``frames``, uint8 (height, width) of any sizes; their img is 1, 2, ...

    Each frame is stretched to the working size, whatever its shape. The folds are combined as for test
    frames. A few frames have no distribution to be matched, so that several folds are brought to the scale
    of a single one by what was measured on the run's test frames (see `matching`). Where there are no test
    predictions of these folds, the combined values are left as they are, which finds rather too few masks;
    the reporter is told.
    """
    folds = len(run.needs_finished_folds())
    models = [load_fold(fold) for fold in run.test_folds()]
    small = np.stack([shrink(frame, run.settings.size) for frame in frames])
    settings = run.settings.prediction
    options = {"tta": settings.tta, "combine": settings.combine, "batch": min(settings.batch, len(small))}
    streams = [probabilities(model, small, **options) for model in models]
    parts = [together(list(each), folds, settings.combine) for each in zip(*streams, strict=True)]
    said = {name: np.concatenate([part[name] for part in parts]) for name in TAKEN}
    rows = np.arange(len(frames))
    table = pd.DataFrame({"img": rows + 1, "agreement": said["agreement"], "spread": said["spread"]})
    presences = said["presence"].astype(float)[:, None]
    maps = said["probabilities"].astype(np.float16)
    kind = run.settings.loss.is_conditional
    stored = Stored(table, presences, (maps,), (rows,), "", (run.name,), conditional=(kind,))
    return _at_scale(run, stored, len(models), reporter)


def at_size(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask (height, width) brought to another size, bool: half a pixel covered is in it."""
    if mask.shape == size:
        return mask.astype(bool)
    way = cv2.INTER_AREA if size[0] < mask.shape[0] else cv2.INTER_LINEAR
    return cv2.resize(mask.astype(np.float32), size[::-1], interpolation=way) >= 0.5


def _at_scale(run: Run, stored: Stored, models: int, reporter: Reporter) -> Stored:
    if models == 1:
        return stored
    scale = scale_of(run)
    if scale is None:
        reporter.say(
            f"Run {run.name} has no test predictions by its {models} models, so their mean is taken as it is and may "
            f"find too few masks; `kaggle-nerve predict --run {run.name}` gives it the scale of a single fold."
        )
        return stored
    return scaled(stored, scale)
