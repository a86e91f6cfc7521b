"""Prepare a kernel for an account: the folder that the official client pushes."""

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from kaggle_nerve.competition.facts import SESSION_HOURS
from kaggle_nerve.errors import NerveError
from kaggle_nerve.notebooks.build import METADATA, find_plan, metadata
from kaggle_nerve.notebooks.closure import closure
from kaggle_nerve.notebooks.notebook import build_notebook
from kaggle_nerve.notebooks.plans import Plan
from kaggle_nerve.settings import is_preset_file, load_preset
from kaggle_nerve.settings.parts import Part, parse_part
from kaggle_nerve.storage import write_text

PART = "PART"
"""Name of the setting that makes a training kernel train a part of the folds."""

WORDS = {"true": True, "false": False, "none": None}

ACCEPTED = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    list: "one text, or several such as ['a', 'b'] (in quotes for the shell)",
    type(None): "a text, or none",
}
"""Accepted values of a setting, by the type of its default."""


def prepare_kernel(
    name: str,
    owner: str,
    folder: Path,
    *,
    settings: Mapping[str, str] | None = None,
    datasets: Sequence[str] = (),
    kernels: Sequence[str] = (),
    part: Part | None = None,
) -> Path:
    """Write the metadata and the notebook of kernel ``name`` into ``folder`` and return it.

    ``owner``: the account's user name. ``settings``: changes to the settings cell, as ``{"HOURS": "5"}``,
    with values of the same types. ``datasets`` and ``kernels``: what to attach besides the competition, as
    ``owner/name``. ``part`` makes the kernel of a part of the run. Without settings and part the notebook equals the
    one in ``kernels/``.

    Raises NerveError for an unknown kernel or setting, a value of another type or that the session would
    refuse, a part without folds of its own, and anything that is not ``owner/name``.
    """
    plan, settings = find_plan(name), settings or {}
    if part:
        if PART in settings:
            raise NerveError(f"--split sets {PART} in each of its kernels: leave out --set {PART}.")
        plan, settings = plan.part(part.number), {**settings, PART: str(part)}
    values = json.loads(metadata(plan, owner))
    values["dataset_sources"] = [_check_ref(ref, "dataset") for ref in datasets]
    values["kernel_sources"] = [_check_ref(ref, "kernel") for ref in kernels]
    write_text(folder / METADATA, json.dumps(values, indent=2) + "\n")
    plan_to_push = _with_settings(plan, settings)
    write_text(folder / values["code_file"], build_notebook(plan_to_push, closure(plan.entry)))
    return folder


def _with_settings(plan: Plan, settings: Mapping[str, str]) -> Plan:
    lines = plan.settings.splitlines()
    indices = {
        line.partition(" = ")[0]: index
        for index, line in enumerate(lines)
        if " = " in line and not line.startswith("#")
    }
    values = {name: ast.literal_eval(lines[index].partition(" = ")[2]) for name, index in indices.items()}
    for name, text in settings.items():
        if name not in values:
            raise NerveError(f"Kernel {plan.name} has no setting {name!r}; it has {', '.join(values)}.")
        try:
            values[name] = _value(text, values[name])
        except ValueError as fault:
            accepted = ACCEPTED[type(values[name])]
            raise NerveError(
                f"Setting {name} of kernel {plan.name} cannot be {text!r}: write {accepted}."
            ) from fault
        lines[indices[name]] = f"{name} = {values[name]!r}"
    _check_training_settings(values)
    return replace(plan, settings="\n".join(lines))


def _check_training_settings(values: Mapping[str, Any]) -> None:
    """Raise NerveError for training settings that would fail in the session, after it has waited for its
    machine."""
    if "PRESET" not in values:
        return
    folds = () if values["FOLDS"] is None else (f"folds={values['FOLDS']}",)
    if values["PRESET"] and is_preset_file(values["PRESET"]):
        raise NerveError(
            f"PRESET={values['PRESET']} is a file of this machine, which a session on Kaggle does not have; name a "
            "preset that `kaggle-nerve presets` lists, and its changes as CHANGES=\"['section.key=value']\"."
        )
    settings = load_preset(values["PRESET"] or "default", (*values["CHANGES"], *folds))
    if values[PART] is not None:
        parse_part(values[PART]).folds(settings)
    if not 0 < values["HOURS"] <= SESSION_HOURS:
        raise NerveError(f"HOURS={values['HOURS']:g} must lie above 0 and at most at {SESSION_HOURS:g}.")


def _value(text: str, default: object) -> object:
    """Convert ``text`` to the default's type, so that the session does not fail on it. Raises ValueError if
    it cannot."""
    parsed, kind = _parse(text), type(default)
    if kind in (bool, int, float):
        if type(parsed) is kind or (kind is float and type(parsed) is int):
            return parsed
    elif kind is list and isinstance(parsed, list) and all(isinstance(item, str) for item in parsed):
        return parsed
    elif default is None and parsed is None:
        return None
    elif isinstance(parsed, str) and parsed and not parsed.startswith(tuple("[({")):  # an unclosed bracket
        return [parsed] if kind is list else parsed
    elif type(parsed) in (int, float, complex):  # run names may look like numbers
        return [text] if kind is list else text
    raise ValueError(text)


def _parse(text: str) -> object:
    """Parse a Python value; True, False and None in any case. Anything else is text."""
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError):
        return text


def _check_ref(source: str, kind: str) -> str:
    owner, _, name = source.partition("/")
    if not owner or not name or "/" in name:
        raise NerveError(f"{source!r} is not a {kind} on Kaggle; write it as owner/name.")
    return source
