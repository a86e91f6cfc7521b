"""The command line: parse, call one function, print. Heavy modules are imported inside the commands."""

import io
import os
import re
import sys

import click

from kaggle_nerve import __version__, memory
from kaggle_nerve.cli import (
    audit,
    data,
    decide,
    doctor,
    kernels,
    rehearse,
    report,
    search,
    submissions,
    submit,
    training,
    watch,
)
from kaggle_nerve.disk import disk_sentence
from kaggle_nerve.errors import NerveError

QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "OPENCV_LOG_LEVEL": "SILENT"}
"""Silences the frameworks' own log lines; must be set before they are imported."""

UNLOCKED = {"HDF5_USE_FILE_LOCKING": "FALSE"}
"""Lets HDF5 write where the file system has no locks. Each fold and run has a lock of its own."""

SURROGATE = re.compile("[\udc80-\udcff]")
"""Python's stand-in for a byte of a file name that is not UTF-8."""


class Commands(click.Group):
    """Reports errors that a user can act on as one sentence, with exit code 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the commands in the order of the workflow."""
        return list(self.commands)

    def invoke(self, ctx: click.Context):
        """Run the command."""
        try:
            return super().invoke(ctx)
        except NerveError as fault:
            raise click.ClickException(str(fault)) from fault
        except OSError as fault:
            sentence = disk_sentence(fault)
            if sentence is None:
                raise
            raise click.ClickException(sentence) from fault
        except UnicodeEncodeError as fault:
            raise click.ClickException(_name_sentence(fault)) from fault
        except click.ClickException:
            raise
        except Exception as fault:
            if not memory.is_exhausted(fault):
                raise
            raise click.ClickException(watch.MEMORY) from fault


def _name_sentence(fault: UnicodeEncodeError) -> str:
    """Explain a file name that tables and libraries cannot hold: Python keeps its stray bytes as surrogates."""
    if not SURROGATE.match(fault.object[fault.start]):
        raise fault
    name = max(re.split(r"[\s,/\"']", fault.object), key=lambda part: len(SURROGATE.findall(part)))
    return (
        f"The name {name!r} is not UTF-8, and not everything here can work with it: rename that file or folder, and "
        "run the same command again."
    )


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="kaggle-nerve")
def cli() -> None:
    """From Kaggle's Ultrasound Nerve Segmentation files to a score on its leaderboard.

    \b
    kaggle-nerve fetch                        download and verify the competition's data
    kaggle-nerve train-folds --preset small   train a U-Net ensemble over patient-grouped folds
    kaggle-nerve submit --run small           masks -> CSV -> upload -> score in the ledger

    No account? `kaggle-nerve rehearse` runs the whole job against a rehearsal of Kaggle on this machine.
    """
    for name, value in (QUIET | UNLOCKED).items():
        os.environ.setdefault(name, value)


for command in (
    data.fetch,
    data.verify,
    audit.audit,
    training.presets,
    training.train_folds,
    search.search,
    decide.predict,
    decide.tune,
    submit.submit,
    submit.validate,
    submit.score,
    report.report,
    submissions.submissions,
    kernels.kernels,
    rehearse.rehearse,
    doctor.doctor,
):
    cli.add_command(command)


def main() -> None:
    """Run the console script."""
    for stream in (sys.stdout, sys.stderr):
        # A name in another encoding must not end a command that has done its work.
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")
    dismiss = watch.start(f"kaggle-nerve {' '.join(sys.argv[1:2])}".strip())
    try:
        _main()
    finally:
        dismiss()


def _main() -> None:
    try:
        sys.exit(cli.main(prog_name="kaggle-nerve", standalone_mode=False) or 0)
    except click.ClickException as fault:
        fault.show()
        sys.exit(fault.exit_code)
    except click.Abort:
        click.echo("\nStopped. Finished work is kept; the same command goes on from there.", err=True)
        sys.exit(130)
