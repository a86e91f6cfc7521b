"""The search space: which settings vary, and between which values; read from TOML and checked like ``--set``."""

import json
import math
import tomllib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from kaggle_nerve.errors import NerveError
from kaggle_nerve.settings import Settings
from kaggle_nerve.settings.files import read_toml
from kaggle_nerve.settings.text import convert_value, replace_values

DEFAULT = "default_space.toml"

BOUNDS = ("low", "high", "step", "log")

FIXED = {
    "description": "changes nothing",
    "seed": "only changes chance, and with it the held-out patients; use --seed",
    "folds": "decides which patients are held out, and figures on other patients cannot be compared; use --folds",
    "training.start": "differs by what its weights have seen; compare such runs with `train-folds --start-from`",
}
"""Settings that cannot be searched, and why."""

VIEWS = "needs no training to compare; use `predict --run NAME@VIEWS` and `tune`"
"""Why settings of prediction cannot be searched."""

Scalar = bool | int | float | str


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included: whole ones for a whole setting (``is_integer``).

    ``step``: only these steps from ``low``, or None. ``log``: equal ratios are equally likely.
    """

    low: float
    high: float
    step: float | None = None
    log: bool = False
    is_integer: bool = False

    def __contains__(self, value: Any) -> bool:
        if not self.low <= value <= self.high:
            return False
        steps = (value - self.low) / self.step if self.step else 0
        return math.isclose(steps, round(steps), abs_tol=1e-9)

    def encode(self, value: Any) -> Scalar:
        """Return the value as the study stores it."""
        return value

    def decode(self, stored: Scalar) -> Any:
        """Return the value that the study stores as ``stored``."""
        return stored

    def as_toml(self) -> Any:
        """Return the range as its file has it."""
        return {name: getattr(self, name) for name in BOUNDS if getattr(self, name)} | {"low": self.low}


@dataclass(frozen=True)
class Choices:
    """Values without an order. The study stores lists, such as sizes, as JSON text."""

    values: tuple[Any, ...]

    def __contains__(self, value: Any) -> bool:
        return value in self.values

    @property
    def stored(self) -> list[Scalar]:
        """The values as the study stores them."""
        return [self.encode(value) for value in self.values]

    def encode(self, value: Any) -> Scalar:
        """Return the value as the study stores it."""
        return json.dumps(value) if isinstance(value, tuple) else value

    def decode(self, stored: Scalar) -> Any:
        """Return the value that the study stores as ``stored``."""
        return self.values[self.stored.index(stored)]

    def as_toml(self) -> Any:
        """Return the choices as their file has them."""
        return [list(value) if isinstance(value, tuple) else value for value in self.values]


@dataclass(frozen=True)
class Space:
    """A range or choices for each searched setting, by its key ``section.key``. ``source``: the file's name."""

    source: str
    parts: dict[str, Range | Choices]

    def encode(self, settings: Settings) -> dict[str, Scalar] | None:
        """Return the parameters, as the study stores them, of ``settings``; None if they lie outside of the space."""
        values = settings.flat()
        if any(values[key] not in part for key, part in self.parts.items()):
            return None
        return {key: part.encode(values[key]) for key, part in self.parts.items()}

    def apply(self, settings: Settings, parameters: dict[str, Scalar]) -> Settings:
        """Replace the searched settings by a trial's parameters; raise NerveError if they do not fit together."""
        values = {key: part.decode(parameters[key]) for key, part in self.parts.items()}
        return replace_values(settings, values, self.source)

    def as_toml(self) -> dict[str, Any]:
        """Return the space as plain values: key -> range or choices."""
        return {key: part.as_toml() for key, part in sorted(self.parts.items())}

    def label(self, key: str) -> str:
        """Return the key's last part if no other searched key has the same one, otherwise the key."""
        name = key.rpartition(".")[2]
        return name if sum(other.rpartition(".")[2] == name for other in self.parts) == 1 else key

    def text(self, parameters: dict[str, Scalar]) -> str:
        """List parameters, such as ``batch=8 learning_rate=0.0021``."""
        return " ".join(f"{self.label(key)}={value_text(value)}" for key, value in parameters.items())


