"""What can be set, with its range and its default."""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from kaggle_nerve.storage import digest_text


def _choice(default: Any, *choices: Any) -> Any:
    return field(default=default, metadata={"choices": choices})


def _within(default: Any, low: float, high: float) -> Any:
    return field(default=default, metadata={"range": (low, high)})


@dataclass(frozen=True)
class ModelSettings:
    """The network. Channels double at each of ``depth`` poolings, from ``width``."""

    architecture: str = _choice("unet", "unet")
    width: int = _within(16, 1, 1024)
    depth: int = _within(4, 1, 6)
    widest: int = _within(256, 1, 4096)
    stem: int = _choice(1, 1, 2, 4)
    batch_norm: bool = True
    dropout: float = _within(0.1, 0, 0.9)
    presence: bool = True
    normalise: str = _choice("image", "image", "unit")


@dataclass(frozen=True)
class LossSettings:
    """Weights of the three losses, and the pixels that smooth the Dice ratio."""

    dice: float = _within(1.0, 0, 100)
    bce: float = _within(1.0, 0, 100)
    presence: float = _within(0.5, 0, 100)
    smooth: float = _within(1.0, 1e-6, 1e6)


@dataclass(frozen=True)
class OptimiserSettings:
    """Adam or AdamW; ``warmup`` is a share of the run."""

    name: str = _choice("adamw", "adam", "adamw")
    learning_rate: float = _within(1e-3, 1e-8, 1)
    weight_decay: float = _within(1e-4, 0, 1)
    schedule: str = _choice("cosine", "cosine", "constant")
    warmup: float = _within(0.05, 0, 0.9)
    clip_norm: float = _within(0.0, 0, 1e6)


@dataclass(frozen=True)
class TrainingSettings:
    """Epochs, batches and when to stop.

    ``positive_rate`` is the share of frames with a mask in the first epoch; it falls in a straight
    line to the training set's own share over ``positive_share`` of the run (0 keeps the natural share).
    ``patience`` counts epochs without a better validation score; 0 never stops early.
    """

    epochs: int = _within(30, 1, 10000)
    batch: int = _within(16, 1, 4096)
    patience: int = _within(0, 0, 10000)
    positive_rate: float = _within(0.0, 0, 1)
    positive_share: float = _within(0.5, 0, 1)
    collapse_epochs: int = _within(5, 1, 10000)
    jit: bool = True


@dataclass(frozen=True)
class AugmentationSettings:
    """Ranges of the random changes, drawn uniformly for each frame.

    Flips are probabilities; ``rotate`` is in degrees; ``shift`` a share of the frame; ``scale`` and
    ``gamma`` are the largest factor (1.2: from 1/1.2 to 1.2); ``contrast`` a share around 1;
    ``brightness`` and ``noise`` (its standard deviation) are shares of the full range of grey.
    """

    hflip: float = _within(0.5, 0, 1)
    vflip: float = _within(0.0, 0, 1)
    rotate: float = _within(10.0, 0, 180)
    shift: float = _within(0.08, 0, 0.5)
    scale: float = _within(1.15, 1, 4)
    contrast: float = _within(0.2, 0, 1)
    brightness: float = _within(0.1, 0, 1)
    gamma: float = _within(1.2, 1, 5)
    noise: float = _within(0.02, 0, 1)


@dataclass(frozen=True)
class PredictionSettings:
    """How frames are predicted, out-of-fold and test alike. ``tta`` adds the flipped view."""

    tta: str = _choice("hflip", "none", "hflip")
    batch: int = _within(32, 1, 4096)


@dataclass(frozen=True)
class Settings:
    """Everything that decides what a run computes.

    ``size`` is (height, width); ``folds`` is the number of patient-grouped folds, or TRAIN/HELD
    (such as ``42/5``) for one plain hold-out of subjects.
    """

    description: str = ""
    size: tuple[int, int] = (96, 128)
    folds: str = "5"
    seed: int = _within(0, 0, 2**31 - 1)
    model: ModelSettings = field(default_factory=ModelSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    prediction: PredictionSettings = field(default_factory=PredictionSettings)

    def flat(self) -> dict[str, Any]:
        """``section.key`` -> value, in the order of the file."""
        return dict(_flatten(self))

    def digest(self) -> str:
        """SHA-256 of what the run computes; the description does not count."""
        values = {key: value for key, value in self.flat().items() if key != "description"}
        return digest_text(json.dumps(values, sort_keys=True))


def _flatten(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for item in dataclasses.fields(value):
        inner = getattr(value, item.name)
        if dataclasses.is_dataclass(inner):
            rows += _flatten(inner, f"{prefix}{item.name}.")
        else:
            rows.append((prefix + item.name, inner))
    return rows
