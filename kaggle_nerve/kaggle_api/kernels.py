"""Push kernels to Kaggle and follow their sessions.

Kaggle accepts a kernel even if some of its data sources do not exist; `push` reports that.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from kaggle_nerve.errors import NerveError
from kaggle_nerve.kaggle_api import failures, records
from kaggle_nerve.kaggle_api.client import Client
from kaggle_nerve.kaggle_api.failures import KaggleError
from kaggle_nerve.kaggle_api.raw_error import RawError
from kaggle_nerve.kaggle_api.subjects import about_kernel, about_push
from kaggle_nerve.progress import SILENT, Reporter

METADATA = "kernel-metadata.json"
COMPLETE, ERROR = "complete", "error"
ENDS = (COMPLETE, ERROR, "cancel_acknowledged")
"""Final statuses."""

POLLS = (5, 10, 20, 30, 60)
"""Seconds between polls of a session; the last one repeats."""

SESSION = 13 * 3600
"""Seconds to follow a session by default: Kaggle's limit of 12 hours, and one hour of queueing."""

TRANSIENT = (*failures.UNANSWERED, failures.RATE)


@dataclass(frozen=True)
class KernelVersion:
    """A kernel version on Kaggle: ``user/slug``, the version's number (0 if Kaggle does not report it), and
    its page."""

    ref: str
    version: int
    url: str


class Session(NamedTuple):
    """State of a kernel's newest session: a status in lower case, and why it failed ("" if it did not)."""

    status: str
    failure: str

    @property
    def ended(self) -> bool:
        """Whether the session has ended."""
        return self.status in ENDS

    def __str__(self) -> str:
        return f"{self.status} ({self.failure})" if self.failure else self.status


def push(folder: Path, client: Client) -> KernelVersion:
    """Push the kernel in ``folder``, whose kernel-metadata.json names an id ``user/slug``, and start its session.

    Each call makes a version. Raises KaggleError if Kaggle refuses the kernel or does not know its data, and
    also if it is unknown whether the kernel was accepted.
    """
    ref = _read_ref(folder)
    doing, about = f"pushing the kernel {ref}", about_push(ref)
    try:
        answer = client.ask("push_kernel", {"folder": str(folder)}, doing, client.limits.call, about=about)
    except KaggleError as fault:
        if fault.kind not in failures.UNANSWERED:
            raise
        raise KaggleError(
            fault.kind,
            f"Nobody knows whether {ref} was pushed ({fault.reason}): see with `kaggle-nerve kernels status "
            f"{ref}` whether a session runs before you push it again, or two will use up machine time.",
        ) from fault
    if answer["error"] or not answer["url"]:
        raise client.explain(RawError(answer["error"] or ""), doing, about)
    # The slug may differ from the id's: a new kernel gets it from its title.
    ref_on_kaggle = "/".join(urlsplit(answer["url"]).path.strip("/").split("/")[-2:])
    pushed = KernelVersion(ref_on_kaggle, answer["version"] or 0, answer["url"])
    if answer["missing"]:
        sources = " and ".join(
            f"{kind} sources {', '.join(map(repr, names))}" for kind, names in answer["missing"].items()
        )
        raise KaggleError(
            failures.REFUSED,
            f"{pushed.ref} was pushed as version {pushed.version}, and its session begun, but without the {sources}, "
            "which Kaggle does not know or does not give this account: see the names given with --dataset and "
            "--kernel, or accept the competition's rules, and push it again.",
        )
    return pushed


def push_parts(folders: Mapping[int, Path], client: Client) -> Iterator[KernelVersion]:
    """Push the kernels in ``folders``, by the numbers of their parts, and yield each version; see `push`.

    The first failure ends it. Its KaggleError says how to push only the rest: a part that is pushed again trains its
    folds again.
    """
    pushed: list[int] = []
    for number, folder in folders.items():
        try:
            version = push(folder, client)
        except KaggleError as fault:
            if not pushed:
                raise
            done = f"Part {pushed[0]} is" if len(pushed) == 1 else f"Parts {', '.join(map(str, pushed))} are"
            rest = " ".join(f"--part {other}" for other in folders if other not in pushed)
            raise KaggleError(
                fault.kind,
                f"{fault} {done} pushed already, and would be trained again: select the rest with {rest}.",
            ) from fault
        pushed.append(number)
        yield version


def kernel_status(ref: str, client: Client) -> Session:
    """Return the state of the newest session of the kernel ``user/slug``."""
    doing = f"asking for the status of {ref}"
    session = client.ask("kernel_status", {"ref": ref}, doing, client.limits.call, about=about_kernel(ref))
    return Session(session["status"].lower(), session["failure"] or "")


def follow(
    refs: Sequence[str], client: Client, *, timeout: float = SESSION, reporter: Reporter = SILENT
) -> list[Session]:
    """Poll the kernels' sessions until all have ended, or for ``timeout`` seconds; return their last states.

    Network errors do not end the wait.
    """
    start, delays, shown = time.monotonic(), iter(POLLS), 0
    sessions = [_poll(Session("unknown", ""), ref, client) for ref in refs]
    with reporter.bar(f"Kernel {' and '.join(refs)}", None, "second") as bar:
        bar.note(_statuses(sessions))
        while not all(session.ended for session in sessions) and time.monotonic() - start < timeout:
            time.sleep(max(0.0, min(next(delays, POLLS[-1]), timeout - (time.monotonic() - start))))
            before = sessions
            sessions = [_poll(session, ref, client) for session, ref in zip(sessions, refs, strict=True)]
            elapsed = int(time.monotonic() - start)
            bar.update(elapsed - shown)
            shown = elapsed
            if sessions != before:
                bar.note(_statuses(sessions))
    return sessions


def _statuses(sessions: list[Session]) -> str:
    return ", ".join(session.status for session in sessions)


def _poll(session: Session, ref: str, client: Client) -> Session:
    """Ask for the session's state, unless it has ended; return ``session`` after an error of the network."""
    if session.ended:
        return session
    try:
        return kernel_status(ref, client)
    except KaggleError as fault:
        if fault.kind not in TRANSIENT:
            raise
        return session


def _read_ref(folder: Path) -> str:
    """Return the id from the metadata. Raises NerveError for values that the client would accept by mistake."""
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
        # The client's default is True.
        raise NerveError(f"{path} does not say enable_internet; write true or false.")
    return ref
