"""Options shared by several commands, and values that need parsing."""

import json
import os
import re
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from kaggle_nerve.competition.facts import SAMPLE_CSV, SLUG
from kaggle_nerve.errors import NerveError

FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)

data_option = click.option(
    "--data",
    "data_dir",
    type=FOLDER,
    default=lambda: Path(os.environ.get("KAGGLE_NERVE_DATA") or f"data/{SLUG}"),
    help=f"The competition's data.  [default: $KAGGLE_NERVE_DATA, else data/{SLUG}]",
)
runs_option = click.option(
    "--runs", "runs_dir", type=FOLDER, default="runs", show_default=True, help="Folder of runs."
)
submissions_option = click.option(
    "--submissions",
    "submissions_dir",
    type=FOLDER,
    default="submissions",
    show_default=True,
    help="Folder of CSV files and the ledger.",
)
run_option = click.option(
    "--run", "run_name", required=True, metavar="NAME", help="The run, as train-folds named it."
)
sample_option = click.option(
    "--sample", type=FILE, help="sample_submission.csv.  [default: the one in --data, if there]"
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
force_option = click.option("--force", is_flag=True, help="Do it again even if it is finished.")
workers_option = click.option(
    "--workers",
    type=click.IntRange(1),
    default=os.cpu_count() or 2,
    help="Threads for files.  [default: all]",
)


class Duration(click.ParamType):
    """A duration such as ``90s``, ``30m``, ``1.5h``, or plain minutes such as ``45``; converts to seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Convert a text to seconds."""
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|h|)", value.strip())
        if not match or not float(match[1]):
            self.fail(f"{value!r} is not a duration; write 90s, 30m or 1.5h", param, ctx)
        return float(match[1]) * {"s": 1, "m": 60, "h": 3600, "": 60}[match[2]]


def sample_or_default(sample: Path | None, data_dir: Path) -> Path | None:
    """Return the file of `sample_option`: the named one, else the one in ``data_dir``, else None.

    Raises NerveError if the user named a --data that has none: the check would be weaker than requested.
    """
    if sample is not None:
        return sample
    default = data_dir / SAMPLE_CSV
    if default.is_file():
        return default
    if click.get_current_context().get_parameter_source("data_dir") is ParameterSource.COMMANDLINE:
        raise NerveError(
            f"{default} is missing; name the competition's folder with --data, or the file with --sample."
        )
    return None


def print_json(value: Any) -> None:
    """Print one JSON document on standard output."""
    click.echo(json.dumps(value, indent=2))


SHOWN = 20
"""Maximum number of problems to print; the rest is only counted."""


def echo_rest(count: int) -> None:
    """Print how many problems were not shown."""
    if count > SHOWN:
        click.echo(f"... and {count - SHOWN} more.")
