"""The mask's loss. Sums are taken in float32, image by image, so that an empty frame counts as one."""

import keras
from keras import ops


@keras.saving.register_keras_serializable("kaggle_nerve")
class MaskLoss(keras.losses.Loss):
    """``dice`` x smoothed Dice loss + ``bce`` x binary cross-entropy, both per image.

    The Dice loss of an image is 1 - (2 sum(t p) + smooth) / (sum(t) + sum(p) + smooth), as in V-Net
    (Milletari, Navab, Ahmadi 2016, arXiv:1606.04797) with a smoothing term, so that a perfect empty
    image has loss 0 (`keras.losses.Dice` gives it 1).

    Example: for a truth of 2 pixels and probabilities 1 on one of them and on one other,
    with smooth 1, the Dice loss is 1 - (2 + 1) / (2 + 2 + 1) = 0.4.
    """

    def __init__(
        self,
        dice: float = 1.0,
        bce: float = 1.0,
        smooth: float = 1.0,
        reduction: str = "sum_over_batch_size",
        name: str = "mask_loss",
        dtype: str = "float32",
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.dice, self.bce, self.smooth = dice, bce, smooth

    def call(self, y_true, y_pred):
        """Loss of each image, (batch,), from truths and probabilities (batch, height, width, 1)."""
        y_true, y_pred = ops.cast(y_true, "float32"), ops.cast(y_pred, "float32")
        loss = 0.0
        if self.dice:
            both = ops.sum(y_true * y_pred, axis=(1, 2, 3))
            either = ops.sum(y_true, axis=(1, 2, 3)) + ops.sum(y_pred, axis=(1, 2, 3))
            loss += self.dice * (1 - (2 * both + self.smooth) / (either + self.smooth))
        if self.bce:
            loss += self.bce * ops.mean(ops.binary_crossentropy(y_true, y_pred), axis=(1, 2, 3))
        return loss

    def get_config(self):
        """The weights, so that a saved model compiles again."""
        return {**super().get_config(), "dice": self.dice, "bce": self.bce, "smooth": self.smooth}
