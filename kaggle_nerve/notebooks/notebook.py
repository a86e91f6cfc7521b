"""Build a kernel's notebook, and the same as a single cell."""

import hashlib
import itertools
import json
import re
from collections.abc import Sequence
from typing import Any

from kaggle_nerve import __version__
from kaggle_nerve.notebooks.closure import File
from kaggle_nerve.notebooks.plans import Plan

DIGITS = 16
"""Digits of each file's SHA-256 in the notebook, enough to detect a change."""

HEADINGS = {
    "": "the package",
    "errors": "the one exception for people",
    "devices": "processors and GPUs",
    "progress": "how long work is told of",
    "memory": "when it runs out",
    "disk": "space on disks, and what they refuse",
    "locks": "one process at a time",
    "storage": "files that are whole or absent",
    "settings": "what can be set",
    "presets": "settings to start from",
    "arrays": "arrays on disk that grow",
    "runs": "runs and folds as folders",
    "maps": "probability maps: levels, full size, several become one",
    "competition": "what Kaggle fixed: facts, run-length encoding, metric, submission format",
    "data": "frames, cache, folds, batches",
    "models": "networks",
    "training": "folds and what they learn by",
    "prediction": "from models to probabilities",
    "decision": "from probabilities to masks",
    "pipeline": "from folds to the CSV",
    "pictures": "figures",
    "audit": "labels to doubt",
    "session": "what the last cells call",
}
"""Headings above the files of a package."""

FACTS = """
# What this notebook is made of: version, and of each file that the cells below write the beginning of its SHA-256.
VERSION = "{version}"
FILES = {{
{files}
}}

import importlib.metadata, os, sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # TensorFlow tells of its start at length
print("kaggle-nerve", VERSION, "on Python", sys.version.split()[0])
for package in "tensorflow", "keras", "numpy", "pandas", "scikit-learn", "opencv-python", "opencv-python-headless":
    try:
        print(f"{{package:<24}}", importlib.metadata.version(package))
    except importlib.metadata.PackageNotFoundError:
        pass
for path in FILES:
    os.makedirs(os.path.dirname(path), exist_ok=True)
""".strip()

CHECK = """
import hashlib

found = {path: hashlib.sha256(open(path, "rb").read()).hexdigest()[:DIGITS] for path in FILES}
changed = [path for path in FILES if found[path] != FILES[path]]
print("Changed by hand:" if changed else f"All {len(FILES)} files are as generated.", *changed)
sys.path.insert(0, os.getcwd())
""".strip().replace("DIGITS", str(DIGITS))

NOTHING = "Nothing below needs changing."

WRITE = """
def write(path, text):
    with open(path, "w", encoding="utf-8", newline="\\n") as file:
        file.write(text)
""".strip()

HIDDEN = {"_kg_hide-input": True, "jupyter": {"source_hidden": True}}
"""Makes Kaggle and JupyterLab fold a cell, so that the notebook stays readable from top to bottom."""


def build_notebook(plan: Plan, files: Sequence[File]) -> str:
    """Return the text of ``<name>.ipynb``: the same bytes for the same sources."""
    cells = [
        _markdown("title", _title(plan)),
        _code("settings", plan.settings),
        _markdown(
            "what",
            f"## What runs\n\n{NOTHING} Folded cells hold the package, one file a cell.",
        ),
        _code("facts", _facts(files), HIDDEN),
    ]
    for package, group in itertools.groupby(files, lambda file: file.package):
        heading = f"### `kaggle_nerve{'.' if package else ''}{package}`: {HEADINGS[package]}"
        cells.append(_markdown(f"floor-{package or 'root'}", heading))
        cells += [_code(_slug(file.path), _write_cell(file), HIDDEN) for file in group]
    cells += [_markdown("run", "## Run"), _code("check", CHECK)]
    for number, (title, code) in enumerate(plan.runs, 1):
        cells += [_markdown(f"run-{number}-title", f"### {title}"), _code(f"run-{number}", code)]
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    document = {
        "cells": cells,
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def build_paste(plan: Plan, files: Sequence[File]) -> str:
    """Return the same as one cell, to be pasted into an empty notebook."""
    parts = [
        _comment_out(_title(plan)),
        plan.settings,
        f"# {NOTHING}",
        _facts(files),
        WRITE,
        *(_write_call(file) for file in files),
        CHECK,
        *(f"# {title}\n{code}" for title, code in plan.runs),
    ]
    return "\n\n".join(parts) + "\n"


def contains(text: str, file: File) -> bool:
    """Tell whether ``text``, a notebook or a pasted cell, contains the file unchanged."""
    lines = json.dumps(_lines(_write_cell(file)), indent=1, ensure_ascii=False)
    # Sources are nested three levels deep in the notebook's JSON.
    return lines.replace("\n", "\n   ") in text or _write_call(file) in text


def _write_cell(file: File) -> str:
    """Return the cell that writes a file; the magic adds the final newline."""
    return f"%%writefile {file.path}\n{file.text.removesuffix(chr(10))}"


def _write_call(file: File) -> str:
    return f"write({json.dumps(file.path)}, {_literal(file)})"


def _title(plan: Plan) -> str:
    return (
        f"# {plan.title}\n\n{plan.about}\n\nMade by kaggle-nerve {__version__} from its own tested modules "
        "(`kaggle-nerve kernels build`). Needs no internet and installs nothing."
    )


def _facts(files: Sequence[File]) -> str:
    lines = [f'    "{file.path}": "{digest(file)}",' for file in files]
    return FACTS.format(version=__version__, files="\n".join(lines))


def digest(file: File) -> str:
    """Return the first digits of a file's SHA-256, in hexadecimal."""
    return hashlib.sha256(file.text.encode()).hexdigest()[:DIGITS]


def _literal(file: File) -> str:
    """Return the text as a Python literal, a raw string if possible."""
    if "'''" in file.text or "\r" in file.text or not file.text.endswith("\n"):
        return repr(file.text) if file.text else '""'
    return f"r'''{file.text}'''"


def _markdown(name: str, text: str) -> dict[str, Any]:
    return {"cell_type": "markdown", "id": name, "metadata": {}, "source": _lines(text)}


def _code(name: str, text: str, metadata: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "execution_count": None,
        "id": name,
        "metadata": metadata or {},
        "outputs": [],
        "source": _lines(text),
    }


def _lines(text: str) -> list[str]:
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def _slug(path: str) -> str:
    """Return a cell's id: letters, digits, - and _ , at most 64."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", path.removeprefix("kaggle_nerve/"))[-64:]


def _comment_out(text: str) -> str:
    return "\n".join(f"# {line.lstrip('# ')}".rstrip() for line in text.splitlines())
