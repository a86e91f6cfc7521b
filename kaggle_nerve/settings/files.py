"""Load presets from the package or from files, and load and save a run's settings."""

from importlib import resources
from pathlib import Path

from kaggle_nerve.errors import NerveError
from kaggle_nerve.settings.schema import Settings
from kaggle_nerve.settings.text import apply_changes, dump, nearest, parse
from kaggle_nerve.storage import write_text

SUFFIX = ".toml"


def preset_names() -> list[str]:
    """List the names of the presets in the package, sorted."""
    files = resources.files("kaggle_nerve.presets").iterdir()
    return sorted(file.name.removesuffix(SUFFIX) for file in files if file.name.endswith(SUFFIX))


def is_preset_file(name: str) -> bool:
    """Return whether ``name`` is the path of a preset file, and not a preset in the package."""
    return name.endswith(SUFFIX) or len(Path(name).parts) > 1


def short_name(preset: str) -> str:
    """Return the name of a preset for runs: of a file its name without folder and ``.toml``."""
    return Path(preset).name.removesuffix(SUFFIX) if is_preset_file(preset) else preset


def load_preset(name: str, changes: tuple[str, ...] = ()) -> Settings:
    """Load the preset ``name`` with ``KEY=VALUE`` changes; raise NerveError for an unknown name, key or value.

    A name that ends in ``.toml`` or has a folder is a file's.
    """
    if is_preset_file(name):
        return apply_changes(parse(read_toml(Path(name), "name an existing preset file"), name), changes)
    if name not in preset_names():
        hint = nearest(name, preset_names())
        raise NerveError(f"No preset is called {name!r}{hint}; `kaggle-nerve presets` lists them.")
    text = (resources.files("kaggle_nerve.presets") / f"{name}{SUFFIX}").read_text(encoding="utf-8")
    return apply_changes(parse(text, f"preset {name}"), changes)


def read_toml(path: Path, advice: str) -> str:
    """Read the text of a TOML file that the user names; raise NerveError with ``advice`` if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as fault:
        raise NerveError(f"{path} is not UTF-8 text, as TOML is; {advice}.") from fault
    except OSError as fault:
        raise NerveError(f"{path} cannot be read ({fault.strerror}); {advice}.") from fault


def default_name(preset: str, settings: Settings) -> str:
    """Return the default name of a run: that of the preset, with a tag if settings were changed, so that two
    variants never mix.
    """
    name, changed = short_name(preset), settings.digest() != load_preset(preset).digest()
    return f"{name}-{settings.digest()[:6]}" if changed else name


def load_settings(path: Path) -> Settings:
    """Load a run's settings."""
    if not path.is_file():
        raise NerveError(f"{path} is missing, so this is not a run; name a run made by `train-folds`.")
    return parse(path.read_text(encoding="utf-8"), str(path))


def save_settings(settings: Settings, path: Path) -> None:
    """Write ``settings`` as TOML, atomically."""
    write_text(path, dump(settings))
