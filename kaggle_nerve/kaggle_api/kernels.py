"""Kernels on Kaggle: pushing one, watching its session, getting what it left.

Kaggle takes a kernel without the data that it does not know; and versions of the client up to 2.2.4 save an error
page under the name of a file.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from kaggle_nerve.errors import NerveError
from kaggle_nerve.kaggle_api import failures, records, wordings
from kaggle_nerve.kaggle_api.client import Client
from kaggle_nerve.kaggle_api.failures import Fault, KaggleError
from kaggle_nerve.progress import SILENT, Reporter

METADATA = "kernel-metadata.json"
COMPLETE, ERROR = "complete", "error"
ENDS = (COMPLETE, ERROR, "cancel_acknowledged")
"""Statuses that do not change any more."""

POLLS = (5, 10, 20, 30, 60)
"""Seconds between looks at a session; the last one repeats."""

SESSION = 13 * 3600
"""Seconds after which no session runs any more: Kaggle ends them after 12 hours, and queues them before."""

TRANSIENT = (*failures.UNANSWERED, failures.RATE)


@dataclass(frozen=True)
class Pushed:
    """A kernel that Kaggle took: ``user/slug``, the version's number (0: it did not say), and its page."""

    ref: str
    version: int
    url: str


class Session(NamedTuple):
    """How a kernel's newest session stands: a status in small letters, and why it failed ("" if it did not)."""

    status: str
    failure: str

    @property
    def ended(self) -> bool:
        """Whether it runs no more."""
        return self.status in ENDS

    def __str__(self) -> str:
        return f"{self.status} ({self.failure})" if self.failure else self.status


def push(folder: Path, client: Client) -> Pushed:
    """Push the kernel in ``folder``, whose kernel-metadata.json has the right id, and start its session.

    Each call makes a version. Raises KaggleError where Kaggle refuses the kernel or does not know its data, and
    says so where nobody knows whether it was taken.
    """
    ref = _ref(folder)
    doing, about = f"pushing the kernel {ref}", wordings.kernel(ref)
    try:
        made = client.ask("push_kernel", {"folder": str(folder)}, doing, client.limits.call, about=about)
    except KaggleError as fault:
        if fault.kind not in failures.UNANSWERED:
            raise
        raise KaggleError(
            fault.kind,
            f"Nobody knows whether {ref} was pushed ({fault.reason}): see with `kaggle-nerve kernels status "
            f"{ref}` whether a session runs before you push it again, or two will use up machine time.",
        ) from fault
    if made["error"] or not made["url"]:
        raise client.explain(Fault(made["error"] or ""), doing, about)
    # The slug may be another than the id's: a new kernel gets it from its title.
    own = "/".join(urlsplit(made["url"]).path.strip("/").split("/")[-2:])
    pushed = Pushed(own, made["version"] or 0, made["url"])
    if made["missing"]:
        what = " and ".join(
            f"{kind} sources {', '.join(map(repr, names))}" for kind, names in made["missing"].items()
        )
        raise KaggleError(
            failures.REFUSED,
            f"{pushed.ref} was pushed as version {pushed.version}, and its session begun, but without the {what}, "
            "which Kaggle does not know or does not give this account: see the names given with --dataset and "
            "--kernel, or accept the competition's rules, and push it again.",
        )
    return pushed


def kernel_status(ref: str, client: Client) -> Session:
    """How the newest session of the kernel ``user/slug`` stands."""
    doing = f"asking for the status of {ref}"
    session = client.ask("kernel_status", {"ref": ref}, doing, client.limits.call, about=wordings.kernel(ref))
    return Session(session["status"].lower(), session["failure"] or "")


def follow(ref: str, client: Client, *, timeout: float = SESSION, reporter: Reporter = SILENT) -> Session:
    """Look at the kernel's session until it ends, or for ``timeout`` seconds; the last status seen.

    A look that fails on the way to Kaggle is no reason to stop.
    """
    began, pauses, shown = time.monotonic(), iter(POLLS), 0
    session = _look(Session("unknown", ""), ref, client)
    with reporter.bar(f"Kernel {ref}", None, "second") as bar:
        bar.note(session.status)
        while not session.ended and time.monotonic() - began < timeout:
            time.sleep(max(0.0, min(next(pauses, POLLS[-1]), timeout - (time.monotonic() - began))))
            before, session = session, _look(session, ref, client)
            elapsed = int(time.monotonic() - began)
            bar.update(elapsed - shown)
            shown = elapsed
            if session != before:
                bar.note(session.status)
    return session


def _look(session: Session, ref: str, client: Client) -> Session:
    try:
        return kernel_status(ref, client)
    except KaggleError as fault:
        if fault.kind not in TRANSIENT:
            raise
        return session


def _ref(folder: Path) -> str:
    """The id in the metadata. NerveError for what the client would take, though nobody can mean it."""
    path = folder / METADATA
    try:
        metadata = records.read_object(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as fault:
        raise NerveError(f"{path} cannot be read ({fault}); build the kernel anew.") from fault
    ref = str(metadata.get("id", ""))
    if ref.count("/") != 1 or ref.startswith("INSERT"):
        raise NerveError(
            f"{path} has the id {ref!r}; it must be your user name, a slash and the kernel's name."
        )
    if "enable_internet" not in metadata:
        # The client would send True.
        raise NerveError(f"{path} does not say enable_internet; write true or false.")
    return ref