def load_space(path: Path | None) -> Space:
    """Read a space from a TOML file, or the one in the package for None.

    Raise NerveError, naming the file, for an unknown key or a value that ``--set`` would refuse, and for a setting that
    cannot be searched.
    """
    if path is None:
        text = (resources.files("kaggle_nerve.search") / DEFAULT).read_text(encoding="utf-8")
        return parse_space(text, "default space")
    return parse_space(read_toml(path, "name the file of a search space"), str(path))


def parse_space(text: str, source: str) -> Space:
    """Parse a space as `load_space` does; ``source`` names it in errors."""
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as fault:
        raise NerveError(f"{source} is not valid TOML: {fault}.") from fault
    parts = {key: _part(key, value, source) for key, value in _leaves(tree)}
    if not parts:
        raise NerveError(
            f"{source} names no setting to search; write for example "
            "optimiser.learning_rate = {low = 1e-4, high = 1e-2, log = true}."
        )
    return Space(source, parts)


def _leaves(tree: dict[str, Any]) -> list[tuple[str, Any]]:
    """List the keys ``section.key`` and their values: a table of a section has keys, any other is a range."""
    sections = {key.partition(".")[0] for key in Settings().flat() if "." in key}
    rows: list[tuple[str, Any]] = []
    for key, value in tree.items():
        if key in sections and isinstance(value, dict):
            rows += [(f"{key}.{name}", inner) for name, inner in value.items()]
        else:
            rows.append((key, value))
    return rows


def _part(key: str, value: Any, source: str) -> Range | Choices:
    reason = VIEWS if key.startswith("prediction.") else FIXED.get(key)
    if reason and key in Settings().flat():
        raise NerveError(f"{source}: {key} cannot be searched, since it {reason}.")
    if isinstance(value, list) and value:
        values = tuple(convert_value(key, one, source) for one in value)
        if len(set(values)) < len(values):
            raise NerveError(f"{source}: {key} = {value!r} has a choice twice; name each once.")
        return Choices(values)
    if not isinstance(value, dict):
        convert_value(key, value, source)  # an unknown key is the greater mistake
        raise NerveError(
            f"{source}: {key} = {value!r} is one value; write choices as [a, b], or {{low = a, high = b}}."
        )
    return _range(key, value, source)


def _range(key: str, bounds: dict[str, Any], source: str) -> Range:
    """Build the range that ``bounds`` of the file describe."""
    convert_value(key, Settings().flat().get(key), source)  # an unknown key is the greater mistake
    if unknown := sorted(bounds.keys() - set(BOUNDS)):
        raise NerveError(
            f"{source}: {key} has {unknown[0]!r}, but a range has low, high, and perhaps step or log."
        )
    if type(Settings().flat()[key]) not in (int, float):
        raise NerveError(f"{source}: {key} is not a number; write its choices as a list.")
    if not {"low", "high"} <= bounds.keys():
        raise NerveError(f"{source}: {key} needs both low and high.")
    low, high = (convert_value(key, bounds[name], source) for name in ("low", "high"))
    step, log = bounds.get("step"), bounds.get("log", False)
    is_integer = isinstance(low, int)
    if not low < high:
        raise NerveError(f"{source}: {key} has low = {low} and high = {high}; low must be the smaller one.")
    if type(log) is not bool:
        raise NerveError(f"{source}: {key} has log = {log!r}; write true or false.")
    if step is not None and (type(step) not in ((int,) if is_integer else (int, float)) or step <= 0):
        kind = "whole number" if is_integer else "number"
        raise NerveError(f"{source}: {key} has step = {step!r}; write a {kind} above 0.")
    if log and step is not None:
        raise NerveError(f"{source}: {key} has both step and log; leave out one of them.")
    if log and low <= 0:
        raise NerveError(f"{source}: {key} has log = true and low = {low}; a ratio needs a low above 0.")
    return Range(low, high, step, log, is_integer)


def value_text(value: Any) -> str:
    """Format a setting's value: numbers with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
