"""Runs the official client, and ends it as soon as the process that started it is gone.

Started by its path, as a program of its own; it knows nothing of this package. Standard input is a pipe whose
other end the starter holds: when the starter dies, however it dies, the pipe ends. Without this a client would
live on after ``kill -9``, write to an archive that the next run writes to as well, or submit unseen.

The client often prints the server's message without the HTTP status, and each version in other words. So this
program reads urllib3's log, and adds a last line to standard error if the last answer was an error:
``kaggle-nerve: HTTP 503``.
"""

import atexit
import logging
import os
import runpy
import sys
import threading


def end_with_starter() -> None:
    """Wait until the pipe ends, then leave without any further step."""
    while os.read(0, 1024):
        pass
    os._exit(1)


class LastStatus(logging.Handler):
    """Keeps the status of the newest HTTP answer in urllib3's log."""

    status = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the status, if this is the record of an answer."""
        # Its text is '%s://%s:%s "%s %s %s" %s %s'; the last two are status and length.
        if isinstance(record.args, tuple) and len(record.args) == 8 and isinstance(record.args[6], int):
            self.status = record.args[6]

    def report(self) -> None:
        """Write the status if it is an error's."""
        if self.status >= 400:
            sys.stderr.write(f"\nkaggle-nerve: HTTP {self.status}\n")


if __name__ == "__main__":
    threading.Thread(target=end_with_starter, daemon=True).start()
    last = LastStatus()
    log = logging.getLogger("urllib3.connectionpool")
    log.addHandler(last)
    log.setLevel(logging.DEBUG)
    log.propagate = False
    atexit.register(last.report)
    runpy.run_module("kaggle", run_name="__main__", alter_sys=True)
