"""Read presets and run settings from TOML into frozen dataclasses, with an error for every mistake.

A preset is a TOML file in ``kaggle_nerve/presets``, or one of the user's; a run stores its own settings in
``settings.toml``. Keys are written ``section.key``.
"""

from kaggle_nerve.settings.files import (
    default_name,
    is_preset_file,
    load_preset,
    load_settings,
    preset_names,
    save_settings,
    short_name,
)
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
    "is_preset_file",
    "load_preset",
    "load_settings",
    "parse",
    "preset_names",
    "save_settings",
    "short_name",
]
