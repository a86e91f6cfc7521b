"""Commands as people give them in a folder, run in this process: another one starts for half a second."""

import contextlib
from pathlib import Path

from click.testing import CliRunner, Result

from kaggle_nerve.cli import cli


def command(folder: Path, *words: str | Path, code: int = 0) -> Result:
    """Give ``kaggle-nerve WORDS`` in ``folder``; it ends with ``code``, and with a sentence where that is not 0."""
    with contextlib.chdir(folder):
        done = CliRunner().invoke(cli, [*map(str, words)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return done
