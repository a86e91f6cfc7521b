"""What the rehearsal remembers of kernels: every pushed version, how its session stands, its output."""

import shutil
import threading
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kaggle_nerve import storage

QUEUED, RUNNING, COMPLETE, ERROR = "QUEUED", "RUNNING", "COMPLETE", "ERROR"


@dataclass(frozen=True)
class Kernel:
    """One pushed version of a kernel, as SaveKernel brought it. ``ref`` is ``user/slug``.

    Sources that Kaggle would not find are left out of the source fields. ``looks``: how often its session has
    been looked at; it shows as QUEUED for ``patience`` looks, then as RUNNING for as many, then ends, with
    ``failure`` as the message of an ERROR.
    """

    ref: str
    version: int
    title: str
    text: str
    language: str = ""
    kernel_type: str = ""
    is_private: bool = True
    enable_gpu: bool = False
    enable_tpu: bool = False
    enable_internet: bool = True
    machine_shape: str = ""
    docker_image: str = ""
    session_timeout: int = 0
    competition_sources: tuple[str, ...] = ()
    dataset_sources: tuple[str, ...] = ()
    kernel_sources: tuple[str, ...] = ()
    patience: int = 1
    looks: int = 0
    failure: str = ""

    @property
    def slug(self) -> str:
        """The reference without the user."""
        return self.ref.rpartition("/")[2]

    @property
    def ended(self) -> bool:
        """Whether the session has ended."""
        return self.looks >= 2 * self.patience

    @property
    def status(self) -> str:
        """QUEUED, RUNNING, COMPLETE or ERROR."""
        if not self.ended:
            return QUEUED if self.looks < self.patience else RUNNING
        return ERROR if self.failure else COMPLETE


class Kernels:
    """The account's kernels in a folder; another Kernels on the same folder remembers them.

    Nothing is run: what a kernel's session leaves is what lies in ``output_folder``, put there by hand or by
    ``finish``. ``patience``: times that a session is seen QUEUED, and then RUNNING.
    """

    def __init__(self, folder: Path, patience: int = 1) -> None:
        self._folder, self._patience = folder, patience
        self._lock = threading.Lock()
        self._pushed = self._load()

    @property
    def pushed(self) -> list[Kernel]:
        """Every pushed version, newest first."""
        with self._lock:
            return self._pushed[::-1]

    def latest(self, ref: str) -> Kernel | None:
        """The newest version of a kernel, or None."""
        return next((kernel for kernel in self.pushed if kernel.ref == ref), None)

    def push(self, kernel: Kernel) -> Kernel:
        """Remember a version; its number is one more than the last one's."""
        with self._lock:
            before = [other.version for other in self._pushed if other.ref == kernel.ref]
            made = replace(kernel, version=max(before, default=0) + 1, patience=self._patience, looks=0)
            self._pushed.append(made)
            self._save()
        return made

    def look(self, kernel: Kernel) -> Kernel:
        """A version as this look sees it; the next one sees it a step further."""
        if not kernel.ended:
            self._change(kernel, replace(kernel, looks=kernel.looks + 1))
        return kernel

    def finish(self, ref: str, folder: Path, log: str = "") -> None:
        """End the session now, with the files of ``folder`` as its output and ``log`` as its log."""
        slug = ref.rpartition("/")[2]
        place = self.output_folder(slug)
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(folder, place)
        if log:
            storage.write_text(self.log_file(slug), log)
        for kernel in self.pushed:
            if kernel.slug == slug:
                self._change(kernel, replace(kernel, looks=2 * kernel.patience))

    def output_folder(self, slug: str) -> Path:
        """Where the files lie that a kernel's session leaves."""
        return self._folder / "outputs" / slug

    def log_file(self, slug: str) -> Path:
        """Where the session's log lies."""
        return self._folder / "outputs" / f"{slug}.log"

    def output(self, slug: str) -> list[tuple[str, Path]]:
        """Name, with folders, and place of each file of a kernel's output, sorted by name."""
        folder = self.output_folder(slug)
        files = (path for path in folder.rglob("*") if path.is_file())
        return sorted((path.relative_to(folder).as_posix(), path) for path in files)

    def _change(self, old: Kernel, new: Kernel) -> None:
        with self._lock:
            self._pushed[self._pushed.index(old)] = new
            self._save()

    def _load(self) -> list[Kernel]:
        path = self._folder / "kernels.json"
        stored = storage.read_json(path) if path.is_file() else []
        return [Kernel(**{name: _frozen(value) for name, value in item.items()}) for item in stored]

    def _save(self) -> None:
        storage.write_json(self._folder / "kernels.json", [asdict(kernel) for kernel in self._pushed])


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
