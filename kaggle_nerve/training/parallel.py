"""Train folds side by side, each in its own process on its own device."""

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kaggle_nerve
from kaggle_nerve import devices, memory
from kaggle_nerve.errors import NerveError
from kaggle_nerve.progress import Reporter
from kaggle_nerve.runs import Fold
from kaggle_nerve.settings.schema import FoldName
from kaggle_nerve.training.deaths import death_sentence, memory_sentence
from kaggle_nerve.training.worker import STOP, Order, Replay

COMMAND = [sys.executable, "-m", "kaggle_nerve.training.worker"]
"""Command that starts a worker process."""

TICK = 0.2
"""Seconds between two checks of whether the user wants to stop."""

Events = queue.Queue[tuple["Worker", dict[str, Any] | None]]
"""Messages from workers; None means that the worker's process ended."""


def failure_sentence(fold: FoldName, fault: NerveError) -> str:
    """Return one sentence that says which fold failed, and why."""
    text = str(fault)
    return text if text.startswith(f"Fold {fold} ") else f"Fold {fold}: {text}"


class Worker:
    """Handle of the process that trains one fold. ``slot``: number of its device."""

    def __init__(self, fold: Fold, order: Order, slot: int, environment: dict[str, str], events: Events):
        self.fold, self.slot, self._jobs, log = fold, slot, order.jobs, fold.log
        self.last_message: dict[str, Any] = {}
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **environment},
                # Ctrl-C reaches every process of the terminal's session; workers must finish their epoch instead.
                start_new_session=True,
            )
        assert self._process.stdin and self._process.stdout
        self._orders, self._messages = self._process.stdin, self._process.stdout
        self._write(order.line())
        threading.Thread(target=self._read, args=(events,), daemon=True).start()

    def stop(self) -> None:
        """Ask the worker to stop after its current epoch."""
        self._write(STOP)

    def kill(self) -> None:
        """Kill the process now. Its checkpoint stays readable."""
        self._process.kill()
        self._process.wait()

    def failure(self) -> NerveError:
        """Describe why the process ended without a result."""
        if self.last_message.get("event") == "failed":
            return NerveError(self.last_message["text"])
        if self.last_message.get("event") != "crashed":
            return NerveError(death_sentence(self.fold, self._jobs, self._process.returncode))
        text = self.last_message["text"]
        if memory.mentions(text):
            return NerveError(memory_sentence(self.fold, self._jobs))
        first_line = (text.splitlines() or [""])[0][:200].rstrip(".")
        return NerveError(f"{self.fold.label} failed ({first_line}); its log: {self.fold.log}")

    def _write(self, line: bytes) -> None:
        # If the worker has ended already, `_read` reports it.
        with contextlib.suppress(BrokenPipeError):
            self._orders.write(line)
            self._orders.flush()

    def _read(self, events: Events) -> None:
        for line in self._messages:
            # A killed process may leave an incomplete line.
            if line.endswith(b"\n"):
                events.put((self, json.loads(line)))
        self._process.wait()
        self._messages.close()
        events.put((self, None))


class ParallelTraining:
    """Train folds in ``jobs`` processes. If one fold fails, the others continue.

    ``deadline``, in ``time.monotonic`` seconds, is for all folds. ``stop`` is called a few times a second; once it
    returns True, workers finish their epoch and no new one starts.
    """

    def __init__(
        self,
        data_dir: Path,
        jobs: int,
        *,
        deadline: float | None,
        reporter: Reporter,
        stop: Callable[[], bool],
    ):
        self._data_dir, self._jobs, self._deadline = data_dir, jobs, deadline
        self._reporter, self._stop = reporter, stop
        self._gpus = len(devices.visible_gpus())
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
        worker = Worker(fold, order, slot, self._environment(fold, slot), self._events)
        self._running[worker] = Replay(self._reporter, fold.label)

    def _environment(self, fold: Fold, slot: int) -> dict[str, str]:
        variables = devices.environment_for(slot, self._jobs, self._gpus)
        # The worker must import the same package as this process.
        package = str(Path(kaggle_nerve.__file__).parents[1])
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
        if fold.run.settings.training.deterministic:
            variables |= devices.deterministic_environment(os.environ)
        return variables

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
        if message["event"] in ("result", "failed", "crashed"):
            worker.last_message = message
        else:
            self._running[worker].handle(message)
        return []

    def _record_failure(self, worker: Worker) -> None:
        """Record and report the error of a worker that ended without a result."""
        if worker.last_message.get("event") != "result":
            fault = self._failures[worker.fold.number] = worker.failure()
            self._reporter.say(failure_sentence(worker.fold.number, fault))
