"""A folder like Kaggle's, a Jupyter kernel without kaggle_nerve and without network, and notebooks run in them."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from kaggle_nerve.competition.facts import SLUG

NO_NETWORK = textwrap.dedent("""
    import socket

    real = socket.socket.connect

    def connect(self, address):
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"No network in this test: {address[0]}")
        return real(self, address)

    socket.socket.connect = connect
""")
"""As sitecustomize.py: Jupyter's own loopback goes on working."""


def make_kernel(folder: Path, python: str = sys.executable) -> Path:
    """A Python in ``folder`` with the packages of ``python`` but without what is installed there as editable.

    Returns its executable. Its site-packages come by a .pth file, and .pth files in those are not read.
    """
    subprocess.run([python, "-m", "venv", "--without-pip", str(folder)], check=True)
    mine = folder / "bin" / "python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    theirs, own = (
        subprocess.run([one, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()
        for one in (python, str(mine))
    )
    (Path(own) / "packages.pth").write_text(theirs + "\n")
    (Path(own) / "sitecustomize.py").write_text(NO_NETWORK)
    spec = {
        "argv": [str(mine), "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "Python 3",
        "language": "python",
        "env": {"PYTHONPATH": "", "KERAS_BACKEND": "tensorflow"},
    }
    described = folder / "share" / "jupyter" / "kernels" / "python3" / "kernel.json"
    described.parent.mkdir(parents=True)
    described.write_text(json.dumps(spec))
    return mine


@dataclass(frozen=True)
class Kaggle:
    """``/kaggle`` in a folder of its own: ``attach`` inputs, which get read-only, then ``run`` a notebook."""

    root: Path
    kernel: Path

    @property
    def working(self) -> Path:
        """What the notebook leaves."""
        return self.root / "working"

    def attach(self, source: Path, name: str = f"competitions/{SLUG}") -> None:
        """Make a copy of ``source`` the input ``name``."""
        shutil.copytree(source, self.root / "input" / name, ignore=shutil.ignore_patterns(".cache", ".lock"))

    def run(self, cells: list[str]) -> list[str]:
        """Run code cells in one notebook; returns what each printed. AssertionError where an input was changed."""
        self.working.mkdir(parents=True, exist_ok=True)
        before = self._inputs()
        for path in (self.root / "input").rglob("*"):
            path.chmod(0o555 if path.is_dir() else 0o444)
        made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
        made.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
        told = os.environ.get("JUPYTER_PATH")
        os.environ["JUPYTER_PATH"] = str(self.kernel.parents[1] / "share" / "jupyter")
        temporary = self.root / "tmp"
        temporary.mkdir(exist_ok=True)
        try:
            client = NotebookClient(
                made, timeout=600, resources={"metadata": {"path": str(self.working)}}, kernel_name="python3"
            )
            client.execute(env={**os.environ, "TMPDIR": str(temporary), "HOME": str(self.root)})
        finally:
            if told is None:
                del os.environ["JUPYTER_PATH"]
            else:
                os.environ["JUPYTER_PATH"] = told
        assert self._inputs() == before, "the notebook changed its inputs"
        return [_printed(cell) for cell in made.cells]

    def _inputs(self) -> list[tuple[str, int]]:
        paths = sorted((self.root / "input").rglob("*"))
        return [(str(path), path.stat().st_mtime_ns if path.is_file() else 0) for path in paths]


def code_cells(text: str) -> list[str]:
    """The sources of a notebook's code cells."""
    return [cell.source for cell in nbformat.reads(text, 4).cells if cell.cell_type == "code"]


def with_settings(source: str, **settings) -> str:
    """A cell with lines such as ``FOLDS = None`` given other values, as the user would."""
    lines = source.splitlines(keepends=True)
    for name, value in settings.items():
        places = [place for place, line in enumerate(lines) if line.startswith(f"{name} = ")]
        assert len(places) == 1, f"{name} stands {len(places)} times in the cell"
        lines[places[0]] = f"{name} = {value!r}\n"
    return "".join(lines)


def failure(kaggle: Kaggle, cells: list[str]) -> str:
    """What a notebook that fails shows."""
    try:
        kaggle.run(cells)
    except CellExecutionError as fault:
        return str(fault)
    raise AssertionError("the notebook did not fail")


def _printed(cell) -> str:
    return "".join(output.get("text", "") for output in cell.outputs)
