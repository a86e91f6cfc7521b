"""Losses of the mask output. Each function returns one value per image: an empty frame weighs as much as any other.

Truths and probabilities are (batch, height, width, 1) from 0 to 1; truths are soft where the mask covers
part of a working pixel. Values are (batch,), float32, and 0 for a perfect frame, including an empty one.
Sums are always in float32: 420x580 ones exceed the largest float16.
"""

from collections.abc import Callable

import keras
from keras import KerasTensor, ops

from kaggle_nerve.errors import NerveError
from kaggle_nerve.settings import LossSettings

PIXELS = (1, 2, 3)
EPSILON = 1e-7
"""Margin to 0 and 1 for probabilities in logarithms and powers."""


def dice(truth: KerasTensor, probability: KerasTensor, smooth: float) -> KerasTensor:
    """Compute 1 - (2 sum(t p) + smooth) / (sum(t) + sum(p) + smooth) of each image; ``smooth`` in pixels.

    Like V-Net's loss (Milletari, Navab, Ahmadi 2016, arXiv:1606.04797), but with unsquared sums and a smoothing
    term, so that a perfect empty image has loss 0 (1 in `keras.losses.Dice`).

    Example: a truth of 2 pixels, with probability 1 on one of them and on one other pixel, and smooth 1
    give 1 - (2 + 1) / (2 + 2 + 1) = 0.4.
    """
    truth, probability = _float32(truth, probability)
    overlap = ops.sum(truth * probability, axis=PIXELS)
    return _dice(overlap, ops.sum(truth, axis=PIXELS) + ops.sum(probability, axis=PIXELS), smooth)


def batch_dice(
    truth: KerasTensor, probability: KerasTensor, smooth: float, image_weights: KerasTensor | None = None
) -> KerasTensor:
    """Compute the Dice loss over all pixels of the batch, the same value for each image.

    ``image_weights`` (batch,): weight of each image's pixels; None: 1.
    """
    truth, probability = _float32(truth, probability)
    overlap, total = truth * probability, truth + probability
    if image_weights is not None:
        overlap, total = (value * image_weights[:, None, None, None] for value in (overlap, total))
    value = _dice(ops.sum(overlap), ops.sum(total), smooth)
    return value * ops.ones_like(truth[:, 0, 0, 0])


def cross_entropy(truth: KerasTensor, probability: KerasTensor) -> KerasTensor:
    """Compute the binary cross-entropy in nats, the mean over the pixels of each image."""
    truth, probability = _float32(truth, probability)
    return ops.mean(ops.binary_crossentropy(truth, probability), axis=PIXELS)


def focal(truth: KerasTensor, probability: KerasTensor, gamma: float) -> KerasTensor:
    """Compute the cross-entropy with each pixel weighted by (1 - probability of its true class) ** ``gamma``.

    Focal loss (Lin and others 2017, arXiv:1708.02002) without class weights; gamma 0 is the plain
    cross-entropy.
    """
    truth, probability = _float32(truth, probability)
    probability = ops.clip(probability, EPSILON, 1 - EPSILON)
    present = truth * (1 - probability) ** gamma * ops.log(probability)
    absent = (1 - truth) * probability**gamma * ops.log(1 - probability)
    return -ops.mean(present + absent, axis=PIXELS)


def tversky(
    truth: KerasTensor, probability: KerasTensor, alpha: float, beta: float, smooth: float
) -> KerasTensor:
    """Compute 1 - (hits + smooth) / (hits + alpha false positives + beta false negatives + smooth) of each image.

    Tversky loss (Salehi, Erdogmus, Gholipour 2017, arXiv:1706.05721), with counts in pixels. With both weights
    0.5 it is the Dice loss smoothed by twice ``smooth``.
    """
    truth, probability = _float32(truth, probability)
    hits = ops.sum(truth * probability, axis=PIXELS)
    false_positives = ops.sum((1 - truth) * probability, axis=PIXELS)
    false_negatives = ops.sum(truth * (1 - probability), axis=PIXELS)
    # Not as 1 minus the ratio: rounding could make that negative, and a power of it NaN.
    wrong = alpha * false_positives + beta * false_negatives
    return wrong / (hits + wrong + smooth)


def focal_tversky(
    truth: KerasTensor, probability: KerasTensor, alpha: float, beta: float, smooth: float, gamma: float
) -> KerasTensor:
    """Raise the Tversky loss to the power of ``gamma``.

    Abraham and Khan 2018 (arXiv:1810.07842) call the exponent 1 / gamma; theirs is 0.75 (gamma 4/3). Here
    ``gamma`` is the exponent itself. An exponent above 1 reduces the weight of good images.
    """
    # The shift keeps the gradient finite at 0 for exponents below 1.
    return (tversky(truth, probability, alpha, beta, smooth) + EPSILON) ** gamma - EPSILON**gamma


def lovasz(truth: KerasTensor, probability: KerasTensor) -> KerasTensor:
    """Compute the Lovasz hinge of each image, on logits: a convex surrogate of 1 - intersection over union.

    Berman, Triki, Blaschko 2018 (arXiv:1705.08790). Pixels are sorted by their hinge error
    1 - (+1 or -1) logit, and each error is weighted by the growth of the Jaccard loss when its pixel is
    wrong in addition to all worse ones. Truths of 0.5 or more are positive. The loss of an empty image is
    its largest error, 0 if every logit is -1 or less.
    """
    truth, probability = (
        ops.reshape(value, (ops.shape(value)[0], -1)) for value in _float32(truth, probability)
    )
    truth = ops.cast(truth >= 0.5, "float32")
    probability = ops.clip(probability, EPSILON, 1 - EPSILON)
    errors = 1 - (ops.log(probability) - ops.log(1 - probability)) * (2 * truth - 1)
    order = ops.argsort(-errors, axis=1)
    growth = _jaccard_growth(ops.take_along_axis(truth, order, axis=1))
    return ops.sum(ops.relu(ops.take_along_axis(errors, order, axis=1)) * growth, axis=1)


