"""Presets, which lie in the package, and the settings that a run was made with."""

from importlib import resources
from pathlib import Path

from kaggle_nerve.errors import NerveError
from kaggle_nerve.settings.schema import Settings
from kaggle_nerve.settings.text import apply_changes, dump, nearest, parse
from kaggle_nerve.storage import write_text


def preset_names() -> list[str]:
    """The names of the presets in the package, sorted."""
    files = resources.files("kaggle_nerve.presets").iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def load_preset(name: str, changes: tuple[str, ...] = ()) -> Settings:
    """The preset ``name`` with ``KEY=VALUE`` changes. NerveError for an unknown name, key or value."""
    if name not in preset_names():
        hint = nearest(name, preset_names())
        raise NerveError(f"No preset is called {name!r}{hint}; `kaggle-nerve presets` lists them.")
    text = (resources.files("kaggle_nerve.presets") / f"{name}.toml").read_text(encoding="utf-8")
    return apply_changes(parse(text, f"preset {name}"), changes)


def default_name(preset: str, settings: Settings) -> str:
    """What a run of these settings is called: as the preset, with a tag where some were changed, so that two
    variants never mix.
    """
    changed = settings.digest() != load_preset(preset).digest()
    return f"{preset}-{settings.digest()[:6]}" if changed else preset


def load_settings(path: Path) -> Settings:
    """The settings that a run was made with."""
    if not path.is_file():
        raise NerveError(f"{path} is missing, so this is not a run; name a run made by `train-folds`.")
    return parse(path.read_text(encoding="utf-8"), str(path))


def save_settings(settings: Settings, path: Path) -> None:
    """Write ``settings`` as TOML, atomically."""
    write_text(path, dump(settings))
