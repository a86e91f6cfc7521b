"""A subprocess with a hard time limit, whose whole group is gone whatever happens."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

GLANCE = 0.2
"""Seconds between two looks at a running process."""


@dataclass(frozen=True)
class Finished:
    """How a process ended. ``code`` is None if the time limit ended it."""

    code: int | None
    out: str
    err: str

    @property
    def text(self) -> str:
        """Everything that it wrote."""
        return f"{self.out}\n{self.err}"


def run(
    command: Sequence[str],
    environment: Mapping[str, str],
    limit: float,
    watch: Callable[[str], None] = lambda _: None,
) -> Finished:
    """Run to the end, or for ``limit`` seconds.

    ``watch`` gets what was written so far, several times a second; an exception from it, like Ctrl-C, ends the
    process and goes on to the caller.
    """
    held, pipe = os.pipe()
    try:
        process = subprocess.Popen(
            command,
            env=dict(environment),
            stdin=held,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except BaseException:
        os.close(pipe)
        raise
    finally:
        os.close(held)
    try:
        return _attend(process, time.monotonic() + limit, watch)
    finally:
        _end(process)
        os.close(pipe)


def _attend(process: subprocess.Popen[bytes], end: float, watch: Callable[[str], None]) -> Finished:
    while True:
        try:
            out, err = process.communicate(timeout=GLANCE)
        except subprocess.TimeoutExpired as running:
            so_far = _decoded(running.output), _decoded(running.stderr)
            watch("\n".join(so_far))
            if time.monotonic() > end:
                return Finished(None, *so_far)
        else:
            return Finished(process.returncode, _decoded(out), _decoded(err))


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with suppress(ProcessLookupError, PermissionError):
            if os.name == "nt":
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def _decoded(data: bytes | str | None) -> str:
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data or ""
    return text.replace("\r\n", "\n")
