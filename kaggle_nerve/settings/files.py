"""Load presets from the package, and load and save a run's settings."""

from importlib import resources
from pathlib import Path

from kaggle_nerve.errors import NerveError
from kaggle_nerve.settings.schema import Settings
from kaggle_nerve.settings.text import apply_changes, dump, nearest, parse
from kaggle_nerve.storage import write_text


def preset_names() -> list[str]:
    """List the names of the presets in the package, sorted."""
    files = resources.files("kaggle_nerve.presets").iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def load_preset(name: str, changes: tuple[str, ...] = ()) -> Settings:
    """Load the preset ``name`` with ``KEY=VALUE`` changes; raise NerveError for an unknown name, key or value."""
    if name not in preset_names():
        hint = nearest(name, preset_names())
        raise NerveError(f"No preset is called {name!r}{hint}; `kaggle-nerve presets` lists them.")
    text = (resources.files("kaggle_nerve.presets") / f"{name}.toml").read_text(encoding="utf-8")
    return apply_changes(parse(text, f"preset {name}"), changes)


def default_name(preset: str, settings: Settings) -> str:
    """Return the default name of a run: that of the preset, with a tag if settings were changed, so that two
    variants never mix.
    """
    changed = settings.digest() != load_preset(preset).digest()
    return f"{preset}-{settings.digest()[:6]}" if changed else preset


def load_settings(path: Path) -> Settings:
    """Load a run's settings."""
    if not path.is_file():
        raise NerveError(f"{path} is missing, so this is not a run; name a run made by `train-folds`.")
    return parse(path.read_text(encoding="utf-8"), str(path))


def save_settings(settings: Settings, path: Path) -> None:
    """Write ``settings`` as TOML, atomically."""
    write_text(path, dump(settings))
