"""Tell the user of a command that dies without a word: a small child process watches it.

A signal of the system's or a library's, mostly for lack of memory, leaves the command no moment to speak.
"""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

MEMORY = (
    "The machine's memory, or its accelerator's, does not suffice for this command: end other programs that use it, or "
    "run the same command on a machine with more; what is finished is kept."
)

CLUSTER = (
    "The head of the cluster, or Ray on this machine, has gone, or this machine's memory does not suffice: see `ray "
    "status`, and run the same command again, which goes on after the epochs that came back."
)

_WRITERS: list[int] = []
"""Where the watching process of this one listens, if there is one."""


def start(command: str) -> Callable[[], None]:
    """Start the watching process; return the function that dismisses it.

    If this process dies before, the other one writes a sentence on ``command`` to standard error.
    """
    if not hasattr(os, "fork"):
        return lambda: None
    reader, writer = os.pipe()
    watcher = os.fork()
    if not watcher:
        os.close(writer)
        _watch(reader, f"Error: {command} was ended by a signal; if you did not end it: ")
    os.close(reader)
    _WRITERS.append(writer)

    def dismiss() -> None:
        with suppress(OSError):
            _WRITERS.remove(writer)
            os.write(writer, b"\0")
            os.close(writer)
            os.waitpid(watcher, 0)

    return dismiss


@contextmanager
def expect(cause: str) -> Iterator[None]:
    """Make ``cause`` the likely one of a death during the block."""
    _suspect(cause)
    try:
        yield
    finally:
        _suspect(MEMORY)


def _suspect(cause: str) -> None:
    for writer in _WRITERS:
        with suppress(OSError):
            os.write(writer, cause.encode() + b"\n")


def _watch(reader: int, beginning: str) -> None:
    """Wait for the end of the other process, then end; never return.

    Each line that it writes replaces the end of the sentence, and a zero byte says that there is nothing to say.
    """
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
        # Whoever reads the command's output must not wait for this process.
        for descriptor in (0, 1):
            os.close(descriptor)
        with os.fdopen(reader, "rb") as lines:
            text = lines.read()
        if not text.endswith(b"\0"):
            cause = text.splitlines()[-1].decode() if text else MEMORY
            os.write(2, f"{beginning}{cause}\n".encode())
    finally:
        os._exit(0)
