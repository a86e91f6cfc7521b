"""What can be set, with its range and its default."""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from kaggle_nerve.storage import digest_text

ENCODERS = (
    "efficientnetv2-b0",
    "efficientnetv2-b1",
    "efficientnetv2-b2",
    "efficientnetv2-b3",
    "efficientnetv2-s",
    "efficientnet-b1",
    "resnet50",
    "convnext-tiny",
    "efficientnet-lite0",
    "efficientnet-lite1",
    "efficientnet-lite2",
)
"""Encoders of keras.applications, and EfficientNet-Lite."""

TTA = ("none", "hflip", "flips", "scales")
COMBINE = ("mean", "logits", "agreement")

ALL = "all"
"""In place of a fold's number: the fold that holds nobody out. Its model is trained on every subject."""

AND_ALL = "+all"
"""The end of the setting ``folds`` where that fold is trained, too."""

LATER = {
    "prediction.combine": "mean",
    "loss.empty_frames": 1.0,
    "model.frozen": 0,
    "model.presence_pool": "mean",
    "model.window": 1.0,
    "augmentation.elastic": 0.0,
    "augmentation.gain": 0.0,
    "augmentation.sharpness": 0.0,
}
"""Keys younger than stored runs, and the value that those were made with: it leaves their digests as they were."""


def _choice(default: Any, *choices: Any) -> Any:
    return field(default=default, metadata={"choices": choices})


def _within(default: Any, low: float, high: float) -> Any:
    return field(default=default, metadata={"range": (low, high)})


@dataclass(frozen=True)
class ModelSettings:
    """The network. Channels double at each of ``depth`` poolings, from ``width`` up to ``widest``.

    ``skip``: how the encoder's features reach the decoder: as they are, through a residual 1x1 branch
    or through an attention gate (for ``segnet``, whose decoder unpools, ``plain`` means not at all).
    ``encoder`` takes the place of the downward half; ``weights`` are its pretrained ones: ``none``,
    ``imagenet``, or a file; of its five resolutions the ``frozen`` finest keep them as they
    are. ``skip_dropout`` drops whole channels of the skips, ``dropout`` of the deepest features.
    ``presence_pool``: how the presence head averages features over the frame: the ``mean`` of the deepest, or,
    with ``attention``, also means of these and of less deep ones with a weight for each place.
    ``window``: the share of height and width that the network sees at least, in the middle of the columns and a
    little above that of the rows. Outside it no pixel is in a mask.
    """

    architecture: str = _choice("unet", "unet", "unet++", "segnet", "fpn", "deeplabv3+")
    encoder: str = _choice("none", "none", *ENCODERS)
    weights: str = "none"
    frozen: int = _within(0, 0, 5)
    block: str = _choice("plain", "plain", "residual", "inception")
    down: str = _choice("pool", "pool", "stride")
    skip: str = _choice("plain", "plain", "residual", "attention")
    activation: str = _choice("relu", "relu", "elu")
    scse: bool = False
    deep_supervision: bool = False
    hypercolumns: bool = False
    width: int = _within(16, 1, 1024)
    depth: int = _within(4, 1, 6)
    widest: int = _within(256, 1, 4096)
    stem: int = _choice(1, 1, 2, 4)
    batch_norm: bool = True
    dropout: float = _within(0.1, 0, 0.9)
    skip_dropout: float = _within(0.0, 0, 0.9)
    presence: bool = True
    presence_pool: str = _choice("mean", "mean", "attention")
    window: float = _within(1.0, 0.2, 1)
    normalise: str = _choice("image", "image", "unit")


@dataclass(frozen=True)
class LossSettings:
    """Weights of the mask's losses and of the presence head's, and what shapes them.

    ``smooth``: pixels that smooth the Dice and Tversky ratios. Tversky counts a false pixel
    ``tversky_alpha`` times and a missed one ``tversky_beta`` times. ``focal_gamma`` is the exponent of
    focal and focal Tversky loss. ``deep``: weight of each coarser mask of deep supervision, against the
    next finer one.

    ``empty_frames``: what the mask's losses count on a frame without a mask. With 0 the map learns from
    frames with a mask alone, and says P(pixel in the mask | there is a mask); the presence head says
    whether there is one. With 1 the map says both at once.
    """

    dice: float = _within(1.0, 0, 100)
    batch_dice: float = _within(0.0, 0, 100)
    bce: float = _within(1.0, 0, 100)
    focal: float = _within(0.0, 0, 100)
    tversky: float = _within(0.0, 0, 100)
    focal_tversky: float = _within(0.0, 0, 100)
    lovasz: float = _within(0.0, 0, 100)
    presence: float = _within(0.5, 0, 100)
    smooth: float = _within(1.0, 1e-6, 1e6)
    focal_gamma: float = _within(2.0, 0, 10)
    tversky_alpha: float = _within(0.3, 0, 10)
    tversky_beta: float = _within(0.7, 0, 10)
    deep: float = _within(0.5, 0, 10)
    empty_frames: float = _within(1.0, 0, 1)

    @property
    def is_conditional(self) -> bool:
        """Whether maps say P(pixel in the mask | there is a mask), not P(pixel in the mask)."""
        return self.empty_frames == 0


