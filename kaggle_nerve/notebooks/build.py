"""Write and check the generated files of all kernels."""

import json
from dataclasses import dataclass
from pathlib import Path

from kaggle_nerve.competition.facts import SLUG
from kaggle_nerve.errors import NerveError
from kaggle_nerve.notebooks.closure import closure
from kaggle_nerve.notebooks.notebook import build_notebook, build_paste, contains, digest
from kaggle_nerve.notebooks.plans import PLANS, Plan
from kaggle_nerve.storage import write_text

OWNER = "INSERT_YOUR_USER_NAME"
"""Placeholder for the owner until a kernel is pushed."""

METADATA, PASTE = "kernel-metadata.json", "paste.py"


@dataclass(frozen=True)
class Drift:
    """A file under ``kernels/`` that differs from what the package generates; ``why`` names the difference."""

    path: str
    why: str

    def __str__(self) -> str:
        return f"{self.path} {self.why}"


def generate() -> dict[str, str]:
    """Generate every file of every kernel: path below ``kernels/`` -> text."""
    texts, closures = {}, {plan.entry: closure(plan.entry) for plan in PLANS.values()}
    for plan in PLANS.values():
        files = closures[plan.entry]
        texts[f"{plan.name}/{METADATA}"] = metadata(plan)
        texts[f"{plan.name}/{plan.name}.ipynb"] = build_notebook(plan, files)
        texts[f"{plan.name}/{PASTE}"] = build_paste(plan, files)
    return texts


def build(folder: Path) -> list[str]:
    """Write the files below ``folder`` that differ or are missing; return their paths."""
    written = []
    for path, text in generate().items():
        if _read(folder / path) != text:
            write_text(folder / path, text)
            written.append(path)
    return written


def check(folder: Path) -> list[Drift]:
    """List the differences between ``folder`` and what `build` would write."""
    drifts = []
    for path, text in generate().items():
        existing = _read(folder / path)
        if existing is None:
            drifts.append(Drift(path, "is missing"))
        elif existing != text:
            drifts.append(Drift(path, _difference(path, existing)))
    return drifts + [
        Drift(name, "is no kernel of this package: delete it") for name in _unknown_kernels(folder)
    ]


def metadata(plan: Plan, owner: str = OWNER) -> str:
    """Return the text of kernel-metadata.json, with the official client's keys."""
    # enable_internet is explicit because the client's default is True.
    values = {
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
    return json.dumps(values, indent=2) + "\n"


def find_plan(name: str) -> Plan:
    """Return the kernel ``name``. Raises NerveError for an unknown one."""
    if name not in PLANS:
        raise NerveError(f"There is no kernel {name!r}; there are {', '.join(PLANS)}.")
    return PLANS[name]


def _read(path: Path) -> str | None:
    # Bytes that are not UTF-8 count as a difference, like any other change.
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None


def _unknown_kernels(folder: Path) -> list[str]:
    """List folders with kernel files that are no kernel of this version, left by an older one."""
    return sorted(
        subfolder.name
        for subfolder in folder.glob("*/")
        if subfolder.name not in PLANS
        and any((subfolder / file).is_file() for file in (METADATA, PASTE, f"{subfolder.name}.ipynb"))
    )


def _difference(path: str, text: str) -> str:
    """Name the modules whose text in a notebook differs: changed in the package since, or edited in the
    notebook."""
    if path.endswith(METADATA):
        return "differs from kaggle_nerve/notebooks/plans.py"
    files = closure(find_plan(path.split("/")[0]).entry)
    stale = [file.path for file in files if digest(file) not in text]
    if stale:
        return f"is older than {', '.join(stale)}"
    edited = [file.path for file in files if not contains(text, file)]
    if edited:
        return f"has {', '.join(edited)} changed by hand"
    return "differs from kaggle_nerve/notebooks/plans.py or notebook.py"
