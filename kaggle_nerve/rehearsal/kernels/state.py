"""State of the rehearsed kernels: every pushed version, its session's status, its output."""

import shutil
import threading
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kaggle_nerve import storage

QUEUED, RUNNING, COMPLETE, ERROR = "QUEUED", "RUNNING", "COMPLETE", "ERROR"


@dataclass(frozen=True)
class Kernel:
    """One pushed version of a kernel, as SaveKernel sent it. ``ref`` is ``user/slug``.

    The source fields leave out sources that Kaggle would not find. ``looks`` counts the polls of its session:
    it shows as QUEUED for ``patience`` polls, then as RUNNING for as many, then ends, with ``failure`` as the
    message of an ERROR.
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
    """The account's kernels in a folder; another Kernels on the same folder restores them.

    No kernel is run: a session's output is whatever is in ``output_folder``, put there by hand or by
    ``finish``. ``patience``: number of polls that see a session QUEUED, and then RUNNING.
    """

    def __init__(self, folder: Path, patience: int = 1) -> None:
        self._folder, self._patience = folder, patience
        self._lock = threading.Lock()
        self._versions = self._load()

    @property
    def versions(self) -> list[Kernel]:
        """Every pushed version, newest first."""
        with self._lock:
            return self._versions[::-1]

    def latest(self, ref: str) -> Kernel | None:
        """Return the newest version of a kernel, or None."""
        return next((kernel for kernel in self.versions if kernel.ref == ref), None)

    def running(self) -> list[Kernel]:
        """List the versions whose sessions have not ended."""
        return [kernel for kernel in self.versions if not kernel.ended]

    def push(self, kernel: Kernel) -> Kernel:
        """Store a version; its number is one more than the last one's."""
        with self._lock:
            earlier = [other.version for other in self._versions if other.ref == kernel.ref]
            new = replace(kernel, version=max(earlier, default=0) + 1, patience=self._patience, looks=0)
            self._versions.append(new)
            self._save()
        return new

    def poll(self, kernel: Kernel) -> Kernel:
        """Return a version as this poll sees it; the next poll sees it one step further."""
        if not kernel.ended:
            self._change(kernel, replace(kernel, looks=kernel.looks + 1))
        return kernel

    def finish(self, ref: str, folder: Path, log: str = "") -> None:
        """End the session now, with the files of ``folder`` as its output and ``log`` as its log."""
        slug = ref.rpartition("/")[2]
        target = self.output_folder(slug)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(folder, target)
        if log:
            storage.write_text(self.log_file(slug), log)
        for kernel in self.versions:
            if kernel.slug == slug:
                self._change(kernel, replace(kernel, looks=2 * kernel.patience))

    def output_folder(self, slug: str) -> Path:
        """Return the folder of a kernel session's output."""
        return self._folder / "outputs" / slug

    def log_file(self, slug: str) -> Path:
        """Return the path of the session's log."""
        return self._folder / "outputs" / f"{slug}.log"

    def output(self, slug: str) -> list[tuple[str, Path]]:
        """List name, with folders, and path of each output file of a kernel, sorted by name."""
        folder = self.output_folder(slug)
        files = (path for path in folder.rglob("*") if path.is_file())
        return sorted((path.relative_to(folder).as_posix(), path) for path in files)

    def _change(self, old: Kernel, new: Kernel) -> None:
        with self._lock:
            self._versions[self._versions.index(old)] = new
            self._save()

    def _load(self) -> list[Kernel]:
        path = self._folder / "kernels.json"
        stored = storage.read_json(path, list) if path.is_file() else []
        return [Kernel(**{name: _as_tuple(value) for name, value in item.items()}) for item in stored]

    def _save(self) -> None:
        storage.write_json(self._folder / "kernels.json", [asdict(kernel) for kernel in self._versions])


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
