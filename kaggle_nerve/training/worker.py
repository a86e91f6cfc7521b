"""A process that trains one fold for the one that started it: ``python -m kaggle_nerve.training.worker``.

Its standard input brings the order, one line of JSON; later perhaps the line ``stop``; its end means
that nobody waits for this process any more. Its standard output carries `messages`, and at last one of
``result``, ``failed`` (a NerveError) or ``crashed``. Its standard error is a log file.
"""

import json
import os
import sys
import threading
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from kaggle_nerve.errors import NerveError
from kaggle_nerve.settings.schema import FoldName
from kaggle_nerve.training.messages import PipeReporter

if TYPE_CHECKING:
    from kaggle_nerve.training.fold import FoldResult

STOP = b"stop\n"


@dataclass(frozen=True)
class Order:
    """Which fold of which run. ``ends``: seconds since the epoch (``time.time``) when it has to be done.

    ``jobs`` is how many folds are trained side by side.
    """

    data_dir: str
    runs_dir: str
    run: str
    fold: FoldName
    ends: float | None
    jobs: int

    def line(self) -> bytes:
        """As the worker reads it."""
        return json.dumps(asdict(self)).encode() + b"\n"


def main() -> int:
    """Train the fold; returns the exit code."""
    orders, pipe = os.fdopen(0, "rb", buffering=0), _private_output()
    order = Order(**json.loads(orders.readline()))
    reporter, stopping = PipeReporter(pipe), threading.Event()
    threading.Thread(target=_listen, args=(orders, stopping), daemon=True).start()
    try:
        result = _train(order, reporter, stopping)
    except NerveError as fault:
        reporter.send("failed", text=str(fault))
        return 1
    except Exception as fault:
        traceback.print_exc()
        reporter.send("crashed", text=f"{type(fault).__name__}: {fault}")
        return 1
    reporter.send("result", **asdict(result))
    return 0


def _train(order: Order, reporter: PipeReporter, stopping: threading.Event) -> "FoldResult":
    # Imported here: the end of the standard input must be noticed during these seconds, too.
    from kaggle_nerve import runs
    from kaggle_nerve.training import material

    run = runs.open_run(Path(order.runs_dir), order.run)
    data_dir = Path(order.data_dir)
    found = material.gather(run, data_dir, material.open_frames(data_dir, run.settings))
    budget = None if order.ends is None else order.ends - time.time()
    job = found.job(order.fold, budget=budget, reporter=reporter, stop=stopping.is_set)
    return material.train(job, order.jobs)


def _private_output() -> BinaryIO:
    """The pipe to the other process; what libraries print goes to the log instead of between the messages."""
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return pipe


def _listen(orders: BinaryIO, stopping: threading.Event) -> None:
    while line := orders.readline():
        if line == STOP:
            stopping.set()
    # The checkpoint is whole at every moment, and an orphan would hold the fold's lock for hours.
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
