"""How library code tells of long work without printing: it is handed a Reporter.

The default reports nothing. The command line passes one that draws bars on standard error, a notebook one
that prints a line now and then.
"""

import time
from collections.abc import Callable


class Bar:
    """One running count. Use as a context manager; this base class shows nothing."""

    def update(self, steps: int = 1) -> None:
        """Count ``steps`` more units as done."""

    def note(self, text: str) -> None:
        """Show ``text`` beside the bar, such as the current loss."""

    def expect(self, total: int) -> None:
        """Change the number of units that there are in all."""

    def close(self) -> None:
        """Finish the bar."""

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Reporter:
    """Makes bars and takes messages; this base class is silent."""

    def bar(self, label: str, total: int | None, unit: str = "frame") -> Bar:
        """A bar of ``total`` units (None: unknown)."""
        return Bar()

    def say(self, text: str) -> None:
        """Tell the user one line."""


SILENT = Reporter()


class LoggedBar(Bar):
    """For a log: a line now and then instead of a bar that redraws itself. ``write`` gets the lines."""

    EVERY = 30.0
    """Seconds between two lines."""

    def __init__(self, label: str, total: int | None, unit: str, write: Callable[[str], None]):
        self.label, self.total, self.unit, self.write, self.done = label, total, unit, write, 0
        self.started = self.told = time.monotonic()

    def update(self, steps: int = 1) -> None:
        """Count; write a line if the last one is old."""
        self.done += steps
        if time.monotonic() - self.told >= self.EVERY:
            self.told = time.monotonic()
            self._tell("")

    def note(self, text: str) -> None:
        """Write it on a line of its own."""
        self.told = time.monotonic()
        self._tell(f", {text}")

    def expect(self, total: int) -> None:
        """Change the total."""
        self.total = total

    def close(self) -> None:
        """Write how it ended."""
        self._tell("")

    def _tell(self, more: str) -> None:
        seconds = time.monotonic() - self.started
        whole = f"/{self.total}" if self.total else ""
        left = (
            f", {seconds * (self.total - self.done) / self.done:.0f} s left"
            if self.total and self.done and self.total != self.done
            else ""
        )
        self.write(f"{self.label}: {self.done}{whole} {self.unit}s in {seconds:.0f} s{left}{more}")
