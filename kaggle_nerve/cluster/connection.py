"""Join a Ray cluster, or start one on this machine; say in one sentence why that cannot be done."""

import os
import re
import secrets
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import ModuleType

from kaggle_nerve.errors import NerveError

AUTO, LOCAL, CLIENT = "auto", "local", "ray://"
"""Addresses: the cluster that runs on this machine, a new one of this machine alone, the beginning of a remote one."""

VARIABLE = "RAY_ADDRESS"
"""Ray's own variable for the address that `AUTO` means."""

PATIENCE = 5.0
"""Timeout in seconds for a connection to an address."""

HEALTH_PATIENCE = 15.0
"""Timeout in seconds for Ray's check of an address, which takes less than one where Ray answers."""

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",
}
"""Variables of Ray: it must not report its use to anyone, nor announce a change of how it treats GPUs, nor start a
cluster of its own when the connection to another one is lost."""

MODE, TOKEN = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN"
"""Ray's variables for the token that a cluster may ask for."""

TOKEN_ADVICE = f"set {MODE}=token, and {TOKEN} to the content of the head's ~/.ray/auth_token"

EXAMPLES = "auto, local, ray://host:10001 or host:6379"


def load_ray() -> ModuleType:
    """Import Ray; raise NerveError if it is not installed."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
    except ImportError as fault:
        raise NerveError(
            "A cluster needs Ray, which cannot be imported: run `pip install 'kaggle-nerve[cluster]'`, and the same "
            "command again."
        ) from fault
    return ray


@contextmanager
def connect(address: str) -> Iterator[None]:
    """Join the cluster at ``address``, and leave it after the block; `LOCAL` starts one for the block.

    ``address``: `AUTO`, `LOCAL`, ``host:port`` of the head for a machine of the cluster, or ``ray://host:port`` of
    its client server for any other one. Raise NerveError if nothing, or something else, answers there.
    """
    if address == LOCAL and "ray" not in sys.modules and MODE not in os.environ:
        # Without a token, others on this machine could use the cluster. Ray's own would stay in the home folder,
        # where it changes what `ray start` does. Ray reads these variables when it is imported.
        os.environ |= {MODE: "token", TOKEN: secrets.token_hex(32)}
    ray = load_ray()
    target = os.environ.get(VARIABLE) or AUTO if address == AUTO else address
    if target not in (AUTO, LOCAL):
        _require_answer(target)
    try:
        with warnings.catch_warnings(action="ignore"):
            # Only a new cluster can do without the dashboard, which takes a core's time.
            options = {"include_dashboard": False} if target == LOCAL else {}
            ray.init(address=target, log_to_driver=False, logging_level="ERROR", **options)
    except (ConnectionError, ValueError, RuntimeError, OSError, ray.exceptions.RayError) as fault:
        raise NerveError(_explain(target, fault)) from fault
    with suppress(AttributeError):
        # Ray prints what its processes report on standard output, which is for results, and has no option for it.
        ray._private.worker._worker_logs_enabled = False
    try:
        yield
    finally:
        ray.shutdown()


def _require_answer(address: str) -> None:
    """Raise NerveError if no Ray answers at ``address``: Ray itself would wait for minutes."""
    match = re.fullmatch(r"(ray://)?([^/:\s]+|\[[^\]]+\]):(\d{1,5})", address)
    if not match:
        raise NerveError(f"--cluster {address!r} is not an address of a cluster: write {EXAMPLES}.")
    host, port = match[2].strip("[]"), int(match[3])
    try:
        socket.create_connection((host, port), PATIENCE).close()
    except (OSError, OverflowError) as fault:
        reason = getattr(fault, "strerror", None) or fault
        raise NerveError(
            f"Nothing answers at --cluster {address} ({reason}): start its head with `ray start --head`, or correct "
            "the address."
        ) from fault
    if match[1]:
        return
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", f"{host}:{port}"]
    try:
        subprocess.run(command, capture_output=True, timeout=HEALTH_PATIENCE, check=True)
    except subprocess.SubprocessError as fault:
        if b"Auth" in (getattr(fault, "stderr", None) or b""):
            raise NerveError(f"The cluster at {address} asks for a token: {TOKEN_ADVICE}.") from fault
        raise NerveError(
            f"What answers at --cluster {address} is not the head of a Ray cluster of this version: name the port that "
            "`ray start --head` printed (6379 by default), or ray://HOST:10001."
        ) from fault


def _explain(address: str, fault: Exception) -> str:
    lines = str(fault).strip().splitlines() or [type(fault).__name__]
    reason = " ".join(" ".join(lines[-1:] if "Traceback" in str(fault) else lines).split())
    if "ersion mismatch" in reason:
        return (
            f"The cluster at {address} and this machine have different versions ({reason[:200]}): install the same "
            "Ray and Python on both."
        )
    if "uth" in reason and "oken" in reason:
        return f"The cluster at {address} asks for a token: {TOKEN_ADVICE}."
    if address == AUTO:
        return (
            f"No Ray cluster runs on this machine ({reason[:100]}): start one with `ray start --head`, name another "
            f"with --cluster ADDRESS, or start one for this command with --cluster {LOCAL}."
        )
    hint = f" If it asks for a token, {TOKEN_ADVICE}." if address.startswith(CLIENT) else ""
    return f"The cluster at {address} cannot be used ({reason[:200]}): see `ray status` on its head.{hint}"
