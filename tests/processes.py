"""Processes of tests: waiting for what they do, killing them at it, whether they have gone."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path


def wait_until(true: Callable[[], bool], otherwise: Callable[[], str] | str, seconds: float = 120) -> None:
    """Wait, or fail with ``otherwise``, which is asked then if it can be."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, otherwise() if callable(otherwise) else otherwise
        time.sleep(0.005)


def kill_when(command: list[str], ready: Callable[[], bool]) -> None:
    """Start Python with ``command`` and kill -9 it as soon as ``ready()`` holds."""
    process = subprocess.Popen([sys.executable, "-c", *command])
    wait_until(lambda: ready() or process.poll() is not None, "it could never be killed", seconds=240)
    assert process.poll() is None, "it ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()


def is_gone(pid: int) -> bool:
    """Whether the process has ended, reaped or not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return not Path(f"/proc/{os.getpid()}").exists()
