"""Settings, with their ranges and defaults."""

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, get_args

from kaggle_nerve.storage import digest_text

Encoder = Literal[
    "none",
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
]
"""Encoders of keras.applications, and EfficientNet-Lite."""

Tta = Literal["none", "hflip", "flips", "scales"]
Combine = Literal["mean", "logits", "agreement"]
Precision = Literal["float32", "auto", "mixed_float16", "mixed_bfloat16"]

ENCODERS: tuple[str, ...] = get_args(Encoder)[1:]
TTA: tuple[str, ...] = get_args(Tta)
COMBINE: tuple[str, ...] = get_args(Combine)

ALL: Final = "all"
"""Name, instead of a number, of the fold that holds nobody out: its model is trained on every subject."""

FoldName = int | Literal["all"]
"""A fold's number from 0, or `ALL`."""

AND_ALL = "+all"
"""Suffix of the setting ``folds`` that adds the fold `ALL`."""

LATER = {
    "prediction.combine": "mean",
    "loss.empty_frames": 1.0,
    "model.frozen": 0,
    "model.presence_pool": "mean",
    "model.window": 1.0,
    "training.augment_on": "auto",
    "augmentation.elastic": 0.0,
    "augmentation.gain": 0.0,
    "augmentation.sharpness": 0.0,
}
"""Keys added later, with the value implied for older runs; that value is left out of digests to keep them stable."""


@dataclass(frozen=True)
class Range:
    """Minimum and maximum of a number, both allowed."""

    low: float
    high: float


Share = Annotated[float, Range(0, 1)]
Weight = Annotated[float, Range(0, 100)]


@dataclass(frozen=True)
class ModelSettings:
    """The network. Channels double at each of ``depth`` poolings, from ``width`` up to ``widest``.

    ``skip``: connection from encoder to decoder: plain, with a residual 1x1 branch, or with an attention
    gate (for ``segnet``, whose decoder unpools, ``plain`` means no connection). ``encoder`` replaces the
    downward half; ``weights`` are its pretrained ones: ``none``, ``imagenet``, or a file; the ``frozen``
    finest of its five resolutions are not trained. ``skip_dropout`` drops whole channels of the skips,
    ``dropout`` of the deepest features. ``presence_pool``: how the presence head averages features over the
    frame: the ``mean`` of the deepest, or, with ``attention``, also means of these and of less deep ones with
    a weight per position. ``window``: the minimum share of height and width that the network sees, centred
    horizontally and slightly above the centre vertically. Outside it, masks are empty.
    """

    architecture: Literal["unet", "unet++", "segnet", "fpn", "deeplabv3+"] = "unet"
    encoder: Encoder = "none"
    weights: str = "none"
    frozen: Annotated[int, Range(0, 5)] = 0
    block: Literal["plain", "residual", "inception"] = "plain"
    down: Literal["pool", "stride"] = "pool"
    skip: Literal["plain", "residual", "attention"] = "plain"
    activation: Literal["relu", "elu"] = "relu"
    scse: bool = False
    deep_supervision: bool = False
    hypercolumns: bool = False
    width: Annotated[int, Range(1, 1024)] = 16
    depth: Annotated[int, Range(1, 6)] = 4
    widest: Annotated[int, Range(1, 4096)] = 256
    stem: Literal[1, 2, 4] = 1
    batch_norm: bool = True
    dropout: Annotated[float, Range(0, 0.9)] = 0.1
    skip_dropout: Annotated[float, Range(0, 0.9)] = 0.0
    presence: bool = True
    presence_pool: Literal["mean", "attention"] = "mean"
    window: Annotated[float, Range(0.2, 1)] = 1.0
    normalise: Literal["image", "unit"] = "image"


