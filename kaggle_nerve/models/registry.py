"""Architectures by their name in presets."""

from collections.abc import Callable

import keras

from kaggle_nerve.models import deeplab, encoders, fpn, options, segnet, unet, unetpp, weights
from kaggle_nerve.settings import ModelSettings, Settings

ARCHITECTURES: dict[str, Callable[[tuple[int, int], ModelSettings], keras.Model]] = {
    "unet": unet.build,
    "unet++": unetpp.build,
    "segnet": segnet.build,
    "fpn": fpn.build,
    "deeplabv3+": deeplab.build,
}


def check(settings: ModelSettings) -> None:
    """Raise NerveError for options without effect on the architecture or the encoder, and for missing weights."""
    options.check(settings)
    if settings.weights != "none":
        weights.find(settings.encoder, encoders.ENCODERS[settings.encoder].file, settings.weights)


def build(settings: Settings) -> keras.Model:
    """Build the untrained network of ``settings``, at its working size.

    Raise NerveError for options without effect on the architecture or the encoder.
    """
    options.check(settings.model)
    return ARCHITECTURES[settings.model.architecture](settings.size, settings.model)
