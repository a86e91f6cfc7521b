"""Presets and run settings: TOML in, frozen dataclasses out, every mistake named.

A preset is a TOML file in ``kaggle_nerve/presets``; a run keeps the settings it was made with in
``settings.toml``. Keys have one spelling, ``section.key``; an unknown one is an error that names
the nearest known key.
"""

import dataclasses
import difflib
import json
import re
import tomllib
import types
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, get_args, get_origin

from kaggle_nerve.errors import NerveError
from kaggle_nerve.storage import digest_text, write_text


def _choice(default: Any, *choices: Any) -> Any:
    return field(default=default, metadata={"choices": choices})


def _within(default: Any, low: float, high: float) -> Any:
    return field(default=default, metadata={"range": (low, high)})


@dataclass(frozen=True)
class ModelSettings:
    """The network. Channels double at each of ``depth`` poolings, from ``width``."""

    architecture: str = _choice("unet", "unet")
    width: int = _within(16, 1, 1024)
    depth: int = _within(4, 1, 6)
    widest: int = _within(256, 1, 4096)
    stem: int = _choice(1, 1, 2, 4)
    batch_norm: bool = True
    dropout: float = _within(0.1, 0, 0.9)
    presence: bool = True
    normalise: str = _choice("image", "image", "unit")


@dataclass(frozen=True)
class LossSettings:
    """Weights of the three losses, and the pixels that smooth the Dice ratio."""

    dice: float = _within(1.0, 0, 100)
    bce: float = _within(1.0, 0, 100)
    presence: float = _within(0.5, 0, 100)
    smooth: float = _within(1.0, 1e-6, 1e6)


@dataclass(frozen=True)
class OptimiserSettings:
    """Adam or AdamW; ``warmup`` is a share of the run."""

    name: str = _choice("adamw", "adam", "adamw")
    learning_rate: float = _within(1e-3, 1e-8, 1)
    weight_decay: float = _within(1e-4, 0, 1)
    schedule: str = _choice("cosine", "cosine", "constant")
    warmup: float = _within(0.05, 0, 0.9)
    clip_norm: float = _within(0.0, 0, 1e6)


@dataclass(frozen=True)
class TrainingSettings:
    """Epochs, batches and when to stop.

    ``positive_rate`` is the share of frames with a mask in the first epoch; it falls in a straight
    line to the training set's own share over ``positive_share`` of the run (0 keeps the natural share).
    ``patience`` counts epochs without a better validation score; 0 never stops early.
    """

    epochs: int = _within(30, 1, 10000)
    batch: int = _within(16, 1, 4096)
    patience: int = _within(0, 0, 10000)
    positive_rate: float = _within(0.0, 0, 1)
    positive_share: float = _within(0.5, 0, 1)
    collapse_epochs: int = _within(5, 1, 10000)
    jit: bool = True


@dataclass(frozen=True)
class AugmentationSettings:
    """Ranges of the random changes, drawn uniformly for each frame.

    Flips are probabilities; ``rotate`` is in degrees; ``shift`` a share of the frame; ``scale`` and
    ``gamma`` are the largest factor (1.2: from 1/1.2 to 1.2); ``contrast`` a share around 1;
    ``brightness`` and ``noise`` (its standard deviation) are shares of the full range of grey.
    """

    hflip: float = _within(0.5, 0, 1)
    vflip: float = _within(0.0, 0, 1)
    rotate: float = _within(10.0, 0, 180)
    shift: float = _within(0.08, 0, 0.5)
    scale: float = _within(1.15, 1, 4)
    contrast: float = _within(0.2, 0, 1)
    brightness: float = _within(0.1, 0, 1)
    gamma: float = _within(1.2, 1, 5)
    noise: float = _within(0.02, 0, 1)


@dataclass(frozen=True)
class PredictionSettings:
    """How frames are predicted, out-of-fold and test alike. ``tta`` adds the flipped view."""

    tta: str = _choice("hflip", "none", "hflip")
    batch: int = _within(32, 1, 4096)


