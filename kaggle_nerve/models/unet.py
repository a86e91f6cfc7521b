"""U-Net (Ronneberger, Fischer, Brox 2015, arXiv:1505.04597) for any input size, with a presence head."""

import keras
from keras import layers

from kaggle_nerve.models import blocks
from kaggle_nerve.settings import ModelSettings


def build(size: tuple[int, int], settings: ModelSettings) -> keras.Model:
    """A U-Net for frames of ``size`` (height, width).

    Input: (batch, height, width, 1), grey values from 0 to 255. Outputs, as a dict in float32:
    ``mask`` (batch, height, width, 1), the probability of each pixel; ``presence`` (batch, 1), if the
    settings want it. Frames are padded to what the poolings need and the mask is cropped back
    exactly. ``stem`` 2 or 4 runs the network at that fraction of the resolution.
    """
    frames = keras.Input((*size, 1), name="frames")
    channels = [min(settings.width * 2**level, settings.widest) for level in range(settings.depth + 1)]
    margins = blocks.margins(size, settings.stem * 2**settings.depth)

    tensor = blocks.normalised(frames, settings.normalise)
    tensor = layers.ZeroPadding2D(margins, name="pad")(tensor)
    if settings.stem > 1:
        tensor = layers.Conv2D(
            channels[0], 2 * settings.stem, strides=settings.stem, padding="same", name="stem"
        )(tensor)

    skips = []
    for level in range(settings.depth):
        tensor = blocks.double_convolution(tensor, channels[level], settings, f"down{level}")
        skips.append(tensor)
        tensor = layers.MaxPooling2D(name=f"pool{level}")(tensor)
    tensor = blocks.double_convolution(tensor, channels[-1], settings, "bottom")
    tensor = layers.SpatialDropout2D(settings.dropout, name="bottom_dropout")(tensor)
    bottleneck = tensor
    for level in reversed(range(settings.depth)):
        # Narrowing before enlarging costs a quarter of the other way round,.
        tensor = blocks.convolution(tensor, channels[level], settings, f"narrow{level}", kernel=1)
        tensor = layers.UpSampling2D(name=f"enlarge{level}")(tensor)
        tensor = layers.Concatenate(name=f"join{level}")([skips[level], tensor])
        tensor = blocks.double_convolution(tensor, channels[level], settings, f"up{level}")

    tensor = layers.Conv2D(1, 1, dtype="float32", name="mask_logit")(tensor)
    if settings.stem > 1:
        tensor = layers.UpSampling2D(
            settings.stem, interpolation="bilinear", dtype="float32", name="enlarge_mask"
        )(tensor)
    tensor = layers.Cropping2D(margins, dtype="float32", name="crop")(tensor)
    outputs = {"mask": layers.Activation("sigmoid", dtype="float32", name="mask")(tensor)}
    if settings.presence:
        outputs["presence"] = blocks.presence_head(bottleneck)
    return keras.Model(frames, outputs, name="unet")
