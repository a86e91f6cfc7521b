"""Tell the user of a command that dies without a word: a small child process watches it.

A signal of the system's or a library's, mostly for lack of memory, leaves the command no moment to speak.
"""

import os
import signal
from collections.abc import Callable
from contextlib import suppress

MEMORY = (
    "The machine's memory, or its accelerator's, does not suffice for this command: end other programs that use it, or "
    "run the same command on a machine with more; what is finished is kept."
)


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
        _watch(reader, f"Error: {command} was ended by a signal; if you did not end it: {MEMORY}\n")
    os.close(reader)

    def dismiss() -> None:
        with suppress(OSError):
            os.write(writer, b".")
            os.close(writer)
            os.waitpid(watcher, 0)

    return dismiss


def _watch(reader: int, sentence: str) -> None:
    """Wait for the end of the other process, then end; never return."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, signal.SIG_IGN)
        # Whoever reads the command's output must not wait for this process.
        for descriptor in (0, 1):
            os.close(descriptor)
        if not os.read(reader, 1):
            os.write(2, sentence.encode())
    finally:
        os._exit(0)
