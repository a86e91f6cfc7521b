"""The pieces that networks are built of: stock Keras layers only, so that a saved model loads anywhere."""

import keras
from keras import layers

from kaggle_nerve.settings import ModelSettings


def convolution(
    tensor: keras.KerasTensor, channels: int, settings: ModelSettings, name: str, kernel: int = 3
) -> keras.KerasTensor:
    """Convolution, batch normalisation if wanted, ReLU."""
    tensor = layers.Conv2D(
        channels,
        kernel,
        padding="same",
        use_bias=not settings.batch_norm,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(tensor)
    if settings.batch_norm:
        # A short memory: runs on a processor have too few steps for the usual 0.99.
        tensor = layers.BatchNormalization(momentum=0.95, name=f"{name}_norm")(tensor)
    return layers.ReLU(name=f"{name}_relu")(tensor)


def double_convolution(
    tensor: keras.KerasTensor, channels: int, settings: ModelSettings, name: str
) -> keras.KerasTensor:
    """Two convolutions: the step of a U-Net at one resolution."""
    tensor = convolution(tensor, channels, settings, f"{name}a")
    return convolution(tensor, channels, settings, f"{name}b")


def normalised(frames: keras.KerasTensor, how: str) -> keras.KerasTensor:
    """Grey values 0 to 255 as the network wants them.

    ``unit``: from 0 to 1. ``image``: mean 0 and deviation 1 within each frame, which takes out the
    gain and the contrast that differ from patient to patient.
    """
    frames = layers.Rescaling(1 / 255, name="unit")(frames)
    if how == "image":
        frames = layers.LayerNormalization(
            axis=[1, 2, 3], center=False, scale=False, epsilon=1e-5, name="standardise"
        )(frames)
    return frames


def margins(size: tuple[int, int], multiple: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Rows and columns to add (before, after) so that ``multiple`` divides height and width."""
    missing = [-length % multiple for length in size]
    return tuple((pixels // 2, pixels - pixels // 2) for pixels in missing)  # type: ignore[return-value]


def presence_head(bottleneck: keras.KerasTensor) -> keras.KerasTensor:
    """P(mask not empty), (batch, 1) in float32, from the deepest features averaged over the frame."""
    pooled = layers.GlobalAveragePooling2D(name="presence_mean")(bottleneck)
    return layers.Dense(1, activation="sigmoid", dtype="float32", name="presence")(pooled)
