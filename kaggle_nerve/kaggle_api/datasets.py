"""Upload runs as private Kaggle datasets for notebooks to attach: first a new dataset, then new versions.

If the storage refuses a file, client 2.2.4 creates the dataset without it; `Client.ask` raises KaggleError then.
After an upload, Kaggle is polled until the version is ready.
"""

import json
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kaggle_nerve.disk import explain_disk_errors
from kaggle_nerve.errors import NerveError
from kaggle_nerve.kaggle_api import failures
from kaggle_nerve.kaggle_api.account import username
from kaggle_nerve.kaggle_api.client import Client
from kaggle_nerve.kaggle_api.failures import KaggleError
from kaggle_nerve.kaggle_api.process import Message
from kaggle_nerve.kaggle_api.raw_error import RawError
from kaggle_nerve.kaggle_api.slugs import slug_of
from kaggle_nerve.kaggle_api.subjects import DATASET_FAILURES, about_dataset
from kaggle_nerve.progress import SILENT, Bar, Reporter

METADATA = "dataset-metadata.json"
RUNS = "runs"
"""Folder in the dataset, as in a kernel's output: ``runs/<name>/``."""

READY, FAILED = "ready", ("failed", "deleted")
SHORTEST, LONGEST = 6, 50
"""Characters of a title, and of the slug derived from it."""

POLLS = (2, 3, 5, 10, 20, 30)
"""Seconds between polls of a dataset that is being processed; the last one repeats."""

ABSENT = (failures.NOT_FOUND, failures.RULES)
"""Failures for a dataset that does not exist, or belongs to another account."""

MAYBE_DONE = (*failures.UNANSWERED, failures.REFUSED)
"""Failures after which the upload may have succeeded."""


@dataclass(frozen=True)
class DatasetVersion:
    """A run on Kaggle: ``user/slug`` of its dataset, the version's number, and its page."""

    ref: str
    version: int
    url: str


@dataclass(frozen=True)
class State:
    """State of a dataset's newest version: a status in lower case (``ready`` when done), and its number."""

    status: str
    version: int


def ship(
    run_folder: Path,
    client: Client,
    *,
    title: str = "",
    message: str = "",
    timeout: float = 1800,
    reporter: Reporter = SILENT,
) -> DatasetVersion:
    """Upload a run's folder as a private dataset: a new one, or a new version of the one with this title.

    Files are named ``runs/<name>/...``, without locks. They are sent as ``runs.zip``, which Kaggle unpacks:
    an attached dataset shows the folders ``/kaggle/input/<slug>/runs/<name>/...``. Nested archives, such as
    .keras and .npz files, stay packed.

    Args:
        run_folder: the run; it is not modified.
        client: the Kaggle client.
        title: 6 to 50 characters; the slug is derived from it. The default is "Nerve run <name>"; it needs a
            name of lower case letters, digits and single dashes, because other characters are lost in the slug.
        message: version notes.
        timeout: seconds to wait for Kaggle to process the files.
        reporter: receives progress bars and lines.

    Raises KaggleError if the dataset is refused, incomplete, or not ready in time.
    """
    title = title or _default_title(run_folder.name)
    ref = f"{username(client)}/{_checked_slug(title)}"
    before = dataset_state(ref, client)
    notes = {} if before is None else {"notes": message or "Sent by kaggle-nerve"}
    version = before.version + 1 if before else 1
    with explain_disk_errors(run_folder.parent, "--runs"), _staged(run_folder, ref, title) as (folder, size):
        try:
            _send({"folder": str(folder), **notes}, ref, client, size, reporter)
        except KaggleError as fault:
            # After a lost answer the client retries, and Kaggle then says that the dataset exists.
            after = dataset_state(ref, client) if fault.kind in MAYBE_DONE else None
            if after is None or after.version < version:
                raise
    ready_version = _await_ready(ref, version, client, timeout, reporter)
    return DatasetVersion(ref, ready_version, f"https://www.kaggle.com/datasets/{ref}")


def _send(arguments: dict[str, str], ref: str, client: Client, size: int, reporter: Reporter) -> None:
    """Create a dataset; if ``arguments`` has ``notes``, a new version of it instead.

    Raises KaggleError unless all files arrived and Kaggle accepted them.
    """
    doing, about = f"sending files to dataset {ref}", about_dataset(ref)
    with reporter.bar("Uploading", size, "byte") as bar:
        upload = _UploadWatch(bar, size, client.limits.stall, doing)
        call = "make_version" if "notes" in arguments else "make_dataset"
        answer = client.ask(
            call,
            arguments,
            doing,
            client.limits.ship,
            watch=upload.check_stall,
            on_event=upload.on_sent,
            about=about,
        )
        upload.advance(1.0)
    if answer["status"].lower() != "ok":
        raise client.explain(RawError(answer["error"] or ""), doing, about)


