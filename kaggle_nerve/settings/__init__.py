"""Presets and run settings: TOML in, frozen dataclasses out, every mistake named.

A preset is a TOML file in ``kaggle_nerve/presets``; a run keeps the settings it was made with in
``settings.toml``. Keys have one spelling, ``section.key``.
"""

from kaggle_nerve.settings.files import default_name, load_preset, load_settings, preset_names, save_settings
from kaggle_nerve.settings.schema import (
    AugmentationSettings,
    LossSettings,
    ModelSettings,
    OptimiserSettings,
    PredictionSettings,
    Settings,
    TrainingSettings,
)
from kaggle_nerve.settings.text import apply_changes, dump, parse

__all__ = [
    "AugmentationSettings",
    "LossSettings",
    "ModelSettings",
    "OptimiserSettings",
    "PredictionSettings",
    "Settings",
    "TrainingSettings",
    "apply_changes",
    "default_name",
    "dump",
    "load_preset",
    "load_settings",
    "parse",
    "preset_names",
    "save_settings",
]
