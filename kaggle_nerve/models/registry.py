"""Architectures by the name that presets use."""

from collections.abc import Callable

import keras

from kaggle_nerve.models import unet
from kaggle_nerve.settings import ModelSettings, Settings

ARCHITECTURES: dict[str, Callable[[tuple[int, int], ModelSettings], keras.Model]] = {"unet": unet.build}


def build(settings: Settings) -> keras.Model:
    """The untrained network of ``settings``, at its working size."""
    return ARCHITECTURES[settings.model.architecture](settings.size, settings.model)
