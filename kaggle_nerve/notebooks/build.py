"""Writing and checking the generated files of all kernels."""

import json
from dataclasses import dataclass
from pathlib import Path

from kaggle_nerve.competition.facts import SLUG
from kaggle_nerve.errors import NerveError
from kaggle_nerve.notebooks.closure import closure
from kaggle_nerve.notebooks.notebook import digest, holds, notebook, paste
from kaggle_nerve.notebooks.plans import PLANS, Plan
from kaggle_nerve.storage import write_text

OWNER = "INSERT_YOUR_USER_NAME"
"""In the place of the owner until a kernel is pushed."""

METADATA, PASTE = "kernel-metadata.json", "paste.py"


@dataclass(frozen=True)
class Drift:
    """A file under ``kernels/`` that is not what the package generates; ``why`` names what differs."""

    path: str
    why: str

    def __str__(self) -> str:
        return f"{self.path} {self.why}"


def generated() -> dict[str, str]:
    """Every generated file of every kernel: path below ``kernels/`` -> text."""
    found, closures = {}, {plan.entry: closure(plan.entry) for plan in PLANS.values()}
    for plan in PLANS.values():
        files = closures[plan.entry]
        found[f"{plan.name}/{METADATA}"] = metadata(plan)
        found[f"{plan.name}/{plan.name}.ipynb"] = notebook(plan, files)
        found[f"{plan.name}/{PASTE}"] = paste(plan, files)
    return found


def build(folder: Path) -> list[str]:
    """Write what differs or is missing below ``folder``; returns its paths."""
    written = []
    for path, text in generated().items():
        if _read(folder / path) != text:
            write_text(folder / path, text)
            written.append(path)
    return written


def check(folder: Path) -> list[Drift]:
    """What differs below ``folder`` from what `build` would write; nothing if all is well."""
    found = []
    for path, text in generated().items():
        there = _read(folder / path)
        if there is None:
            found.append(Drift(path, "is missing"))
        elif there != text:
            found.append(Drift(path, _difference(path, there)))
    return found + [Drift(name, "is no kernel of this package: delete it") for name in _strangers(folder)]


def metadata(plan: Plan, owner: str = OWNER) -> str:
    """The text of kernel-metadata.json, in the official client's words."""
    # Internet is named, since the client turns it on where nothing is said.
    told = {
        "id": f"{owner}/{plan.name}",
        "title": plan.title,
        "code_file": f"{plan.name}.ipynb",
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": plan.gpu,
        "enable_tpu": False,
        "enable_internet": False,
        **({"machine_shape": "NvidiaTeslaT4"} if plan.gpu else {}),
        "dataset_sources": [],
        "competition_sources": [SLUG],
        "kernel_sources": [],
        "model_sources": [],
    }
    return json.dumps(told, indent=2) + "\n"


def plan_of(name: str) -> Plan:
    """The kernel ``name``; NerveError for an unknown one."""
    if name not in PLANS:
        raise NerveError(f"There is no kernel {name!r}; there are {', '.join(PLANS)}.")
    return PLANS[name]


def _read(path: Path) -> str | None:
    # Bytes that are no text differ from what is generated, as any other change does.
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None


def _strangers(folder: Path) -> list[str]:
    """Folders with a kernel's files that are no kernel's: what an older version wrote."""
    return sorted(
        inside.name
        for inside in folder.glob("*/")
        if inside.name not in PLANS
        and any((inside / file).is_file() for file in (METADATA, PASTE, f"{inside.name}.ipynb"))
    )


def _difference(path: str, there: str) -> str:
    """Which modules of the package a notebook has otherwise: those that changed since, or were edited in it."""
    if path.endswith(METADATA):
        return "differs from kaggle_nerve/notebooks/plans.py"
    files = closure(plan_of(path.split("/")[0]).entry)
    stale = [file.path for file in files if digest(file) not in there]
    if stale:
        return f"is older than {', '.join(stale)}"
    edited = [file.path for file in files if not holds(there, file)]
    if edited:
        return f"has {', '.join(edited)} changed by hand"
    return "differs from kaggle_nerve/notebooks/plans.py or notebook.py"