@dataclass(frozen=True)
class LossSettings:
    """Weights and parameters of the losses of the mask and of the presence head.

    ``smooth``: pixels that smooth the Dice and Tversky ratios. Tversky loss weights false pixels by
    ``tversky_alpha`` and missed ones by ``tversky_beta``. ``focal_gamma`` is the exponent of focal and focal
    Tversky loss. ``deep``: weight of each coarser mask of deep supervision, relative to the next finer one.

    ``empty_frames``: weight of the mask's losses on a frame without a mask. With 0, the map learns from
    frames with a mask only and predicts P(pixel in the mask | frame has a mask), while the presence head
    predicts whether there is one. With 1, the map predicts both at once.
    """

    dice: Weight = 1.0
    batch_dice: Weight = 0.0
    bce: Weight = 1.0
    focal: Weight = 0.0
    tversky: Weight = 0.0
    focal_tversky: Weight = 0.0
    lovasz: Weight = 0.0
    presence: Weight = 0.5
    smooth: Annotated[float, Range(1e-6, 1e6)] = 1.0
    focal_gamma: Annotated[float, Range(0, 10)] = 2.0
    tversky_alpha: Annotated[float, Range(0, 10)] = 0.3
    tversky_beta: Annotated[float, Range(0, 10)] = 0.7
    deep: Annotated[float, Range(0, 10)] = 0.5
    empty_frames: Share = 1.0

    @property
    def is_conditional(self) -> bool:
        """Whether maps are P(pixel in the mask | frame has a mask), not P(pixel in the mask)."""
        return self.empty_frames == 0


@dataclass(frozen=True)
class OptimiserSettings:
    """Optimiser and learning-rate schedule. ``warmup`` is a share of the run.

    ``schedule``: ``cosine`` falls to 0 once; ``cyclic`` falls to 0 ``cycles`` times; ``step`` multiplies
    by ``factor`` after each of ``steps`` equal parts; ``plateau`` multiplies by ``factor`` after
    ``plateau`` epochs without a better score.
    """

    name: Literal["adam", "adamw", "sgd"] = "adamw"
    learning_rate: Annotated[float, Range(1e-8, 10)] = 1e-3
    weight_decay: Share = 1e-4
    momentum: Annotated[float, Range(0, 0.9999)] = 0.9
    schedule: Literal["cosine", "constant", "step", "plateau", "cyclic"] = "cosine"
    warmup: Annotated[float, Range(0, 0.9)] = 0.05
    steps: Annotated[int, Range(1, 100)] = 3
    factor: Annotated[float, Range(0.001, 0.999)] = 0.1
    plateau: Annotated[int, Range(1, 1000)] = 4
    cycles: Annotated[int, Range(1, 100)] = 4
    clip_norm: Annotated[float, Range(0, 1e6)] = 0.0


@dataclass(frozen=True)
class TrainingSettings:
    """Epochs, batches, early stopping, and the final weights.

    ``positive_rate`` is the share of frames with a mask in the first epoch; it falls linearly to the
    training set's own share over ``positive_share`` of the run (0 keeps the natural share).
    ``one_per_subject``: a batch has at most one frame per subject. ``patience`` is the number of epochs
    without a better validation score before training stops; 0 never stops early.

    ``average``: ``best`` keeps the best epoch; ``ema`` an exponential mean over the steps with
    ``ema_decay``; ``swa`` the mean over the epochs of the last ``swa_share`` of the run; ``top`` the mean
    of the ``top`` best epochs' weights; ``snapshots`` an ensemble of the ends of the learning rate's
    cycles. ``precision``: ``auto`` depends on the device.

    ``warm_size`` (height, width), if not [0, 0], trains the first ``warm_share`` of the epochs at that
    size. ``start`` is a model file to start from, or a run, of which the fold of the same number is used.
    ``noise``: how to treat the frames marked in the table ``noise_table`` (written by ``audit``): ``weight``
    reduces their weight, ``soft`` softens their presence target. ``jit`` lets XLA compile the network
    where that is faster. ``augment_on`` is where frames are augmented: ``auto`` is the device with an
    accelerator, and the host (the processor) without one.
    """

    epochs: Annotated[int, Range(1, 10000)] = 30
    batch: Annotated[int, Range(1, 4096)] = 16
    patience: Annotated[int, Range(0, 10000)] = 0
    positive_rate: Share = 0.0
    positive_share: Share = 0.5
    one_per_subject: bool = False
    collapse_epochs: Annotated[int, Range(1, 10000)] = 5
    jit: bool = True
    precision: Precision = "float32"
    average: Literal["best", "ema", "swa", "top", "snapshots"] = "best"
    ema_decay: Annotated[float, Range(0.5, 0.99999)] = 0.99
    swa_share: Share = 0.3
    top: Annotated[int, Range(1, 20)] = 3
    warm_size: tuple[int, int] = (0, 0)
    warm_share: Annotated[float, Range(0, 0.9)] = 0.3
    start: str = ""
    noise: Literal["none", "weight", "soft"] = "none"
    noise_table: str = ""
    deterministic: bool = False
    augment_on: Literal["auto", "host", "device"] = "auto"

    @property
    def jit_compile(self) -> str | bool:
        """Keras's setting. Its ``auto`` compiles on JAX and on GPUs, but not with TensorFlow on a processor,
        whose own kernels were measured to be faster there than XLA's.
        """
        return "auto" if self.jit else False