@keras.saving.register_keras_serializable("kaggle_nerve")
class MaskLoss(keras.losses.Loss):
    """Weighted sum of the losses of this module, image by image.

    Arguments are those of `LossSettings`. ``dice``, ``bce``, ``batch_dice``, ``focal``, ``tversky``,
    ``focal_tversky`` and ``lovasz`` are the weights of the losses (0: not computed); ``smooth``, ``focal_gamma``,
    ``tversky_alpha`` and ``tversky_beta`` are their parameters; ``empty_frames`` is the weight of an image without
    a mask. Raise NerveError if every loss has weight 0.
    """

    def __init__(
        self,
        dice: float = 1.0,
        bce: float = 1.0,
        smooth: float = 1.0,
        *,
        batch_dice: float = 0.0,
        focal: float = 0.0,
        tversky: float = 0.0,
        focal_tversky: float = 0.0,
        lovasz: float = 0.0,
        focal_gamma: float = 2.0,
        tversky_alpha: float = 0.3,
        tversky_beta: float = 0.7,
        empty_frames: float = 1.0,
        reduction: str = "sum_over_batch_size",
        name: str = "mask_loss",
        dtype: str = "float32",
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.weights = {
            "dice": dice,
            "batch_dice": batch_dice,
            "bce": bce,
            "focal": focal,
            "tversky": tversky,
            "focal_tversky": focal_tversky,
            "lovasz": lovasz,
        }
        self.parameters = {
            "smooth": smooth,
            "focal_gamma": focal_gamma,
            "tversky_alpha": tversky_alpha,
            "tversky_beta": tversky_beta,
        }
        if not any(self.weights.values()):
            names = ", ".join(f"loss.{name}" for name in self.weights)
            raise NerveError(f"Every loss of the mask has weight 0; give one of {names} a weight.")
        self.empty_frames = empty_frames
        self._terms = _terms(**self.parameters)

    @classmethod
    def from_settings(cls, settings: LossSettings) -> "MaskLoss":
        """Build the loss from ``settings``, ignoring ``loss.presence`` and ``loss.deep``."""
        options = {name: value for name, value in vars(settings).items() if name not in ("presence", "deep")}
        return cls(**options)

    def call(self, y_true: KerasTensor, y_pred: KerasTensor) -> KerasTensor:
        """Compute the loss of each image, (batch,), from truths and probabilities (batch, height, width, 1)."""
        used = {name: weight for name, weight in self.weights.items() if weight}
        if self.empty_frames == 1:
            return sum(weight * self._terms[name](y_true, y_pred) for name, weight in used.items())
        image_weights = _image_weights(y_true, self.empty_frames)
        total = 0.0
        for name, weight in used.items():
            if name == "batch_dice":
                value = batch_dice(y_true, y_pred, self.parameters["smooth"], image_weights)
            else:
                value = self._terms[name](y_true, y_pred) * image_weights
            total = total + weight * value
        return total

    def get_config(self) -> dict:
        """Return the arguments of the loss, so that a saved model can be compiled again."""
        return {**super().get_config(), **self.weights, **self.parameters, "empty_frames": self.empty_frames}


def _terms(
    smooth: float, focal_gamma: float, tversky_alpha: float, tversky_beta: float
) -> dict[str, Callable[[KerasTensor, KerasTensor], KerasTensor]]:
    ratio = (tversky_alpha, tversky_beta, smooth)
    return {
        "dice": lambda truth, probability: dice(truth, probability, smooth),
        "batch_dice": lambda truth, probability: batch_dice(truth, probability, smooth),
        "bce": cross_entropy,
        "focal": lambda truth, probability: focal(truth, probability, focal_gamma),
        "tversky": lambda truth, probability: tversky(truth, probability, *ratio),
        "focal_tversky": lambda truth, probability: focal_tversky(truth, probability, *ratio, focal_gamma),
        "lovasz": lovasz,
    }


def _image_weights(truth: KerasTensor, empty_frames: float) -> KerasTensor:
    """Return each image's weight, (batch,): 1, or ``empty_frames`` if its mask is empty."""
    has_mask = ops.cast(ops.any(truth > 0, axis=PIXELS), "float32")
    return has_mask + empty_frames * (1 - has_mask)


def _float32(*values: KerasTensor) -> tuple[KerasTensor, ...]:
    return tuple(ops.cast(value, "float32") for value in values)


def _dice(overlap: KerasTensor, total: KerasTensor, smooth: float) -> KerasTensor:
    return 1 - (2 * overlap + smooth) / (total + smooth)


def _jaccard_growth(truth: KerasTensor) -> KerasTensor:
    """Return, for rows sorted by error, the rise of the Jaccard loss when pixel k is wrong in addition to 0 to k - 1.

    ``truth`` and the result are (batch, pixels), with the largest error first.
    """
    total = ops.sum(truth, axis=1, keepdims=True)
    left = total - ops.cumsum(truth, axis=1)
    loss = 1 - left / (total + ops.cumsum(1 - truth, axis=1))
    return ops.concatenate([loss[:, :1], loss[:, 1:] - loss[:, :-1]], axis=1)
