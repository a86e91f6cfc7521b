"""Runs as private datasets on Kaggle, for notebooks to attach: made first, then given new versions.

Versions of the client up to 2.2.4 make a dataset without the files that the storage did not take, which `Client.ask`
notices; and Kaggle is asked for the version until that is ready.
"""

import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kaggle_nerve.errors import NerveError
from kaggle_nerve.kaggle_api import failures, wordings
from kaggle_nerve.kaggle_api.account import username
from kaggle_nerve.kaggle_api.client import Client
from kaggle_nerve.kaggle_api.disk import full_disk_told
from kaggle_nerve.kaggle_api.failures import Fault, KaggleError
from kaggle_nerve.kaggle_api.process import Message
from kaggle_nerve.kaggle_api.slugs import slug_of
from kaggle_nerve.progress import SILENT, Bar, Reporter

METADATA = "dataset-metadata.json"
RUNS = "runs"
"""The folder in the dataset, as in a kernel's output: ``runs/<name>/``."""

READY, FAILED = "ready", ("failed", "deleted")
SHORTEST, LONGEST = 6, 50
"""Characters of a title, and of the slug that is made of it."""

POLLS = (2, 3, 5, 10, 20, 30)
"""Seconds between looks at a dataset that is being processed; the last one repeats."""

ABSENT = (failures.NOT_FOUND, failures.RULES)
"""What Kaggle says of a dataset that is not there, or is not this account's."""

MAYBE_DONE = (*failures.UNANSWERED, failures.REFUSED)


@dataclass(frozen=True)
class Shipped:
    """A run that Kaggle has: ``user/slug`` of its dataset, the version's number, and its page."""

    ref: str
    version: int
    url: str


@dataclass(frozen=True)
class State:
    """How far a dataset's newest version is: a status in small letters, ``ready`` at last, and its number."""

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
) -> Shipped:
    """Send a run's folder as a private dataset: a new one, or a new version of the one of this title.

    Its files get the names ``runs/<name>/...``, without locks. They are sent as ``runs.zip``, which Kaggle unpacks
    again: an attached dataset shows the folders ``/kaggle/input/<slug>/runs/<name>/...``. Archives inside, as
    .keras and .npz files are, stay as they are.

    Args:
        run_folder: the run; nothing is written into it.
        client: whom to send it to.
        title: 6 to 50 characters; the slug is made of it. The default is "Nerve run <name>", for a name of small
            letters, digits and single dashes, which is all that a slug keeps apart.
        message: what is new in this version.
        timeout: seconds to wait until Kaggle has processed the files.
        reporter: gets bars and lines.

    Raises KaggleError where the dataset is refused, incomplete, or not ready in time.
    """
    title = title or _title(run_folder.name)
    ref = f"{username(client)}/{_slug(title)}"
    before = dataset_state(ref, client)
    notes = {} if before is None else {"notes": message or "Sent by kaggle-nerve"}
    version = before.version + 1 if before else 1
    with full_disk_told(run_folder.parent, "--runs"), _staged(run_folder, ref, title) as (folder, size):
        try:
            _send({"folder": str(folder), **notes}, ref, client, size, reporter)
        except KaggleError as fault:
            # The client asks again where an answer was lost, and is then told that the dataset is there.
            after = dataset_state(ref, client) if fault.kind in MAYBE_DONE else None
            if after is None or after.version < version:
                raise
    made = _await_ready(ref, version, client, timeout, reporter)
    return Shipped(ref, made, f"https://www.kaggle.com/datasets/{ref}")


def _send(made: dict[str, str], ref: str, client: Client, size: int, reporter: Reporter) -> None:
    """Make a dataset, or with ``notes`` a version. KaggleError unless all files arrived and it is being made."""
    doing, about = f"sending files to dataset {ref}", wordings.dataset(ref)
    with reporter.bar("Uploading", size, "byte") as bar:
        sending = _Sending(bar, size, client.limits.stall, doing)
        call = "make_version" if "notes" in made else "make_dataset"
        answer = client.ask(
            call, made, doing, client.limits.ship, watch=sending.watch, on_event=sending.take, about=about
        )
        sending.show(1.0)
    if answer["status"].lower() != "ok":
        raise client.explain(Fault(answer["error"] or ""), doing, about)


