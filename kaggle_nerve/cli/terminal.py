"""What a terminal shows of long work, and Ctrl-C that lets an epoch finish."""

import logging
import os
import signal
import sys
import tempfile
from types import FrameType

import click
from tqdm import tqdm

from kaggle_nerve import devices
from kaggle_nerve.progress import Bar, LoggedBar, Reporter


def load_keras(*, deterministic: bool = False) -> None:
    """Import Keras and wake its device without the backend's start-up lines.

    TensorFlow writes them before its log level counts, straight to the process's standard error. They
    are shown where the import fails. Of several GPUs none is woken: who wakes them takes their memory,
    and each is for a process of its own. ``deterministic`` counts from the first use of the device.
    """
    # Several models are each traced once, of which TensorFlow warns as of one that is traced again and again.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as lines:
        os.dup2(lines.fileno(), 2)
        try:
            import keras

            if deterministic:
                devices.make_deterministic()
            if not devices.several():
                keras.ops.convert_to_numpy(keras.ops.zeros(1))
        except BaseException:
            lines.seek(0)
            os.write(kept, lines.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


class LiveBar(Bar):
    """A tqdm bar on a terminal."""

    def __init__(self, label: str, total: int | None, unit: str):
        self._bar = tqdm(desc=label, total=total, unit=unit, file=sys.stderr, dynamic_ncols=True)

    def update(self, steps: int = 1) -> None:
        """Count."""
        self._bar.update(steps)

    def note(self, text: str) -> None:
        """Show beside the bar."""
        self._bar.set_postfix_str(text)

    def expect(self, total: int) -> None:
        """Change the total."""
        self._bar.total = total
        self._bar.refresh()

    def close(self) -> None:
        """End the bar where it stands."""
        self._bar.close()


class TerminalReporter(Reporter):
    """Bars and lines on standard error, so that standard output holds the answer alone."""

    def bar(self, label: str, total: int | None, unit: str = "frame") -> Bar:
        """A new bar."""
        if sys.stderr.isatty():
            return LiveBar(label, total, unit)
        return LoggedBar(label, total, unit, lambda line: click.echo(line, err=True))

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
