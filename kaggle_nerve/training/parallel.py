"""Train folds side by side: each in a process of its own, on this machine or on others."""

import queue
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kaggle_nerve import devices, memory
from kaggle_nerve.errors import NerveError
from kaggle_nerve.progress import Reporter
from kaggle_nerve.runs import Fold
from kaggle_nerve.settings.schema import FoldName
from kaggle_nerve.training.deaths import death_sentence, memory_sentence
from kaggle_nerve.training.worker import Order, Replay
from kaggle_nerve.training.worker_process import WorkerProcess, worker_environment

TICK = 0.2
"""Seconds between two checks of whether the user wants to stop."""

Events = queue.Queue[tuple["Worker", dict[str, Any] | None]]
"""Messages from workers; None means that the worker has ended."""


class MachinesLostError(NerveError):
    """The machines that trained a fold have gone. The fold is not to blame, and the same call goes on with it."""


def failure_sentence(fold: FoldName, fault: NerveError) -> str:
    """Return one sentence that says which fold failed, and why."""
    text = str(fault)
    return text if text.startswith(f"Fold {fold} ") else f"Fold {fold}: {text}"


class Worker(ABC):
    """Handle of the process that trains one fold, wherever it runs. ``slot``: its number among the parallel ones.

    ``last_message``: its final message, empty before that.
    """

    def __init__(self, fold: Fold, jobs: int, slot: int):
        self.fold, self.slot, self._jobs = fold, slot, jobs
        self.last_message: dict[str, Any] = {}

    @abstractmethod
    def stop(self) -> None:
        """Ask the worker to stop after its current epoch."""

    @abstractmethod
    def kill(self) -> None:
        """Kill the process now. Its checkpoint stays readable."""

    @abstractmethod
    def exit_code(self) -> int:
        """Return the exit code of the ended process, negative for a signal."""

    def failure(self) -> NerveError:
        """Describe why the process ended without a result."""
        if self.last_message.get("event") == "lost":
            return MachinesLostError(self.last_message["text"])
        if self.last_message.get("event") == "failed":
            return NerveError(self.last_message["text"])
        if self.last_message.get("event") != "crashed":
            return NerveError(death_sentence(self.fold, self._jobs, self.exit_code()))
        text = self.last_message["text"]
        if memory.mentions(text):
            return NerveError(memory_sentence(self.fold, self._jobs))
        first_line = (text.splitlines() or [""])[0][:200].rstrip(".")
        return NerveError(f"{self.fold.label} failed ({first_line}); its log: {self.fold.log}")


class Machines(ABC):
    """Where folds are trained: on this machine (`ThisMachine`) or on those of a cluster."""

    @abstractmethod
    def devices(self) -> list[str]:
        """Return the names of the devices, without initialising them."""

    @abstractmethod
    def jobs(self, folds: int) -> int:
        """Return how many of ``folds`` folds can be trained side by side."""

    @abstractmethod
    def start(self, fold: Fold, order: Order, slot: int, events: Events) -> Worker:
        """Start the training of ``fold``; the worker's messages go to ``events``."""


class _LocalWorker(Worker):
    def __init__(self, fold: Fold, order: Order, slot: int, environment: dict[str, str], events: Events):
        super().__init__(fold, order.jobs, slot)
        self._process = WorkerProcess(
            order, fold.log, environment, lambda message: events.put((self, message))
        )

    def stop(self) -> None:
        self._process.stop()

    def kill(self) -> None:
        self._process.kill()

    def exit_code(self) -> int:
        return self._process.code or 0


class ThisMachine(Machines):
    """This machine: ``jobs`` folds side by side, each on one of its GPUs or with its share of the cores.

    ``jobs`` None: one for each visible GPU.
    """

    def __init__(self, jobs: int | None = None):
        self._jobs = jobs or max(1, len(devices.multiple_gpus()))

    def devices(self) -> list[str]:
        """Return the names of the GPUs, or that of the processor."""
        return list(devices.visible_gpus()) or ["cpu:0"]

    def jobs(self, folds: int) -> int:
        """Return how many of ``folds`` folds are trained side by side."""
        return min(self._jobs, folds)

    def start(self, fold: Fold, order: Order, slot: int, events: Events) -> Worker:
        """Start a process for ``fold``."""
        variables = devices.environment_for(slot, order.jobs, len(devices.visible_gpus()))
        return _LocalWorker(fold, order, slot, variables | worker_environment(fold.run.settings), events)


class ParallelTraining:
    """Train folds in ``jobs`` processes on ``machines``. If one fold fails, the others continue.

    ``deadline``, in ``time.monotonic`` seconds, is for all folds. ``stop`` is called a few times a second; once it
    returns True, workers finish their epoch and no new one starts.
    """

    def __init__(
        self,
        machines: Machines,
        data_dir: Path,
        jobs: int,
        *,
        deadline: float | None,
        reporter: Reporter,
        stop: Callable[[], bool],
    ):
        self._machines, self._data_dir, self._jobs, self._deadline = machines, data_dir, jobs, deadline
        self._reporter, self._stop = reporter, stop
        self._events: Events = queue.Queue()
        self._running: dict[Worker, Replay] = {}
        self._failures: dict[FoldName, NerveError] = {}

    def train(self, folds: list[Fold], portions: list[float]) -> dict[FoldName, NerveError]:
        """Train ``folds`` in this order as slots become free; return the errors of those that failed.

        Each gets its portion, from 0 to 1, of the time left when it starts. On any exception, kill all worker
        processes.
        """
        waiting: deque[tuple[Fold, float]] = deque(zip(folds, portions, strict=True))
        free, stopping = deque(range(self._jobs)), False
        try:
            while self._running or (waiting and not stopping):
                if not stopping and self._stop():
                    stopping = True
                    for worker in self._running:
                        worker.stop()
                while waiting and free and not stopping:
                    self._start(*waiting.popleft(), free.popleft())
                free.extend(self._handle_message())
        finally:
            for worker, replay in self._running.items():
                worker.kill()
                replay.close()
        return self._failures

    def _start(self, fold: Fold, portion: float, slot: int) -> None:
        deadline = None
        if self._deadline is not None:
            now = time.monotonic()
            deadline = now + (self._deadline - now) * portion
        order = Order(
            data_dir=str(self._data_dir.absolute()),
            runs_dir=str(fold.run.folder.parent.absolute()),
            run=fold.run.name,
            fold=fold.number,
            deadline=deadline,
            jobs=self._jobs,
        )
        worker = self._machines.start(fold, order, slot, self._events)
        self._running[worker] = Replay(self._reporter, fold.label)

    def _handle_message(self) -> list[int]:
        """Wait up to `TICK` seconds for a message and handle it; return the slot that became free, if one did."""
        try:
            worker, message = self._events.get(timeout=TICK)
        except queue.Empty:
            return []
        if message is None:
            self._running.pop(worker).close()
            self._record_failure(worker)
            return [worker.slot]
        if message["event"] in ("result", "failed", "crashed", "lost"):
            worker.last_message = message
        else:
            self._running[worker].handle(message)
        return []

    def _record_failure(self, worker: Worker) -> None:
        """Record and report the error of a worker that ended without a result."""
        if worker.last_message.get("event") != "result":
            fault = self._failures[worker.fold.number] = worker.failure()
            self._reporter.say(failure_sentence(worker.fold.number, fault))