def dataset_state(ref: str, client: Client) -> State | None:
    """Return the state of the dataset ``user/slug``, or None if it does not exist."""
    doing = f"asking for the dataset {ref}"
    try:
        state = client.ask(
            "dataset_status", {"ref": ref}, doing, client.limits.call, about=about_dataset(ref)
        )
    except KaggleError as fault:
        if fault.kind in ABSENT:
            return None
        raise
    return State(state["status"].lower(), state["current_version_number"] or 0)


def _await_ready(ref: str, version: int, client: Client, timeout: float, reporter: Reporter) -> int:
    """Wait until ``version`` or a later one is ready, and return its number."""
    end, delays, state = time.monotonic() + timeout, iter(POLLS), None
    with reporter.bar(f"Waiting for dataset {ref}", None, "look") as bar:
        while True:
            try:
                state = dataset_state(ref, client) or state
            except KaggleError as fault:
                if fault.kind not in (*failures.UNANSWERED, failures.RATE):
                    raise
            bar.update()
            if state is not None and state.version >= version:
                if state.status == READY:
                    return state.version
                if state.status in FAILED:
                    raise KaggleError(
                        failures.REFUSED,
                        f"Kaggle has the files of {ref} but could not process them ({state.status}): look at "
                        f"https://www.kaggle.com/datasets/{ref}, and run the same command again.",
                    )
            if time.monotonic() > end:
                break
            time.sleep(min(next(delays, POLLS[-1]), max(0.0, end - time.monotonic())))
    raise KaggleError(
        failures.TIMEOUT,
        f"Kaggle has the files of {ref} but has not made version {version} of them within {timeout:.0f} s: look at "
        f"https://www.kaggle.com/datasets/{ref} in some minutes; nothing has to be sent again.",
    )


def _default_title(name: str) -> str:
    """Return the default title. Raises NerveError if another run's name could lead to the same dataset."""
    if (slug := slug_of(name)) != name:
        raise NerveError(
            f"Kaggle would change the run's name {name!r} to {slug!r}, which another run may share: choose a title "
            "with --title."
        )
    return f"Nerve run {name}"


def _checked_slug(title: str) -> str:
    slug = slug_of(title)
    for what, text in (("title", title), ("name made of it", slug)):
        if not SHORTEST <= len(text) <= LONGEST:
            raise NerveError(
                f"The dataset's title {title!r} is not valid: Kaggle wants {SHORTEST} to {LONGEST} characters, and the "
                f"{what} has {len(text)}; choose another one with --title."
            )
    return slug


@contextmanager
def _staged(run_folder: Path, ref: str, title: str) -> Iterator[tuple[Path, int]]:
    """Provide a temporary folder beside the run, with links to its files in the dataset's layout, and their
    total size."""
    root, size = run_folder.parent / f".ship-{run_folder.name}", 0
    shutil.rmtree(root, ignore_errors=True)  # left by a killed process
    try:
        for path in sorted(run_folder.rglob("*")):
            relative = path.relative_to(run_folder)
            if path.is_file() and not any(part.startswith(".") for part in relative.parts):
                target = root / RUNS / run_folder.name / relative
                target.parent.mkdir(parents=True, exist_ok=True)
                _link_or_copy(path, target)
                size += path.stat().st_size
        if not size:
            raise NerveError(f"{run_folder} holds no files to send; name a run that train-folds made.")
        # The owner decides on the licence, but Kaggle requires one even for a private dataset.
        metadata = {"id": ref, "title": title, "licenses": [{"name": "other"}]}
        (root / METADATA).write_text(json.dumps(metadata), encoding="utf-8")
        yield root, size
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _link_or_copy(path: Path, target: Path) -> None:
    try:
        os.link(path, target)
    except OSError:  # the disk does not support hard links
        shutil.copy2(path, target)


class _UploadWatch:
    """Progress bar of an upload, and stall detector: stops the client when nothing is sent any more."""

    def __init__(self, bar: Bar, size: int, patience: float, doing: str) -> None:
        self._bar, self._size, self._patience, self._doing = bar, size, patience, doing
        self._shown, self._since = 0, time.monotonic()

    def on_sent(self, message: Message) -> None:
        """Handle the client's report of how much of the archive was sent."""
        self._since = time.monotonic()
        self.advance(message["sent"] / message["of"] if message["of"] else 0.0)

    def check_stall(self, text: str) -> None:
        """Raise KaggleError if nothing was reported for too long; ``text`` is what the client has printed."""
        if time.monotonic() - self._since > self._patience:
            # The client itself waits and tries again, for as long as Kaggle asks it to.
            if re.search("429|Too Many Requests", text):
                error = RawError("Too Many Requests", status=429)
                raise failures.explain(error, self._doing, "", None, rules=DATASET_FAILURES)
            raise KaggleError(
                failures.TIMEOUT,
                f"Nothing went out for {self._patience:.0f} s while {self._doing}: check the network, and run the "
                "same command again.",
            )

    def advance(self, share: float) -> None:
        """Advance the bar to a share from 0 to 1."""
        sent = int(self._size * share)
        if sent > self._shown:
            self._bar.update(sent - self._shown)
            self._shown = sent
