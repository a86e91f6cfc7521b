"""Which of the package's files a kernel needs: its entry, whatever that imports, and the presets."""

from dataclasses import dataclass
from graphlib import TopologicalSorter
from importlib import resources
from pathlib import Path

import grimp

PACKAGE = "kaggle_nerve"

PRESETS = "kaggle_nerve.presets"
"""Read as files by `kaggle_nerve.settings.files`, so that no import leads there."""

FORBIDDEN = ("click", "kaggle", "kagglesdk", "requests")
"""What Kaggle's image lacks, or cannot be imported without a network."""


@dataclass(frozen=True)
class File:
    """A file of the package: its path from the folder above, with ``/``, and its text."""

    path: str
    text: str

    @property
    def floor(self) -> str:
        """The package or module right below the root that it belongs to, as ``data``; '' is the root itself."""
        inside = self.path.split("/")[1:]
        name = inside[0].removesuffix(".py")
        return "" if name == "__init__" else name


def closure(entry: str) -> list[File]:
    """The files that module ``entry`` needs, what is built upon before what builds on it.

    Imports inside functions count, those for type checking alone do not. Raises ValueError where
    something is among them that a notebook must not import: a defect of the package.
    """
    graph = grimp.build_graph(
        PACKAGE, include_external_packages=True, exclude_type_checking_imports=True, cache_dir=None
    )
    found = _reached(graph, entry)
    for bad in FORBIDDEN:
        if bad in found:
            chain = " -> ".join(graph.find_shortest_chain(entry, bad) or (entry, "...", bad))
            raise ValueError(f"A notebook must not import {bad}, and {entry} does: {chain}.")
    modules = sorted(module for module in found if _is_ours(module))
    order = {floor: place for place, floor in enumerate(_floors(graph, modules))}
    return [
        file
        for module in sorted(modules, key=lambda name: (order[_floor(name)], name))
        for file in _files(module)
    ]


def _reached(graph: grimp.ImportGraph, entry: str) -> set[str]:
    """``entry``, the presets, all that they import, and the packages around all of them."""
    found, waiting = set(), {entry, PRESETS}
    while waiting:
        module = waiting.pop()
        found.add(module)
        parent = module.rpartition(".")[0]
        waiting |= graph.find_modules_directly_imported_by(module) | ({parent} if parent else set())
        waiting -= found
    return found


def _floors(graph: grimp.ImportGraph, modules: list[str]) -> list[str]:
    below: dict[str, set[str]] = {_floor(module): set() for module in modules}
    for module in modules:
        imported = {
            _floor(name) for name in graph.find_modules_directly_imported_by(module) if _is_ours(name)
        }
        # The root's own __init__ is imported before all else.
        below[_floor(module)] |= (imported | {PACKAGE}) - {_floor(module)}
    return list(TopologicalSorter({floor: sorted(below[floor]) for floor in sorted(below)}).static_order())


def _floor(module: str) -> str:
    return ".".join(module.split(".")[:2])


def _is_ours(module: str) -> bool:
    return module.split(".")[0] == PACKAGE


def _files(module: str) -> list[File]:
    root = Path(str(resources.files(PACKAGE))).parent
    path = root.joinpath(*module.split("."))
    if module == PRESETS:
        paths = [path / "__init__.py", *sorted(path.glob("*.toml"))]
    else:
        paths = [path / "__init__.py" if path.is_dir() else path.with_suffix(".py")]
    return [File(one.relative_to(root).as_posix(), one.read_text(encoding="utf-8")) for one in paths]
