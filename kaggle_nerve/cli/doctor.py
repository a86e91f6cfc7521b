"""The command `doctor`: show what is installed, what is missing, and what to do about it."""

import os
import shutil
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click

from kaggle_nerve import devices
from kaggle_nerve.cli import options
from kaggle_nerve.errors import NerveError

PACKAGES = (
    "keras",
    "tensorflow",
    "numpy",
    "pandas",
    "opencv-python-headless",
    "scikit-learn",
    "kaggle",
    "six",
)


@click.command()
@options.data_option
@options.json_option
def doctor(data_dir: Path, as_json: bool) -> None:
    """Show versions, backend, devices, credentials (never their value), data and disk.

    \b
    Example: kaggle-nerve doctor
    """
    rows, advice = _versions(), []
    _client(advice)
    rows |= _devices(advice)
    rows |= _credentials(advice)
    rows |= _data(data_dir, advice)
    if as_json:
        options.print_json({"found": rows, "advice": advice})
        return
    for name, value in rows.items():
        click.echo(f"{name:<24} {value}")
    for line in advice:
        click.echo(f"-> {line}")


def _versions() -> dict[str, str]:
    rows = {"python": sys.version.split()[0]}
    for package in PACKAGES:
        try:
            rows[package] = version(package)
        except PackageNotFoundError:
            rows[package] = "missing"
    return rows


def _client(advice: list[str]) -> None:
    from kaggle_nerve.kaggle_api import versions

    if warning := versions.warning(versions.installed()):
        advice.append(warning)


def _devices(advice: list[str]) -> dict[str, str]:
    from kaggle_nerve.cli.backend import load_keras

    rows = {"processors": str(os.cpu_count())}
    try:
        load_keras()
    except NerveError as fault:
        advice.append(str(fault))
        unknown = ("backend", "devices", "automatic precision", "folds side by side")
        return dict.fromkeys(unknown, "unknown, see below") | rows
    import keras

    return {
        "backend": keras.backend.backend(),
        "devices": ", ".join(devices.names()),
        "automatic precision": devices.preferred_precision(),
        "folds side by side": str(max(1, len(devices.multiple_gpus()))),
        **rows,
    }


def _credentials(advice: list[str]) -> dict[str, str]:
    from kaggle_nerve.kaggle_api.credentials import find, require

    credential = find()
    try:
        require(os.environ)
    except NerveError as fault:
        advice.append(str(fault))
    return {
        "Kaggle credentials": "none" if credential is None else f"{credential.kind} from {credential.where}"
    }


def _data(data_dir: Path, advice: list[str]) -> dict[str, str]:
    from kaggle_nerve.data.frames import locate, read_train_csv

    try:
        state = f"{len(read_train_csv(locate(data_dir).train_csv))} training rows in {data_dir}"
    except NerveError as fault:
        state = "none"
        advice.append(str(fault))
    except OSError as fault:
        state = "unknown, see below"
        advice.append(f"{data_dir} cannot be read ({fault}): check the path and its permissions.")
    free = _free_gigabytes(data_dir)
    if free is not None and free < 6:
        advice.append("The competition needs about 6 GB of disk: archive, files and cache.")
    return {"data": state, "free disk": "unknown" if free is None else f"{free:.0f} GB"}


def _free_gigabytes(folder: Path) -> float | None:
    """Return the free space of the disk of ``folder``, which need not exist; None if it cannot be asked."""
    for path in (folder.absolute(), *folder.absolute().parents):
        with suppress(OSError):
            return shutil.disk_usage(path).free / 2**30
    return None
