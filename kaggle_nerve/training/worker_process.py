"""Start, stop and listen to a worker process, which trains one fold."""

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kaggle_nerve
from kaggle_nerve import devices
from kaggle_nerve.settings import Settings
from kaggle_nerve.training.worker import STOP, Order

COMMAND = [sys.executable, "-m", "kaggle_nerve.training.worker"]
"""Command that starts a worker process."""

OnMessage = Callable[[dict[str, Any] | None], None]
"""Receives each message of a process from a thread; None once the process has ended."""


class WorkerProcess:
    """A process that trains the fold of ``order``; ``log`` receives its standard error.

    ``environment``: variables besides those of this process. ``folder``: its working folder, by default this
    process's.
    """

    def __init__(
        self,
        order: Order,
        log: Path,
        environment: dict[str, str],
        on_message: OnMessage,
        folder: Path | None = None,
    ):
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={**os.environ, **environment},
                cwd=folder,
                # Ctrl-C reaches every process of the terminal's session; workers must finish their epoch instead.
                start_new_session=True,
            )
        assert self._process.stdin and self._process.stdout
        self._orders, self._messages = self._process.stdin, self._process.stdout
        self._write(order.line())
        threading.Thread(target=self._read, args=(on_message,), daemon=True).start()

    @property
    def code(self) -> int | None:
        """Exit code of the process, negative for a signal; None while it runs."""
        return self._process.returncode

    def stop(self) -> None:
        """Ask the worker to stop after its current epoch."""
        self._write(STOP)

    def kill(self) -> None:
        """Kill the process now. Its checkpoint stays readable."""
        self._process.kill()
        self._process.wait()

    def _write(self, line: bytes) -> None:
        # If the worker has ended already, `_read` reports it.
        with contextlib.suppress(BrokenPipeError):
            self._orders.write(line)
            self._orders.flush()

    def _read(self, on_message: OnMessage) -> None:
        for line in self._messages:
            # A killed process may leave an incomplete line.
            if line.endswith(b"\n"):
                on_message(json.loads(line))
        self._process.wait()
        self._messages.close()
        on_message(None)


def worker_environment(settings: Settings) -> dict[str, str]:
    """Return the variables that every worker needs: the package of this process, and determinism if it is set."""
    package = str(Path(kaggle_nerve.__file__).parents[1])
    variables = {"PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))}
    if settings.training.deterministic:
        variables |= devices.deterministic_environment(os.environ)
    return variables
