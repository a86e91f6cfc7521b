"""Progress on a terminal, and a Ctrl-C that lets the epoch finish."""

import signal
import sys
from types import FrameType

import click
from tqdm import tqdm

from kaggle_nerve.progress import Bar, LogBar, Reporter

TEXT_FIRST = "{desc}: {n_fmt}/{total_fmt} {remaining}{postfix} {bar}"
"""Format of bars: the bar itself comes last and takes what room is left, so that no figure is cut off at 80 columns."""


class LiveBar(Bar):
    """A tqdm bar on a terminal."""

    def __init__(self, label: str, total: int | None, unit: str):
        form = TEXT_FIRST if total else None
        self._bar = tqdm(
            desc=label, total=total, unit=unit, file=sys.stderr, dynamic_ncols=True, bar_format=form
        )

    def update(self, steps: int = 1) -> None:
        """Advance the bar."""
        self._bar.update(steps)

    def note(self, text: str) -> None:
        """Show ``text`` beside the bar."""
        self._bar.set_postfix_str(text)

    def expect(self, total: int) -> None:
        """Change the total."""
        self._bar.total = total
        self._bar.refresh()

    def close(self) -> None:
        """Close the bar at its current position."""
        self._bar.close()


class TerminalReporter(Reporter):
    """Reports bars and lines on standard error, so that standard output holds only the result."""

    def bar(self, label: str, total: int | None, unit: str = "frame") -> Bar:
        """Return a new bar."""
        if sys.stderr.isatty():
            return LiveBar(label, total, unit)
        return LogBar(label, total, unit, lambda line: click.echo(line, err=True))

    def say(self, text: str) -> None:
        """Print one line."""
        tqdm.write(text, file=sys.stderr)


class GentleInterrupt:
    """Context manager for Ctrl-C and SIGTERM: once requests a stop after the epoch, twice stops at once."""

    SIGNALS = signal.SIGINT, signal.SIGTERM

    def __init__(self) -> None:
        self.stop_requested = False

    def __enter__(self) -> "GentleInterrupt":
        self._before = {number: signal.signal(number, self._request_stop) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def stop(self) -> bool:
        """Tell whether a stop was requested."""
        return self.stop_requested

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        if self.stop_requested:
            raise KeyboardInterrupt
        self.stop_requested = True
        click.echo("\nFinishing this epoch, then stopping; press Ctrl-C again to stop at once.", err=True)
