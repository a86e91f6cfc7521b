"""Tested versions of the official client, and advice for any other."""

from importlib.metadata import PackageNotFoundError, version

from packaging.version import Version

OLDEST, NEWEST = "2.2.4", "2.2.5"
"""Versions that the test suite ran with: setup.cfg's lower bound and the pin in constraints.txt."""

TESTED = f'"kaggle>={OLDEST},<={NEWEST}" six'
INSTALL = f"run `pip install {TESTED}`"


def installed() -> str | None:
    """Return the installed version of the client, or None."""
    try:
        return version("kaggle")
    except PackageNotFoundError:
        return None


def warning(client: str | None) -> str:
    """Return a warning about version ``client`` (None if not installed), or "" if it was tested."""
    if client is None:
        return f"The kaggle client is not installed: {INSTALL}."
    if Version(client) < Version(OLDEST):
        return f"The kaggle client {client} is too old: {INSTALL}."
    if Version(client) > Version(NEWEST):
        return (
            f"The kaggle client {client} is newer than those that kaggle-nerve was tested with ({OLDEST} to {NEWEST}): "
            f"if a command that talks to Kaggle fails, {INSTALL}."
        )
    return ""


def next_step() -> str:
    """Return the next step after unexpected behaviour of the client."""
    if warning(installed()):
        return f"{INSTALL}, and the same command again"
    return "run the same command again, and if it fails the same way again, look for a newer kaggle-nerve"
