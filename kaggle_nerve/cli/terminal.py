"""What a terminal shows of long work, and Ctrl-C that lets an epoch finish."""

import signal
import sys
from types import FrameType

import click
from tqdm import tqdm

from kaggle_nerve.progress import Bar, Reporter


class TerminalBar(Bar):
    """A tqdm bar on standard error; in a log file it writes a line a minute instead of thousands."""

    def __init__(self, label: str, total: int | None, unit: str):
        live = sys.stderr.isatty()
        self._bar = tqdm(
            desc=label,
            total=total,
            unit=unit,
            file=sys.stderr,
            mininterval=0.2 if live else 60,
            maxinterval=1 if live else 60,
            dynamic_ncols=live,
            leave=True,
        )

    def update(self, steps: int = 1) -> None:
        """Count."""
        self._bar.update(steps)

    def note(self, text: str) -> None:
        """Show beside the bar; in a log file, on a line of its own."""
        if sys.stderr.isatty():
            self._bar.set_postfix_str(text)
        else:
            tqdm.write(f"{self._bar.desc}: {text}", file=sys.stderr)

    def close(self) -> None:
        """End the bar where it stands."""
        self._bar.close()


class TerminalReporter(Reporter):
    """Bars and lines on standard error, so that standard output holds the answer alone."""

    def bar(self, label: str, total: int | None, unit: str = "frame") -> Bar:
        """A new bar."""
        return TerminalBar(label, total, unit)

    def say(self, text: str) -> None:
        """One line."""
        tqdm.write(text, file=sys.stderr)


class GentleInterrupt:
    """Ctrl-C once asks for a stop after the epoch, twice stops at once. A context manager."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> "GentleInterrupt":
        self._before = signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def stop(self) -> bool:
        """Whether a stop was asked for."""
        return self.asked

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        click.echo("\nFinishing this epoch, then stopping; press Ctrl-C again to stop at once.", err=True)
