"""Runs the official client, and ends it as soon as the process that started it is gone.

Started by its path, as a program of its own; it knows nothing of this package. Standard input is a pipe whose
other end the starter holds: when the starter dies, however it dies, the pipe ends. Without this a client would
live on after ``kill -9``, write to an archive that the next run writes to as well, or submit unseen.
"""

import os
import runpy
import threading


def end_with_starter() -> None:
    """Wait until the pipe ends, then leave without any further step."""
    while os.read(0, 1024):
        pass
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=end_with_starter, daemon=True).start()
    runpy.run_module("kaggle", run_name="__main__", alter_sys=True)
