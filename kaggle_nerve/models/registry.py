"""Architectures by their name in presets."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager

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


def build(settings: Settings, precision: str = "") -> keras.Model:
    """Build the untrained network of ``settings``, at its working size, with channels last.

    ``precision``: the Keras dtype policy to build it under, restored afterwards; '' keeps the global one. Raise
    NerveError for options without effect on the architecture or the encoder.
    """
    options.check(settings.model)
    with _dtype_policy(precision or keras.config.dtype_policy().name), _channels_last():
        return ARCHITECTURES[settings.model.architecture](settings.size, settings.model)


def without_pretrained(settings: Settings) -> Settings:
    """Return ``settings`` without pretrained weights, for a network whose weights come from elsewhere."""
    return dataclasses.replace(settings, model=dataclasses.replace(settings.model, weights="none"))


@contextmanager
def _dtype_policy(name: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


@contextmanager
def _channels_last() -> Iterator[None]:
    """Build layers within the block with channels last, whatever format the user's keras.json selects."""
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_last")
    try:
        yield
    finally:
        keras.config.set_image_data_format(before)
