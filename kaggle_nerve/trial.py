"""Try a run on single pictures: predict a mask for each, and draw an overlay."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kaggle_nerve import pipeline
from kaggle_nerve.competition import rle
from kaggle_nerve.competition.facts import HEIGHT, SIZE, WIDTH
from kaggle_nerve.data.cache import shrink
from kaggle_nerve.data.overlay import PREDICTED, overlay, png
from kaggle_nerve.data.picture import read_picture
from kaggle_nerve.decision import decision as decisions
from kaggle_nerve.decision import text
from kaggle_nerve.decision.decision import Decision, DefaultDecision, default_decision
from kaggle_nerve.decision.masks import encode_masks
from kaggle_nerve.errors import NerveError
from kaggle_nerve.progress import SILENT, Reporter
from kaggle_nerve.runs import Run
from kaggle_nerve.storage import atomic_path

OTHER_KINDS = {".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".gif"}


@dataclass(frozen=True)
class Prediction:
    """Prediction for a picture.

    ``mask``: bool, of the picture's own (height, width). ``presence``: P(mask not empty), 0 to 1, at the scale used
    for decisions. ``area``: pixels of the mask at the competition's size, 0 for an empty mask.
    """

    mask: np.ndarray
    presence: float
    area: int


@dataclass(frozen=True)
class SavedPrediction:
    """Prediction for a picture, with the paths of the picture, its overlay and its mask.

    ``presence``: P(mask not empty), 0 to 1, at the scale used for decisions. ``area``: pixels of the mask
    at the competition's size, 0 for an empty mask.
    """

    frame: Path
    presence: float
    area: int
    overlay: Path
    mask: Path

    @property
    def verdict(self) -> str:
        """The prediction in words."""
        return f"mask of {self.area} pixels at {WIDTH}x{HEIGHT}" if self.area else "empty"

    def as_dict(self) -> dict[str, Any]:
        """Convert to plain values for JSON."""
        return {
            "frame": str(self.frame),
            "presence": round(self.presence, 6),
            "empty": not self.area,
            "area": self.area,
            "overlay": str(self.overlay),
            "mask": str(self.mask),
        }


def predict(
    run: Run,
    pictures: Sequence[np.ndarray | Path],
    data_dir: Path,
    *,
    reporter: Reporter = SILENT,
    workers: int = 2,
) -> list[Prediction]:
    """Predict pictures of any size: paths of TIFF or PNG files, or grey arrays, uint8 (height, width).

    Frames are decided as in `submit`: see `prediction.single` for the scale. The decision is learned from the
    frames in ``data_dir`` if there is none yet; without them, it is a plain threshold. Raise NerveError, naming
    the file, if a picture cannot be read.
    """
    arrays = [picture if isinstance(picture, np.ndarray) else read_picture(picture) for picture in pictures]
    for array in arrays:
        if array.ndim != 2 or array.dtype != np.uint8:
            raise NerveError(
                f"A picture is an array of type {array.dtype} and shape {array.shape}; give grey frames, uint8 "
                "(height, width)."
            )
    decision = _decision(run, data_dir, reporter, workers)
    # Import Keras only once there is something to predict.
    from kaggle_nerve.prediction.single import predict_frames, resize_mask

    stored = predict_frames(run, arrays, reporter=reporter)
    masks = encode_masks(
        stored, decision, images=lambda row: shrink(arrays[row], SIZE), reporter=reporter, workers=workers
    )
    return [
        Prediction(
            resize_mask(rle.decode(encoded), arrays[row].shape),
            float(stored.presence[row]),
            rle.area(encoded),
        )
        for row, (_, encoded) in enumerate(masks)
    ]


def try_frames(
    run: Run,
    frames: Sequence[Path],
    out: Path,
    data_dir: Path,
    *,
    reporter: Reporter = SILENT,
    workers: int = 2,
) -> list[SavedPrediction]:
    """Predict the pictures ``frames``, of any size, and write for each an overlay and its mask as PNG.

    The overlay shows the picture at its own size with the predicted outline, and the verdict below it; the
    mask has 0 and 255 at the same size. For a single picture, ``out`` may be the overlay's own path, ending
    in .png, with the mask beside it as ``out-mask.png``; otherwise it is a folder. Frames are decided as in
    `submit`: see `prediction.single` for the scale. Raise NerveError, naming the file, if one cannot be read
    or written.
    """
    targets = _targets(frames, out)
    pictures = [read_picture(path) for path in frames]
    saved = []
    for path, picture, prediction, paths in zip(
        frames,
        pictures,
        predict(run, pictures, data_dir, reporter=reporter, workers=workers),
        targets,
        strict=True,
    ):
        record = SavedPrediction(path, prediction.presence, prediction.area, *paths)
        caption = f"presence {record.presence:.2f}, {record.verdict}"
        _write(record.overlay, overlay(picture, [(prediction.mask, PREDICTED)], caption))
        _write(record.mask, prediction.mask.astype(np.uint8) * 255)
        saved.append(record)
    return saved


def _decision(run: Run, data_dir: Path, reporter: Reporter, workers: int) -> Decision | DefaultDecision:
    """Learn or load the run's decision; without data, use a stored one or the default."""
    try:
        decision = pipeline.learn_decision([run], data_dir, reporter=reporter, workers=workers)
    except NerveError as fault:
        decision = _stored_decision(run) or default_decision(run.settings.loss.is_conditional)
        if isinstance(decision, DefaultDecision):
            reporter.say(f"Run {run.name} has no learned decision, and none can be learned now: {fault}")
        else:
            reporter.say(
                f"Run {run.name} keeps its earlier decision, whichever folds that was learned on, since none can be "
                f"learned now: {fault}"
            )
    reporter.say(text.rule(decision))
    return decision


def _stored_decision(run: Run) -> Decision | None:
    """Load the decision in the run's folder, regardless of what it was learned on."""
    try:
        return decisions.load(run.decision_file) if run.decision_file.is_file() else None
    except NerveError:
        return None


def _targets(frames: Sequence[Path], out: Path) -> list[tuple[Path, Path]]:
    """Return the paths of the overlay and the mask of each frame."""
    suffix = out.suffix.lower()
    if out.is_dir() or suffix not in {".png", *OTHER_KINDS}:
        targets = [(out / f"{path.stem}-overlay.png", out / f"{path.stem}-mask.png") for path in frames]
    elif suffix != ".png":
        raise NerveError(f"--out {out} must end in .png, or be a folder.")
    elif len(frames) > 1:
        raise NerveError(f"--out {out} is one picture for {len(frames)} frames; name a folder.")
    else:
        targets = [(out, out.with_name(f"{out.stem}-mask.png"))]
    _refuse_overwriting(frames, targets)
    return targets


def _refuse_overwriting(frames: Sequence[Path], targets: list[tuple[Path, Path]]) -> None:
    counts = Counter(path for pair in targets for path in pair)
    frame_paths = {path.resolve() for path in frames}
    for path, times in counts.items():
        if path.resolve() in frame_paths:
            raise NerveError(f"{path} would overwrite a frame; name another --out.")
        if times > 1:
            raise NerveError(f"{path} would be written for several frames; give them different names.")


def _write(path: Path, picture: np.ndarray) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(png(picture))
