"""A kernel made ready for somebody's account: the folder that the official client pushes."""

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kaggle_nerve.competition.facts import SESSION_HOURS
from kaggle_nerve.errors import NerveError
from kaggle_nerve.notebooks.build import METADATA, metadata, plan_of
from kaggle_nerve.notebooks.closure import closure
from kaggle_nerve.notebooks.notebook import notebook
from kaggle_nerve.notebooks.plans import Plan
from kaggle_nerve.settings import load_preset
from kaggle_nerve.storage import write_text

WORDS = {"true": True, "false": False, "none": None}

FITTING = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "one text, or several such as ['a', 'b'] (in quotes for the shell)",
    type(None): "a text, or none",
}
"""What may be written for a setting by the kind of its default."""


def prepared(
    name: str,
    owner: str,
    folder: Path,
    *,
    settings: Mapping[str, str] | None = None,
    datasets: Sequence[str] = (),
    kernels: Sequence[str] = (),
) -> Path:
    """Write the metadata and the notebook of kernel ``name`` into ``folder`` and return it.

    ``owner``: the account's user name. ``settings``: the user's cell, as ``{"HOURS": "5"}``, with values of
    the kinds that it has. ``datasets`` and ``kernels``: what to attach besides the competition, as
    ``owner/name``. Without settings the notebook is what ``kernels/`` holds.

    Raises NerveError for an unknown kernel or setting, a value of another kind or that the session would refuse,
    and what is no ``owner/name``.
    """
    plan = plan_of(name)
    told = json.loads(metadata(plan, owner))
    told["dataset_sources"] = [_checked(one, "dataset") for one in datasets]
    told["kernel_sources"] = [_checked(one, "kernel") for one in kernels]
    write_text(folder / METADATA, json.dumps(told, indent=2) + "\n")
    changed = _with_settings(plan, settings or {})
    write_text(folder / told["code_file"], notebook(changed, closure(plan.entry)))
    return folder


def _with_settings(plan: Plan, settings: Mapping[str, str]) -> Plan:
    lines = plan.settings.splitlines()
    places = {
        line.partition(" = ")[0]: place
        for place, line in enumerate(lines)
        if " = " in line and not line.startswith("#")
    }
    values = {name: ast.literal_eval(lines[place].partition(" = ")[2]) for name, place in places.items()}
    for name, text in settings.items():
        if name not in values:
            raise NerveError(f"Kernel {plan.name} has no setting {name!r}; it has {', '.join(values)}.")
        try:
            values[name] = _value(text, values[name])
        except ValueError as fault:
            wanted = FITTING[type(values[name])]
            raise NerveError(
                f"Setting {name} of kernel {plan.name} cannot be {text!r}: write {wanted}."
            ) from fault
        lines[places[name]] = f"{name} = {values[name]!r}"
    _refuse_what_would_fail(values)
    return replace(plan, settings="\n".join(lines))


def _refuse_what_would_fail(values: Mapping[str, Any]) -> None:
    """NerveError for settings of training that would fail in the session, after it has waited for its machine."""
    if "PRESET" not in values:
        return
    folds = () if values["FOLDS"] is None else (f"folds={values['FOLDS']}",)
    load_preset(values["PRESET"] or "default", (*values["CHANGES"], *folds))
    if not 0 < values["HOURS"] <= SESSION_HOURS:
        raise NerveError(f"HOURS={values['HOURS']:g} must lie above 0 and at most at {SESSION_HOURS:g}.")


def _value(text: str, default: object) -> object:
    """``text`` as a value of the default's kind, or the session would fail on it. ValueError where it is none."""
    read, kind = _read(text), type(default)
    if kind in (bool, int, float):
        if type(read) is kind or (kind is float and type(read) is int):
            return read
    elif kind is list and isinstance(read, list) and all(isinstance(one, str) for one in read):
        return read
    elif default is None and read is None:
        return None
    elif isinstance(read, str) and read and not read.startswith(tuple("[({")):  # a bracket that is not closed
        return [read] if kind is list else read
    elif type(read) in (int, float, complex):  # names of runs may look like numbers
        return [text] if kind is list else text
    raise ValueError(text)


def _read(text: str) -> object:
    """The Python value, whose words may be written in any case; what is none is text."""
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError):
        return text


def _checked(source: str, kind: str) -> str:
    owner, _, name = source.partition("/")
    if not owner or not name or "/" in name:
        raise NerveError(f"{source!r} is not a {kind} on Kaggle; write it as owner/name.")
    return source