@dataclass(frozen=True)
class OptimiserSettings:
    """How weights change. ``warmup`` is a share of the run.

    ``schedule``: ``cosine`` falls to 0 once; ``cyclic`` falls to 0 ``cycles`` times; ``step`` multiplies
    by ``factor`` after each of ``steps`` equal parts; ``plateau`` multiplies by ``factor`` after
    ``plateau`` epochs without a better score.
    """

    name: str = _choice("adamw", "adam", "adamw", "sgd")
    learning_rate: float = _within(1e-3, 1e-8, 10)
    weight_decay: float = _within(1e-4, 0, 1)
    momentum: float = _within(0.9, 0, 0.9999)
    schedule: str = _choice("cosine", "cosine", "constant", "step", "plateau", "cyclic")
    warmup: float = _within(0.05, 0, 0.9)
    steps: int = _within(3, 1, 100)
    factor: float = _within(0.1, 0.001, 0.999)
    plateau: int = _within(4, 1, 1000)
    cycles: int = _within(4, 1, 100)
    clip_norm: float = _within(0.0, 0, 1e6)


@dataclass(frozen=True)
class TrainingSettings:
    """Epochs, batches, when to stop, and which weights are kept.

    ``positive_rate`` is the share of frames with a mask in the first epoch; it falls in a straight
    line to the training set's own share over ``positive_share`` of the run (0 keeps the natural share).
    ``one_per_subject``: no two frames of a batch come from one subject. ``patience`` counts epochs
    without a better validation score; 0 never stops early.

    ``average``: ``best`` keeps the best epoch; ``ema`` an exponential mean over the steps with
    ``ema_decay``; ``swa`` the mean over the epochs of the last ``swa_share`` of the run; ``top`` the mean
    of the ``top`` best epochs' weights; ``snapshots`` an ensemble of the ends of the learning rate's
    cycles. ``precision``: ``auto`` takes what suits the device.

    ``warm_size`` (height, width), if not [0, 0], trains the first ``warm_share`` of the epochs at that
    size. ``start`` is a model file, or a run whose fold of the same number is taken, to start from.
    ``noise``: what to do with the frames that the table ``noise_table`` (``audit`` writes it) marks:
    ``weight`` counts them less, ``soft`` softens their presence target. ``jit`` lets XLA compile the
    network where that is faster.
    """

    epochs: int = _within(30, 1, 10000)
    batch: int = _within(16, 1, 4096)
    patience: int = _within(0, 0, 10000)
    positive_rate: float = _within(0.0, 0, 1)
    positive_share: float = _within(0.5, 0, 1)
    one_per_subject: bool = False
    collapse_epochs: int = _within(5, 1, 10000)
    jit: bool = True
    precision: str = _choice("float32", "float32", "auto", "mixed_float16", "mixed_bfloat16")
    average: str = _choice("best", "best", "ema", "swa", "top", "snapshots")
    ema_decay: float = _within(0.99, 0.5, 0.99999)
    swa_share: float = _within(0.3, 0, 1)
    top: int = _within(3, 1, 20)
    warm_size: tuple[int, int] = (0, 0)
    warm_share: float = _within(0.3, 0, 0.9)
    start: str = ""
    noise: str = _choice("none", "none", "weight", "soft")
    noise_table: str = ""
    deterministic: bool = False

    @property
    def jit_compile(self) -> str | bool:
        """What Keras is told. Its ``auto`` compiles on JAX and on GPUs, but not TensorFlow on a processor,
        whose own kernels were measured to be faster than what XLA makes there.
        """
        return "auto" if self.jit else False


@dataclass(frozen=True)
class AugmentationSettings:
    """Ranges of the random changes, drawn uniformly for each frame.

    Flips are probabilities; ``rotate`` is in degrees; ``shift`` a share of the frame; ``scale`` and
    ``gamma`` are the largest factor (1.2: from 1/1.2 to 1.2); ``contrast`` a share around 1;
    ``brightness`` and ``noise`` (its standard deviation) are shares of the full range of grey. ``elastic``
    bends the frame smoothly by at most this share of it; ``gain`` brightens and darkens its regions
    smoothly, by at most this share; ``sharpness`` is the share of the finest details that is added or taken.
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
    elastic: float = _within(0.0, 0, 0.5)
    gain: float = _within(0.0, 0, 1)
    sharpness: float = _within(0.0, 0, 1)


@dataclass(frozen=True)
class PredictionSettings:
    """How frames are predicted, out-of-fold and test alike.

    ``tta`` adds the mirrored view, or (``flips``) all four of left-right and up-down, or (``scales``) both
    left-right ones at zoom 0.9, 1 and 1.1. ``combine``: how the views of a frame, and a run's folds on a
    test frame, become one: the mean of probabilities or of their log-odds, or a mean in which those count
    most that agree with the others on this frame.
    """

    tta: str = _choice("hflip", *TTA)
    combine: str = _choice("mean", *COMBINE)
    batch: int = _within(32, 1, 4096)


@dataclass(frozen=True)
class Settings:
    """Everything that decides what a run computes.

    ``size`` is (height, width); ``folds`` is the number of patient-grouped folds, or TRAIN/HELD
    (such as ``42/5``) for one plain hold-out of subjects; with ``+all`` at its end (``3+all``) a model of
    all subjects joins the ensemble.
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

    @property
    def trains_all(self) -> bool:
        """Whether the fold `ALL` is trained after the others."""
        return self.folds.endswith(AND_ALL)

    def flat(self) -> dict[str, Any]:
        """``section.key`` -> value, in the order of the file."""
        return dict(_flatten(self))

    def difference(self, other: "Settings") -> tuple[str, Any, Any] | None:
        """The first key, but for the description, whose values differ, and both values; None where none does."""
        theirs = other.flat()
        differing = (
            key for key, value in self.flat().items() if key != "description" and theirs[key] != value
        )
        key = next(differing, None)
        return None if key is None else (key, self.flat()[key], theirs[key])

    def digest(self) -> str:
        """SHA-256 of what the run computes; the description does not count."""
        values = {
            key: value
            for key, value in self.flat().items()
            if key != "description" and value != LATER.get(key)
        }
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
