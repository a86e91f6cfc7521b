"""Report the progress of long work without printing: library code gets a Reporter.

The default is silent. The command line passes one that draws bars on standard error, a notebook one that
prints a line now and then.
"""

import time
from collections.abc import Callable


class Bar:
    """Progress bar. Use as a context manager; this base class shows nothing."""

    def update(self, steps: int = 1) -> None:
        """Count ``steps`` more units as done."""

    def note(self, text: str) -> None:
        """Show ``text`` beside the bar, such as the current loss."""

    def expect(self, total: int) -> None:
        """Change the total number of units."""

    def close(self) -> None:
        """Finish the bar."""

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Reporter:
    """Reporter of bars and messages; this base class is silent."""

    def bar(self, label: str, total: int | None, unit: str = "frame") -> Bar:
        """Open a bar of ``total`` units (None: unknown)."""
        return Bar()

    def say(self, text: str) -> None:
        """Show the user one line."""


SILENT = Reporter()


class Prefixed(Reporter):
    """Reporter that puts ``prefix`` before the labels and lines of another one."""

    def __init__(self, reporter: Reporter, prefix: str):
        self._reporter, self._prefix = reporter, prefix

    def bar(self, label: str, total: int | None, unit: str = "frame") -> Bar:
        """Open a bar."""
        return self._reporter.bar(f"{self._prefix}{label}", total, unit)

    def say(self, text: str) -> None:
        """Show one line."""
        self._reporter.say(f"{self._prefix}{text}")


class LogBar(Bar):
    """Bar for a log: prints a line now and then instead of redrawing. ``write`` gets the lines."""

    INTERVAL = 30.0
    """Minimum seconds between two lines."""

    def __init__(self, label: str, total: int | None, unit: str, write: Callable[[str], None]):
        self.label, self.total, self.unit, self.write, self.done = label, total, unit, write, 0
        self.started = self.last_line = time.monotonic()

    def update(self, steps: int = 1) -> None:
        """Count; write a line if the last one is older than `INTERVAL`."""
        self.done += steps
        if time.monotonic() - self.last_line >= self.INTERVAL:
            self.last_line = time.monotonic()
            self._write_line("")

    def note(self, text: str) -> None:
        """Write a line with ``text``."""
        self.last_line = time.monotonic()
        self._write_line(f", {text}")

    def expect(self, total: int) -> None:
        """Change the total."""
        self.total = total

    def close(self) -> None:
        """Write the last line."""
        self._write_line("")

    def _write_line(self, suffix: str) -> None:
        seconds = time.monotonic() - self.started
        total_text = f"/{self.total}" if self.total else ""
        left_text = (
            f", {seconds * (self.total - self.done) / self.done:.0f} s left"
            if self.total and self.done and self.total != self.done
            else ""
        )
        self.write(
            f"{self.label}: {self.done}{total_text} {self.unit}s in {seconds:.0f} s{left_text}{suffix}"
        )
