"""Architectures by their name in presets."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

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
    """Build the untrained network of ``settings``, at its working size, with channels last.

    Raise NerveError for options without effect on the architecture or the encoder.
    """
    options.check(settings.model)
    with _channels_last():
        return ARCHITECTURES[settings.model.architecture](settings.size, settings.model)


@contextmanager
def _channels_last() -> Iterator[None]:
    """Build layers within the block with channels last, whatever format the user's keras.json selects."""
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_last")
    try:
        yield
    finally:
        keras.config.set_image_data_format(before)
