"""Options that an architecture or an encoder has no use for are refused, not passed over."""

from kaggle_nerve.errors import NerveError
from kaggle_nerve.settings import ModelSettings

UNUSED = {
    "fpn": ("block", "scse", "skip", "skip_dropout"),
    "deeplabv3+": ("block", "scse", "skip", "skip_dropout", "hypercolumns", "deep_supervision"),
}
"""What an architecture has no use for."""

UNUSED_BY_ENCODERS = ("down", "stem")
"""What a pretrained encoder, in the place of the downward half, has none for."""


def check(settings: ModelSettings) -> None:
    """Raise NerveError, in one sentence, for an option that is set and would do nothing.

    ``depth`` passes with a pretrained encoder, which always halves five times: every preset has one.
    """
    architecture = f'model.architecture = "{settings.architecture}"'
    _refuse(settings, UNUSED.get(settings.architecture, ()), architecture)
    if settings.encoder != "none":
        _refuse(settings, UNUSED_BY_ENCODERS, f'model.encoder = "{settings.encoder}"')


def _refuse(settings: ModelSettings, keys: tuple[str, ...], owner: str) -> None:
    usual = ModelSettings()
    for key in keys:
        value, default = getattr(settings, key), getattr(usual, key)
        if value != default:
            raise NerveError(
                f"model.{key} = {_written(value)} does nothing with {owner}; set it to {_written(default)}."
            )


def _written(value: object) -> str:
    """As in a file of settings."""
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)
