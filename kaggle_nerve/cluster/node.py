"""The node's side: an actor that trains one fold in a worker process, and hands over what it writes."""

import os
import queue
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kaggle_nerve import devices
from kaggle_nerve.cluster import data
from kaggle_nerve.cluster.connection import load_ray
from kaggle_nerve.cluster.data import Manifest
from kaggle_nerve.cluster.mirror import Mirror, Update
from kaggle_nerve.cluster.nodes import list_nodes
from kaggle_nerve.cluster.order import RUNS, WORK, FoldOrder
from kaggle_nerve.disk import disk_sentence
from kaggle_nerve.errors import NerveError
from kaggle_nerve.runs import open_run
from kaggle_nerve.storage import digest_file
from kaggle_nerve.training.worker import Order
from kaggle_nerve.training.worker_process import WorkerProcess, worker_environment

WAIT = 1.0
"""Seconds for which `FoldTrainer.poll` collects messages: a worker sends several in a second, and a call costs time."""

SCRATCH = "kaggle-nerve-fold-"
"""Beginning of the names of scratch folders; the process's number follows."""


@dataclass(frozen=True)
class Report:
    """News of a fold: messages of its worker (see `worker`), changes of its folder, exit code once it has ended."""

    messages: list[dict[str, Any]]
    update: Update
    code: int | None


class FoldTrainer:
    """Trains one fold on this machine, for another one. Call the methods in their order; `stop` at any time.

    Each raises NerveError for what a user can act on.
    """

    def __init__(self):
        _remove_orphans()
        self._scratch = Path(tempfile.mkdtemp(prefix=f"{SCRATCH}{os.getpid()}-"))
        self._messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._data_dir: Path | None = None
        self._process: WorkerProcess | None = None
        self._mirror: Mirror | None = None

    def node_name(self) -> str:
        """Return the name of this node."""
        context = load_ray().get_runtime_context()
        return next(node.name for node in list_nodes() if node.id == context.get_node_id())

    def sees_data(self, data_dir: str, source: str) -> bool:
        """Return whether this machine has the data in the same folder; then use it."""
        if data.sees(Path(data_dir), source):
            self._data_dir = Path(data_dir)
        return self._data_dir is not None

    def has_copy(self, digest: str) -> bool:
        """Return whether this machine has a copy of the data from before; then use it."""
        if data.has_copy(digest):
            self._data_dir = data.copy_folder(digest)
        return self._data_dir is not None

    def receive_data(self, manifest: Manifest, references: list[Any]) -> None:
        """Fetch and store a copy of the data, and use it."""
        with _explained():
            data.receive(manifest, map(load_ray().get, references))
            self._data_dir = data.copy_folder(manifest.digest)

    def start(self, order: FoldOrder) -> None:
        """Begin or resume the fold."""
        assert self._data_dir is not None
        with _explained():
            _require_files(order.fixed_files)
            for name, content in order.files.items():
                path = self._scratch / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            runs_dir, work = self._scratch / RUNS, self._scratch / WORK
            work.mkdir(exist_ok=True)
            run = open_run(runs_dir, order.run)
            fold = run.fold(order.fold)
            self._mirror = Mirror(fold.folder)
            deadline = None if order.seconds is None else time.monotonic() + order.seconds
            command = Order(str(self._data_dir), str(runs_dir), order.run, order.fold, deadline, order.jobs)
            devices.prepare_environment()
            variables = order.variables | _devices_of(order) | worker_environment(run.settings)
            self._process = WorkerProcess(command, fold.log, variables, self._messages.put, work)

    def poll(self) -> Report:
        """Collect for `WAIT` seconds, or until the worker ends; return what is new since the last call."""
        assert self._process is not None and self._mirror is not None
        messages, has_ended, end = [], False, time.monotonic() + WAIT
        with suppress(queue.Empty):
            while not has_ended:
                message = self._messages.get(timeout=max(0.0, end - time.monotonic()))
                has_ended = message is None
                if message is not None:
                    messages.append(message)
        with _explained():
            update = self._mirror.update()
        return Report(messages, update, self._process.code if has_ended else None)

    def stop(self) -> None:
        """Ask the worker to stop after its current epoch."""
        if self._process:
            self._process.stop()

    def close(self) -> None:
        """End the worker and remove the scratch folder."""
        if self._process and self._process.code is None:
            self._process.kill()
        shutil.rmtree(self._scratch, ignore_errors=True)


@contextmanager
def _explained() -> Iterator[None]:
    """Turn errors that a user can act on into a plain NerveError: other classes may not survive the way back."""
    try:
        yield
    except NerveError as fault:
        raise NerveError(str(fault)) from fault
    except OSError as fault:
        if sentence := disk_sentence(fault):
            raise NerveError(sentence) from fault
        raise


def _devices_of(order: FoldOrder) -> dict[str, str]:
    """Return the variables that limit a worker to its share. Ray chooses the GPUs of this process and its own."""
    if order.gpus:
        return {}
    return {"CUDA_VISIBLE_DEVICES": "-1", **devices.thread_environment(order.cpus)}


def _require_files(digests: dict[str, str]) -> None:
    for name, digest in digests.items():
        path = Path(name)
        if not path.is_file() or digest_file(path) != digest:
            raise NerveError(
                f"{name} is missing or another file on that machine: name it by a path relative to the current folder, "
                "so that it is sent, or put it where all machines see it."
            )


def _remove_orphans() -> None:
    """Remove scratch folders of processes that were killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{SCRATCH}*"):
        match = re.match(r"(\d+)-", folder.name.removeprefix(SCRATCH))
        if match and not Path(f"/proc/{match[1]}").exists() and Path("/proc/self").exists():
            shutil.rmtree(folder, ignore_errors=True)
