"""A kernel made ready for somebody's account: the folder that the official client pushes."""

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from kaggle_nerve.errors import NerveError
from kaggle_nerve.kernels.build import METADATA, metadata, plan_of
from kaggle_nerve.kernels.closure import closure
from kaggle_nerve.kernels.notebook import notebook
from kaggle_nerve.kernels.plans import Plan
from kaggle_nerve.storage import write_text


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

    ``owner``: the account's user name. ``settings``: the user's cell, as ``{"HOURS": "5"}``; what is no Python
    value is taken as text. ``datasets`` and ``kernels``: what to attach besides the competition, as
    ``owner/name``. Without settings the notebook is what ``kernels/`` holds.

    Raises NerveError for an unknown kernel or setting, and for what is no ``owner/name``.
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
    names = [line.partition(" = ")[0] for line in lines if " = " in line and not line.startswith("#")]
    for name, text in settings.items():
        if name not in names:
            raise NerveError(f"Kernel {plan.name} has no setting {name!r}; it has {', '.join(names)}.")
        place = next(place for place, line in enumerate(lines) if line.startswith(f"{name} = "))
        lines[place] = f"{name} = {_value(text)!r}"
    return replace(plan, settings="\n".join(lines))


def _value(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _checked(source: str, kind: str) -> str:
    owner, _, name = source.partition("/")
    if not owner or not name or "/" in name:
        raise NerveError(f"{source!r} is not a {kind} on Kaggle; write it as owner/name.")
    return source