@dataclass(frozen=True)
class Settings:
    """Everything that decides what a run computes.

    ``size`` is (height, width); ``folds`` is the number of patient-grouped folds, or TRAIN/HELD
    (such as ``42/5``) for one plain hold-out of subjects.
    """

    description: str = ""
    size: tuple[int, int] = (96, 128)
    folds: str = "5"
    seed: int = _within(0, 0, 2**31 - 1)
    model: ModelSettings = field(default_factory=ModelSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    training: TrainingSettings = field(default_factory=TrainingSettings)
    augmentation: AugmentationSettings = field(default_factory=AugmentationSettings)
    prediction: PredictionSettings = field(default_factory=PredictionSettings)

    def flat(self) -> dict[str, Any]:
        """``section.key`` -> value, in the order of the file."""
        return dict(_flatten(self))

    def digest(self) -> str:
        """SHA-256 of what the run computes; the description does not count."""
        values = {key: value for key, value in self.flat().items() if key != "description"}
        return digest_text(json.dumps(values, sort_keys=True))


def preset_names() -> list[str]:
    """The names of the presets in the package, sorted."""
    files = resources.files("kaggle_nerve.presets").iterdir()
    return sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml"))


def load_preset(name: str, changes: tuple[str, ...] = ()) -> Settings:
    """The preset ``name`` with ``KEY=VALUE`` changes. NerveError for an unknown name, key or value."""
    if name not in preset_names():
        hint = _nearest(name, preset_names())
        raise NerveError(f"No preset is called {name!r}{hint}; `kaggle-nerve presets` lists them.")
    text = (resources.files("kaggle_nerve.presets") / f"{name}.toml").read_text(encoding="utf-8")
    return apply_changes(parse(text, f"preset {name}"), changes)


def load_settings(path: Path) -> Settings:
    """The settings that a run was made with."""
    if not path.is_file():
        raise NerveError(f"{path} is missing, so this is not a run; name a run made by `train-folds`.")
    return parse(path.read_text(encoding="utf-8"), str(path))


def save_settings(settings: Settings, path: Path) -> None:
    """Write ``settings`` as TOML, atomically."""
    write_text(path, dump(settings))


def parse(text: str, source: str) -> Settings:
    """Settings from TOML; ``source`` names it in errors."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as fault:
        raise NerveError(f"{source} is not valid TOML: {fault}.") from fault
    return _replace(Settings(), dict(_flatten_tree(tree)), source)


def apply_changes(settings: Settings, changes: tuple[str, ...]) -> Settings:
    """``settings`` with ``section.key=value`` changes, values written as in TOML (bare words are text)."""
    values: dict[str, Any] = {}
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise NerveError(f"--set {change!r} has no '='; write it as section.key=value.")
        values[key.strip()] = _parse_value(text.strip())
    return _replace(settings, values, "--set")


def dump(settings: Settings) -> str:
    """``settings`` as TOML text that ``parse`` reads back to an equal value."""
    lines, section = [], ""
    for key, value in settings.flat().items():
        head, _, name = key.rpartition(".")
        if head != section:
            section = head
            lines.append(f"\n[{section}]")
        lines.append(f"{name} = {json.dumps(value, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"


def _flatten(value: Any, prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for item in dataclasses.fields(value):
        inner = getattr(value, item.name)
        if dataclasses.is_dataclass(inner):
            rows += _flatten(inner, f"{prefix}{item.name}.")
        else:
            rows.append((prefix + item.name, inner))
    return rows


def _flatten_tree(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in tree.items():
        if isinstance(value, dict):
            rows += _flatten_tree(value, f"{prefix}{key}.")
        else:
            rows.append((prefix + key, value))
    return rows


def _replace(settings: Settings, values: dict[str, Any], source: str) -> Settings:
    known = list(settings.flat())
    sections: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        if key not in known:
            raise NerveError(f"{source}: there is no key {key!r}{_nearest(key, known)}.")
        section, _, name = key.rpartition(".")
        owner = getattr(settings, section) if section else settings
        declared = next(item for item in dataclasses.fields(owner) if item.name == name)
        sections.setdefault(section, {})[name] = _checked(declared, value, key, source)
    top = sections.pop("", {})
    for section, inner in sections.items():
        top[section] = dataclasses.replace(getattr(settings, section), **inner)
    changed = dataclasses.replace(settings, **top)
    _check_together(changed, source)
    return changed


def _checked(declared: dataclasses.Field, value: Any, key: str, source: str) -> Any:
    kind = declared.type
    if kind is float and type(value) is int:
        value = float(value)
    if kind is str and type(value) is int:
        value = str(value)
    if get_origin(kind) is tuple and isinstance(value, list):
        value = tuple(value)
    if not _is_a(value, kind):
        raise NerveError(f"{source}: {key} = {value!r} must be {_spell(kind)}.")
    choices = declared.metadata.get("choices")
    if choices and value not in choices:
        raise NerveError(f"{source}: {key} = {value!r} must be one of {', '.join(map(str, choices))}.")
    low, high = declared.metadata.get("range", (None, None))
    if low is not None and not low <= value <= high:
        raise NerveError(f"{source}: {key} = {value!r} must lie between {low} and {high}.")
    return value


def _check_together(settings: Settings, source: str) -> None:
    if min(settings.size) < 8 or max(settings.size) > 4096:
        raise NerveError(f"{source}: size = {list(settings.size)} must be height and width from 8 to 4096.")
    if not re.fullmatch(r"[1-9]\d*(/[1-9]\d*)?", settings.folds) or settings.folds == "1":
        raise NerveError(
            f"{source}: folds = {settings.folds!r} must be a number from 2, or TRAIN/HELD such as 42/5."
        )
    if settings.loss.dice == settings.loss.bce == 0:
        raise NerveError(f"{source}: loss.dice and loss.bce are both 0, so no loss trains the mask.")


def _is_a(value: Any, kind: Any) -> bool:
    if get_origin(kind) is tuple:
        inner = get_args(kind)
        return isinstance(value, tuple) and len(value) == len(inner) and all(map(_is_a, value, inner))
    return type(value) is kind


def _spell(kind: Any) -> str:
    if isinstance(kind, types.GenericAlias):
        return "[height, width]"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "text"}[kind]


def _parse_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _nearest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.4)
    if not close:
        tails = {name.rpartition(".")[2]: name for name in known}
        close = [tails[tail] for tail in difflib.get_close_matches(word, list(tails), n=1, cutoff=0.6)]
    return f"; did you mean {close[0]!r}?" if close else ""