def dataset_state(ref: str, client: Client) -> State | None:
    """How far the dataset ``user/slug`` is; None where there is none."""
    doing = f"asking for the dataset {ref}"
    try:
        state = client.ask(
            "dataset_status", {"ref": ref}, doing, client.limits.call, about=wordings.dataset(ref)
        )
    except KaggleError as fault:
        if fault.kind in ABSENT:
            return None
        raise
    return State(state["status"].lower(), state["current_version_number"] or 0)


def _await_ready(ref: str, version: int, client: Client, timeout: float, reporter: Reporter) -> int:
    """Wait until ``version`` or a later one is ready; its number."""
    end, pauses, state = time.monotonic() + timeout, iter(POLLS), None
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
            time.sleep(min(next(pauses, POLLS[-1]), max(0.0, end - time.monotonic())))
    raise KaggleError(
        failures.TIMEOUT,
        f"Kaggle has the files of {ref} but has not made version {version} of them within {timeout:.0f} s: look at "
        f"https://www.kaggle.com/datasets/{ref} in some minutes; nothing has to be sent again.",
    )


def _title(name: str) -> str:
    """The title where the user gives none. NerveError where another run's would lead to the same dataset."""
    if (kept := slug_of(name)) != name:
        raise NerveError(
            f"Of the run's name {name!r} Kaggle would keep {kept!r}, so that another run could replace it in its "
            "dataset: choose a title of its own with --title."
        )
    return f"Nerve run {name}"


def _slug(title: str) -> str:
    slug = slug_of(title)
    for name, text in (("title", title), ("name made of it", slug)):
        if not SHORTEST <= len(text) <= LONGEST:
            raise NerveError(
                f"The dataset's title {title!r} does not do: Kaggle wants {SHORTEST} to {LONGEST} characters, and the "
                f"{name} has {len(text)}; choose another one with --title."
            )
    return slug


@contextmanager
def _staged(run_folder: Path, ref: str, title: str) -> Iterator[tuple[Path, int]]:
    """A temporary folder beside the run with links to its files, in the dataset's layout; and their size."""
    root, size = run_folder.parent / f".ship-{run_folder.name}", 0
    shutil.rmtree(root, ignore_errors=True)  # of a run that was killed
    try:
        for path in sorted(run_folder.rglob("*")):
            inside = path.relative_to(run_folder)
            if path.is_file() and not any(part.startswith(".") for part in inside.parts):
                target = root / RUNS / run_folder.name / inside
                target.parent.mkdir(parents=True, exist_ok=True)
                _link(path, target)
                size += path.stat().st_size
        if not size:
            raise NerveError(f"{run_folder} holds no files to send; name a run that train-folds made.")
        # What a model may be used for is its owner's to say; Kaggle wants one licence even of a private dataset.
        metadata = {"id": ref, "title": title, "licenses": [{"name": "other"}]}
        (root / METADATA).write_text(json.dumps(metadata), encoding="utf-8")
        yield root, size
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _link(path: Path, target: Path) -> None:
    try:
        os.link(path, target)
    except OSError:  # a disk without hard links
        shutil.copy2(path, target)


class _Sending:
    """Watches an upload: feeds the bar, and ends the client when nothing goes out any more."""

    def __init__(self, bar: Bar, size: int, patience: float, doing: str) -> None:
        self._bar, self._size, self._patience, self._doing = bar, size, patience, doing
        self._shown, self._since = 0, time.monotonic()

    def take(self, message: Message) -> None:
        """The client's count of the archive that it made of the files."""
        self._since = time.monotonic()
        self.show(message["sent"] / message["of"] if message["of"] else 0.0)

    def watch(self, text: str) -> None:
        """Raises KaggleError after too long a silence."""
        if time.monotonic() - self._since > self._patience:
            raise KaggleError(
                failures.TIMEOUT,
                f"Nothing went out for {self._patience:.0f} s while {self._doing}: check the network, and run the "
                "same command again.",
            )

    def show(self, share: float) -> None:
        """So much of it is on Kaggle, from 0 to 1."""
        sent = int(self._size * share)
        if sent > self._shown:
            self._bar.update(sent - self._shown)
            self._shown = sent
