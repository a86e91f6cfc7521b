"""Environment variables of the official client, built from scratch so that nothing leaks in or out."""

import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from kaggle_nerve.errors import NerveError

ENDPOINT = "KAGGLE_API_ENVIRONMENT"
"""The client's only switch for its endpoint. ``LOCALHOST`` works; any other value means the real Kaggle."""

MACHINE = (
    *("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "TEMP", "TMP"),
    *("SYSTEMROOT", "WINDIR", "COMSPEC", "PATHEXT", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH"),
    *("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"),
)
"""Variables that any Python program may need to start."""

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
NO_PROXY = ("no_proxy", "NO_PROXY")

USER = (
    *("HOME", "USERPROFILE", "HOMEDRIVE", "HOMEPATH", "APPDATA", "XDG_CONFIG_HOME"),
    *(*PROXIES, *NO_PROXY, "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    *("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_CONFIG_DIR", ENDPOINT),
    *("KAGGLE_API_V1_TOKEN", "KAGGLE_KERNEL_RUN_TYPE", "KAGGLE_DATA_PROXY_URL"),
)
"""The user's variables for credentials and network access. VERBOSE is left out on purpose: with it the client
prints credentials."""

CLIENT = {"PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}
"""Makes the client's output unbuffered and UTF-8."""

LOOPBACK = ("127.0.0.1", "::1", "localhost")


def build(rehearsal_variables: Mapping[str, str] | None) -> dict[str, str]:
    """Build all variables of the client's process.

    ``rehearsal_variables`` are used in place of the user's credentials and network variables; None means no
    rehearsal. Raises NerveError if a rehearsal could reach anything but this machine, or if the user sets an
    endpoint that the client would ignore.
    """
    own = _inherited(USER) if rehearsal_variables is None else rehearsal_variables
    variables = {**_inherited(MACHINE), **own, **CLIENT}
    variables.pop("VERBOSE", None)
    variables.pop("VERBOSE_OUTPUT", None)
    if rehearsal_variables is not None or is_rehearsal(variables):
        require_loopback(variables)
    elif variables.get(ENDPOINT, "PROD") != "PROD":
        raise NerveError(
            f"{ENDPOINT}={variables[ENDPOINT]} is ignored by the kaggle client, which would talk to the real "
            f"Kaggle: unset it, or rehearse with `kaggle-nerve rehearse`."
        )
    return variables


def is_rehearsal(variables: Mapping[str, str]) -> bool:
    """Tell whether these variables direct the client to this machine."""
    return variables.get(ENDPOINT) == "LOCALHOST"


def require_loopback(variables: Mapping[str, str]) -> None:
    """Raise NerveError unless a client with these variables can reach only this machine."""
    refusal = "This rehearsal could reach the real Kaggle, so it does not start: {}."
    if not is_rehearsal(variables):
        raise NerveError(refusal.format(f"{ENDPOINT} must be LOCALHOST"))
    for name in PROXIES:
        if variables.get(name) and not _is_loopback(variables[name]):
            raise NerveError(refusal.format(f"{name} must be an address on 127.0.0.1"))
    for name in ("http_proxy", "https_proxy"):
        # An empty lower-case variable disables the proxy, whatever the upper-case one says.
        if not variables.get(name, variables.get(name.upper())):
            raise NerveError(refusal.format(f"{name} must be the rehearsal's address"))
    for name in NO_PROXY:
        if variables.get(name):
            raise NerveError(refusal.format(f"{name} must be empty"))
    for name in ("HOME", "KAGGLE_API_TOKEN"):
        if not variables.get(name):
            raise NerveError(refusal.format(f"{name} must be the rehearsal's own"))


def _inherited(names: tuple[str, ...]) -> dict[str, str]:
    return {name: os.environ[name] for name in names if name in os.environ}


def _is_loopback(address: str) -> bool:
    try:
        return urlsplit(address if "//" in address else f"//{address}").hostname in LOOPBACK
    except ValueError:
        return False
