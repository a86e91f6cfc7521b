"""Reject options that would have no effect with an architecture or an encoder."""

from kaggle_nerve.errors import NerveError
from kaggle_nerve.settings import ModelSettings

UNUSED = {
    "fpn": ("block", "scse", "skip", "skip_dropout"),
    "deeplabv3+": ("block", "scse", "skip", "skip_dropout", "hypercolumns", "deep_supervision"),
}
"""Options without effect, by architecture."""

UNUSED_BY_ENCODERS = ("down", "stem")
"""Options without effect with a pretrained encoder, which replaces the downward half."""


def check(settings: ModelSettings) -> None:
    """Raise NerveError, in one sentence, for an option that is set but would have no effect.

    ``depth`` is allowed with a pretrained encoder, although that always halves five times: every preset sets it.
    """
    architecture = f'model.architecture = "{settings.architecture}"'
    _refuse(settings, UNUSED.get(settings.architecture, ()), architecture)
    if settings.encoder != "none":
        _refuse(settings, UNUSED_BY_ENCODERS, f'model.encoder = "{settings.encoder}"')


def _refuse(settings: ModelSettings, keys: tuple[str, ...], owner: str) -> None:
    defaults = ModelSettings()
    for key in keys:
        value, default = getattr(settings, key), getattr(defaults, key)
        if value != default:
            raise NerveError(
                f"model.{key} = {_format(value)} does nothing with {owner}; set it to {_format(default)}."
            )


def _format(value: object) -> str:
    """Format a value as in a settings file."""
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)
