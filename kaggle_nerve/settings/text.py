"""Read, change and write settings as TOML; an error for an unknown key suggests the nearest known one."""

import dataclasses
import difflib
import json
import re
import tomllib
import types
from typing import Annotated, Any, Literal, get_args, get_origin

from kaggle_nerve.errors import NerveError
from kaggle_nerve.settings.schema import Settings


def parse(text: str, source: str) -> Settings:
    """Parse settings from TOML; ``source`` names it in errors."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as fault:
        raise NerveError(f"{source} is not valid TOML: {fault}.") from fault
    return replace_values(Settings(), dict(_flatten_tree(tree)), source)


def apply_changes(settings: Settings, changes: tuple[str, ...]) -> Settings:
    """Apply ``section.key=value`` changes to ``settings``, with values as in TOML (bare words are text)."""
    values: dict[str, Any] = {}
    for change in changes:
        key, equals, text = change.partition("=")
        if not equals:
            raise NerveError(f"--set {change!r} has no '='; write it as section.key=value.")
        values[key.strip()] = _parse_value(text.strip())
    return replace_values(settings, values, "--set")


def dump(settings: Settings) -> str:
    """Format ``settings`` as TOML text that ``parse`` reads back to an equal value."""
    lines, section = [], ""
    for key, value in settings.flat().items():
        head, _, name = key.rpartition(".")
        if head != section:
            section = head
            lines.append(f"\n[{section}]")
        lines.append(f"{name} = {json.dumps(value, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"


def _flatten_tree(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in tree.items():
        if isinstance(value, dict):
            rows += _flatten_tree(value, f"{prefix}{key}.")
        else:
            rows.append((prefix + key, value))
    return rows


def replace_values(settings: Settings, values: dict[str, Any], source: str) -> Settings:
    """Replace the settings with the keys of ``values``, written ``section.key``.

    ``source`` names them in errors. Raise NerveError for an unknown key, a value that does not fit its setting, and
    settings that do not fit together.
    """
    sections: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        sections.setdefault(section, {})[name] = convert_value(key, value, source)
    top = sections.pop("", {})
    for section, inner in sections.items():
        top[section] = dataclasses.replace(getattr(settings, section), **inner)
    changed = dataclasses.replace(settings, **top)
    _check_together(changed, source)
    return changed


def convert_value(key: str, value: Any, source: str) -> Any:
    """Convert ``value`` to the type of the setting ``key``; raise NerveError as `replace_values` does."""
    keys = list(Settings().flat())
    if key not in keys:
        raise NerveError(f"{source}: there is no key {key!r}{nearest(key, keys)}.")
    section, _, name = key.rpartition(".")
    owner = getattr(Settings(), section) if section else Settings()
    declared = next(item for item in dataclasses.fields(owner) if item.name == name)
    return _convert(declared.type, value, key, source)


def _convert(kind: Any, value: Any, key: str, source: str) -> Any:
    """Convert ``value`` to ``kind``, the annotation of its setting; raise NerveError if it does not fit."""
    bounds, choices = None, ()
    if get_origin(kind) is Annotated:
        kind, bounds = get_args(kind)
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        kind = type(choices[0])
    if kind is float and type(value) is int:
        value = float(value)
    if kind is str and type(value) is int:
        value = str(value)
    if get_origin(kind) is tuple and isinstance(value, list):
        value = tuple(value)
    if not _is_a(value, kind):
        raise NerveError(f"{source}: {key} = {value!r} must be {_spell(kind)}.")
    if choices and value not in choices:
        raise NerveError(f"{source}: {key} = {value!r} must be one of {', '.join(map(str, choices))}.")
    if bounds and not bounds.low <= value <= bounds.high:
        raise NerveError(f"{source}: {key} = {value!r} must lie between {bounds.low} and {bounds.high}.")
    return value


def _check_together(settings: Settings, source: str) -> None:
    if min(settings.size) < 8 or max(settings.size) > 4096:
        raise NerveError(f"{source}: size = {list(settings.size)} must be height and width from 8 to 4096.")
    if not re.fullmatch(r"(?!1$|1\+)[1-9]\d*(/[1-9]\d*)?(\+all)?", settings.folds):
        raise NerveError(
            f"{source}: folds = {settings.folds!r} must be a number from 2, or TRAIN/HELD such as 42/5, each alone "
            "or with +all behind it."
        )
    for requirement in _requirements(settings):
        if not requirement[0]:
            raise NerveError(f"{source}: {requirement[1]}")


def _requirements(settings: Settings) -> list[tuple[bool, str]]:
    """List (whether it holds, error message) for requirements between keys."""
    model, loss, training = settings.model, settings.loss, settings.training
    mask_losses = [
        loss.dice,
        loss.batch_dice,
        loss.bce,
        loss.focal,
        loss.tversky,
        loss.focal_tversky,
        loss.lovasz,
    ]
    warm = training.warm_size
    return [
        (any(mask_losses), "every loss of the mask has weight 0, so nothing trains it; set loss.dice=1."),
        (
            not loss.is_conditional or (model.presence and loss.presence > 0),
            "loss.empty_frames = 0 leaves it to the presence head to say which frames are empty; set "
            "model.presence=true and loss.presence=0.5.",
        ),
        (
            model.window == 1 or (settings.augmentation.vflip == 0 and settings.prediction.tta != "flips"),
            f"model.window = {model.window} leaves out more below than above, which frames upside down would turn "
            "round; set augmentation.vflip=0 and prediction.tta=scales, or model.window=1.",
        ),
        (
            loss.tversky == loss.focal_tversky == 0 or loss.tversky_alpha + loss.tversky_beta > 0,
            "loss.tversky_alpha and loss.tversky_beta are both 0; set one of them.",
        ),
        (
            model.architecture not in ("fpn", "deeplabv3+") or model.encoder != "none",
            f"model.architecture = {model.architecture!r} needs an encoder, such as model.encoder=resnet50.",
        ),
        (
            model.architecture != "segnet" or model.encoder == "none",
            "model.architecture = 'segnet' unpools where its own encoder pooled; set model.encoder=none.",
        ),
        (
            model.architecture != "segnet" or model.down == "pool",
            f"model.down = {model.down!r} leaves no pooling positions for a segnet; set model.down=pool.",
        ),
        (
            model.weights == "none" or model.encoder != "none",
            f"model.weights = {model.weights!r} belong to a pretrained encoder; name it in model.encoder.",
        ),
        (
            not model.frozen or model.weights != "none",
            f"model.frozen = {model.frozen} would keep random weights; set model.weights=imagenet or model.frozen=0.",
        ),
        (
            warm == (0, 0) or min(warm) >= 8,
            f"training.warm_size = {list(warm)} must be height and width from 8, or [0, 0] for none.",
        ),
        (
            training.average != "snapshots" or settings.optimiser.schedule == "cyclic",
            "training.average = 'snapshots' needs cycles; set optimiser.schedule=cyclic.",
        ),
        (
            (training.noise == "none") == (not training.noise_table),
            "training.noise and training.noise_table go together; set both or neither.",
        ),
        (
            training.noise != "soft" or model.presence,
            "training.noise = 'soft' softens the presence target; set model.presence=true.",
        ),
    ]


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


def nearest(word: str, known: list[str]) -> str:
    """Return `` (did you mean ...?)`` for the known word most similar to ``word``, or ''."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.4)
    if not close:
        tails = {name.rpartition(".")[2]: name for name in known}
        close = [tails[tail] for tail in difflib.get_close_matches(word, list(tails), n=1, cutoff=0.6)]
    return f" (did you mean {close[0]!r}?)" if close else ""
