"""Find the package files that a kernel needs: its entry module, everything that it imports, and the presets."""

from dataclasses import dataclass
from graphlib import TopologicalSorter
from importlib import resources
from pathlib import Path

import grimp

PACKAGE = "kaggle_nerve"

PRESETS = "kaggle_nerve.presets"
"""Read as files by `kaggle_nerve.settings.files`, so no import leads there."""

FORBIDDEN = ("click", "kaggle", "kagglesdk", "requests")
"""Packages that Kaggle's image lacks, or that cannot be imported without a network."""


@dataclass(frozen=True)
class File:
    """A file of the package: its path from the folder above, with ``/``, and its text."""

    path: str
    text: str

    @property
    def package(self) -> str:
        """Its package or module directly below the root, such as ``data``; '' is the root itself."""
        parts = self.path.split("/")[1:]
        name = parts[0].removesuffix(".py")
        return "" if name == "__init__" else name


def closure(entry: str) -> list[File]:
    """List the files that module ``entry`` needs, dependencies first.

    Imports inside functions count, imports for type checking do not. Raises ValueError for an import that a
    notebook must not have: a defect of the package.
    """
    graph = grimp.build_graph(
        PACKAGE, include_external_packages=True, exclude_type_checking_imports=True, cache_dir=None
    )
    needed = _find_modules(graph, entry)
    for forbidden in FORBIDDEN:
        if forbidden in needed:
            chain = " -> ".join(graph.find_shortest_chain(entry, forbidden) or (entry, "...", forbidden))
            raise ValueError(f"A notebook must not import {forbidden}, and {entry} does: {chain}.")
    modules = sorted(module for module in needed if _is_ours(module))
    order = {package: position for position, package in enumerate(_sort_packages(graph, modules))}
    return [
        file
        for module in sorted(modules, key=lambda name: (order[_package_of(name)], name))
        for file in _files(module)
    ]


def _find_modules(graph: grimp.ImportGraph, entry: str) -> set[str]:
    """Return ``entry``, the presets, all that they import, and the packages around all of them."""
    modules, queue = set(), {entry, PRESETS}
    while queue:
        module = queue.pop()
        modules.add(module)
        parent = module.rpartition(".")[0]
        queue |= graph.find_modules_directly_imported_by(module) | ({parent} if parent else set())
        queue -= modules
    return modules


def _sort_packages(graph: grimp.ImportGraph, modules: list[str]) -> list[str]:
    dependencies: dict[str, set[str]] = {_package_of(module): set() for module in modules}
    for module in modules:
        imported = {
            _package_of(name) for name in graph.find_modules_directly_imported_by(module) if _is_ours(name)
        }
        # The root's __init__ is imported first.
        dependencies[_package_of(module)] |= (imported | {PACKAGE}) - {_package_of(module)}
    return list(
        TopologicalSorter(
            {package: sorted(dependencies[package]) for package in sorted(dependencies)}
        ).static_order()
    )


def _package_of(module: str) -> str:
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
    return [File(file.relative_to(root).as_posix(), file.read_text(encoding="utf-8")) for file in paths]
