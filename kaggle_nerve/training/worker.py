"""Worker process that trains one fold for its parent process: ``python -m kaggle_nerve.training.worker``.

Standard input carries the order, one line of JSON, and later perhaps the line ``stop``; end of file means that the
parent is gone. Standard output carries messages, one JSON object per line; the last message is ``result``, ``failed``
(a NerveError) or ``crashed``. Standard error is a log file.
"""

import itertools
import json
import os
import sys
import threading
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from kaggle_nerve.disk import disk_sentence
from kaggle_nerve.errors import NerveError
from kaggle_nerve.progress import Bar, Reporter
from kaggle_nerve.runs import open_run
from kaggle_nerve.settings.schema import FoldName

STOP = b"stop\n"

BAR_SECONDS = 0.2
"""Seconds between two updates of a bar: a small network takes hundreds of steps in a second."""


@dataclass(frozen=True)
class Order:
    """Order to train one fold.

    ``deadline``: when training must end, in ``time.monotonic`` seconds, which all processes share. ``jobs``: how
    many folds are trained side by side.
    """

    data_dir: str
    runs_dir: str
    run: str
    fold: FoldName
    deadline: float | None
    jobs: int

    def line(self) -> bytes:
        """Encode the order as the worker reads it."""
        return json.dumps(asdict(self)).encode() + b"\n"


class PipeReporter(Reporter):
    """Reporter that writes its calls to ``pipe``; `Replay` repeats them on the other side."""

    def __init__(self, pipe: BinaryIO):
        self._pipe = pipe
        self._numbers = itertools.count()

    def send(self, event: str, **values: Any) -> None:
        """Send one message."""
        self._pipe.write(json.dumps({"event": event, **values}).encode() + b"\n")
        self._pipe.flush()

    def bar(self, label: str, total: int | None, unit: str = "frame") -> Bar:
        """Open a bar on the other side."""
        number = next(self._numbers)
        self.send("bar", bar=number, label=label, total=total, unit=unit)
        return _PipeBar(self, number)

    def say(self, text: str) -> None:
        """Print a line on the other side."""
        self.send("say", text=text)


class _PipeBar(Bar):
    def __init__(self, reporter: PipeReporter, number: int):
        self._reporter, self._number = reporter, number
        self._steps, self._sent = 0, time.monotonic()

    def update(self, steps: int = 1) -> None:
        self._steps += steps
        if time.monotonic() - self._sent >= BAR_SECONDS:
            self._send_steps()

    def note(self, text: str) -> None:
        self._send_steps()
        self._reporter.send("note", bar=self._number, text=text)

    def expect(self, total: int) -> None:
        self._reporter.send("expect", bar=self._number, total=total)

    def close(self) -> None:
        self._send_steps()
        self._reporter.send("close", bar=self._number)

    def _send_steps(self) -> None:
        if self._steps:
            self._reporter.send("update", bar=self._number, steps=self._steps)
        self._steps, self._sent = 0, time.monotonic()


class Replay:
    """Repeat one worker's messages on ``reporter``, with ``label`` prepended to lines that do not begin with it."""

    def __init__(self, reporter: Reporter, label: str):
        self._reporter, self._label = reporter, label
        self._bars: dict[int, Bar] = {}

    def handle(self, message: dict[str, Any]) -> None:
        """Repeat one message; ``restart`` says that another process goes on, and closes the bars."""
        event = message["event"]
        if event == "restart":
            self.close()
            return
        if event == "say":
            text = message["text"]
            self._reporter.say(text if text.startswith(self._label) else f"{self._label}: {text}")
        elif event == "bar":
            bar = self._reporter.bar(message["label"], message["total"], message["unit"])
            self._bars[message["bar"]] = bar
        elif event == "close":
            self._bars.pop(message["bar"]).close()
        elif event == "update":
            self._bars[message["bar"]].update(message["steps"])
        elif event == "expect":
            self._bars[message["bar"]].expect(message["total"])
        else:
            self._bars[message["bar"]].note(message["text"])

    def close(self) -> None:
        """Close the bars that a killed process left open."""
        while self._bars:
            self._bars.popitem()[1].close()


def main() -> int:
    """Train the fold; return the exit code."""
    orders, pipe = os.fdopen(0, "rb", buffering=0), _private_output()
    order = Order(**json.loads(orders.readline()))
    reporter, stopping = PipeReporter(pipe), threading.Event()
    threading.Thread(target=_listen, args=(orders, stopping), daemon=True).start()
    try:
        _train(order, reporter, stopping)
    except NerveError as fault:
        reporter.send("failed", text=str(fault))
        return 1
    except Exception as fault:
        traceback.print_exc()
        if isinstance(fault, OSError) and (sentence := disk_sentence(fault)):
            reporter.send("failed", text=sentence)
            return 1
        reporter.send("crashed", text=f"{type(fault).__name__}: {fault}")
        return 1
    reporter.send("result")
    return 0


def _train(order: Order, reporter: PipeReporter, stopping: threading.Event) -> None:
    # Deferred: these imports take seconds, and end of file on standard input must be noticed meanwhile.
    from kaggle_nerve.training.fold import train_fold
    from kaggle_nerve.training.job import FoldJob, load_folds, open_frames

    run = open_run(Path(order.runs_dir), order.run)
    frames = open_frames(Path(order.data_dir), run.settings, reporter=reporter)
    fold, folds = run.fold(order.fold), load_folds(run, frames)
    train_fold(FoldJob(fold, frames, folds, order.deadline, reporter, stopping.is_set), order.jobs)


def _private_output() -> BinaryIO:
    """Return the pipe to the parent; redirect what libraries print to the log, away from the messages."""
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return pipe


def _listen(orders: BinaryIO, stopping: threading.Event) -> None:
    while line := orders.readline():
        if line == STOP:
            stopping.set()
    # Exiting is safe at any moment thanks to the checkpoint; an orphan would hold the fold's lock for hours.
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
