"""Architectures by the name that presets use."""

from collections.abc import Callable

import keras

from kaggle_nerve.models import deeplab, fpn, options, segnet, unet, unetpp
from kaggle_nerve.settings import ModelSettings, Settings

ARCHITECTURES: dict[str, Callable[[tuple[int, int], ModelSettings], keras.Model]] = {
    "unet": unet.build,
    "unet++": unetpp.build,
    "segnet": segnet.build,
    "fpn": fpn.build,
    "deeplabv3+": deeplab.build,
}


def build(settings: Settings) -> keras.Model:
    """The untrained network of ``settings``, at its working size.

    Raises NerveError for options that the architecture or the encoder has no use for.
    """
    options.check(settings.model)
    return ARCHITECTURES[settings.model.architecture](settings.size, settings.model)
