"""Progress and results of a fold in another process: one JSON object a line, down a pipe."""

import itertools
import json
import time
from typing import Any, BinaryIO

from kaggle_nerve.progress import Bar, Reporter

EVERY = 0.2
"""Seconds between two counts of a bar: a small network takes hundreds of steps in a second."""


class PipeReporter(Reporter):
    """Writes what it is told to ``pipe``; `Replay` reads it on the other side."""

    def __init__(self, pipe: BinaryIO):
        self._pipe = pipe
        self._numbers = itertools.count()

    def send(self, event: str, **values: Any) -> None:
        """One message."""
        self._pipe.write(json.dumps({"event": event, **values}).encode() + b"\n")
        self._pipe.flush()

    def bar(self, label: str, total: int | None, unit: str = "frame") -> Bar:
        """A bar on the other side."""
        number = next(self._numbers)
        self.send("bar", bar=number, label=label, total=total, unit=unit)
        return _PipeBar(self, number)

    def say(self, text: str) -> None:
        """A line on the other side."""
        self.send("say", text=text)


class _PipeBar(Bar):
    def __init__(self, reporter: PipeReporter, number: int):
        self._reporter, self._number = reporter, number
        self._steps, self._sent = 0, time.monotonic()

    def update(self, steps: int = 1) -> None:
        self._steps += steps
        if time.monotonic() - self._sent >= EVERY:
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
    """Tells ``reporter`` what one process sent. Lines that do not begin with ``label`` get it in front."""

    def __init__(self, reporter: Reporter, label: str):
        self._reporter, self._label = reporter, label
        self._bars: dict[int, Bar] = {}

    def take(self, message: dict[str, Any]) -> None:
        """Pass one message on."""
        event = message["event"]
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
        """End the bars that the process left open: it was killed."""
        while self._bars:
            self._bars.popitem()[1].close()