@dataclass(frozen=True)
class AugmentationSettings:
    """Ranges of the augmentation, drawn uniformly for each frame.

    Flips are probabilities; ``rotate`` is in degrees; ``shift`` a share of the frame; ``scale`` and
    ``gamma`` are the largest factor (1.2: from 1/1.2 to 1.2); ``contrast`` a share around 1;
    ``brightness`` and ``noise`` (its standard deviation) are shares of the full range of grey. ``elastic``
    deforms the frame smoothly by at most this share of it; ``gain`` brightens and darkens its regions
    smoothly, by at most this share; ``sharpness`` is the share of the finest details to add or remove.
    """

    hflip: Share = 0.5
    vflip: Share = 0.0
    rotate: Annotated[float, Range(0, 180)] = 10.0
    shift: Annotated[float, Range(0, 0.5)] = 0.08
    scale: Annotated[float, Range(1, 4)] = 1.15
    contrast: Share = 0.2
    brightness: Share = 0.1
    gamma: Annotated[float, Range(1, 5)] = 1.2
    noise: Share = 0.02
    elastic: Annotated[float, Range(0, 0.5)] = 0.0
    gain: Share = 0.0
    sharpness: Share = 0.0


@dataclass(frozen=True)
class PredictionSettings:
    """Prediction of out-of-fold and test frames.

    ``tta`` (test-time augmentation) adds the mirrored view, or (``flips``) all four of left-right and up-down,
    or (``scales``) both left-right ones at zoom 0.9, 1 and 1.1. ``combine``: how to combine the views of a
    frame, and a run's folds on a test frame: the mean of probabilities or of their log-odds, or a mean with
    more weight for those that agree with the others on this frame.
    """

    tta: Tta = "hflip"
    combine: Combine = "mean"
    batch: Annotated[int, Range(1, 4096)] = 32


@dataclass(frozen=True)
class Settings:
    """All settings of a run.

    ``size`` is (height, width); ``folds`` is the number of patient-grouped folds, or TRAIN/HELD
    (such as ``42/5``) for one plain hold-out of subjects; with ``+all`` at its end (``3+all``), a model of
    all subjects joins the ensemble.
    """

    description: str = ""
    size: tuple[int, int] = (96, 128)
    folds: str = "5"
    seed: Annotated[int, Range(0, 2**31 - 1)] = 0
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

    @property
    def fold_names(self) -> list[FoldName]:
        """The run's folds in the order of training: by number, the fold `ALL` last if it is trained."""
        plain = self.folds.removesuffix(AND_ALL)
        count = 1 if "/" in plain else int(plain)
        return [*range(count), *([ALL] if self.trains_all else [])]

    def flat(self) -> dict[str, Any]:
        """Return ``section.key`` -> value, in the order of the file."""
        return dict(_flatten(self))

    def difference(self, other: "Settings") -> tuple[str, Any, Any] | None:
        """Return the first key with different values, and both values, ignoring the description; None if all agree."""
        other_values = other.flat()
        differing_keys = (
            key for key, value in self.flat().items() if key != "description" and other_values[key] != value
        )
        key = next(differing_keys, None)
        return None if key is None else (key, self.flat()[key], other_values[key])

    def digest(self) -> str:
        """Compute the SHA-256 of the settings without the description."""
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
