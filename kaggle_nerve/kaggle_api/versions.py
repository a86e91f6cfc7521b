"""Which versions of the official client this package was tested with, and what to do about any other."""

from importlib.metadata import PackageNotFoundError, version

from packaging.version import Version

OLDEST, NEWEST = "2.2.4", "2.2.5"
"""The versions that the test suite ran on: setup.cfg's lower bound and the one of constraints.txt."""

TESTED = f'"kaggle>={OLDEST},<={NEWEST}" six'
INSTALL = f"run `pip install {TESTED}`"


def installed() -> str | None:
    """The version of the client in this environment; None if it is not there."""
    try:
        return version("kaggle")
    except PackageNotFoundError:
        return None


def remark(client: str | None) -> str:
    """What to know of ``client``, a version, or None for no client; "" if it was tested."""
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


def mend() -> str:
    """The next step where the client did what no tested version was seen to do."""
    if remark(installed()):
        return f"{INSTALL}, and the same command again"
    return "run the same command again, and if it ends so again, look for a newer kaggle-nerve"
