"""The only place that runs the official client."""

import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kaggle_nerve.competition import facts
from kaggle_nerve.kaggle_api import credentials, environment, failures, records, versions
from kaggle_nerve.kaggle_api.arrival import Arrival
from kaggle_nerve.kaggle_api.credentials import Credential
from kaggle_nerve.kaggle_api.failures import About, Fault, KaggleError
from kaggle_nerve.kaggle_api.process import EndedError, Message, Program
from kaggle_nerve.kaggle_api.records import Listing, RemoteSubmission

GUARD = Path(__file__).with_name("guard.py")
PAGE, PAGES = 200, 500
"""Rows asked for at once, the most that Kaggle gives, and pages at most."""

REHEARSAL, KAGGLE = "rehearsal", "kaggle"

LOST = "Upload unsuccessful"
"""What the client prints of a dataset's file that the storage did not take."""

PARTIAL = ".kaggle-partial"
"""Ends the name of the client's note beside an unfinished download."""


@dataclass(frozen=True)
class Limits:
    """Seconds after which the client is ended: it has no time limits of its own.

    ``call`` is for a question, ``submit`` for an upload, ``download`` for the whole archive, and ``stall`` for
    an archive that does not grow; the client's own waits between retries add up to one minute. ``listing`` is
    for all pages of a list of files: 17,000 names in pages of 200 are not worth waiting for longer.
    ``output`` is for all files of a kernel, ``file`` for a single one of them, which the client up to 2.2.4 holds
    in memory until it is whole, and ``ship`` for the upload of a dataset.
    """

    call: float = 120
    listing: float = 180
    submit: float = 900
    download: float = 12 * 3600
    stall: float = 300
    output: float = 6 * 3600
    file: float = 900
    ship: float = 6 * 3600


@dataclass(frozen=True)
class Answer:
    """What the client said of a submission: ``failure`` is None if it claims success. Neither is proof."""

    failure: KaggleError | None
    text: str


class Client:
    """Kaggle, as far as this competition needs it.

    Args:
        given: a rehearsal's environment (``RehearsalServer.environment``), used alone and only if it leads to
            this machine; None takes the user's credentials and proxies.
        slug: the competition.
        limits: see Limits.

    Attributes:
        is_rehearsal: whether everything goes to this machine.

    Every method raises KaggleError, a NerveError, for what goes wrong. No text from here has a credential in it.
    """

    def __init__(
        self,
        given: Mapping[str, str] | None = None,
        slug: str = facts.SLUG,
        limits: Limits = Limits(),
    ) -> None:
        self.slug, self.limits = slug, limits
        self._variables = environment.build(given)
        self._secrets = credentials.secrets(self._variables)
        self.is_rehearsal = environment.is_rehearsal(self._variables)
        # -P: a kaggle.py, or another module's namesake, in the user's folder must not be taken for the real one.
        self._program = Program([sys.executable, "-P", str(GUARD)], self._variables)

    @property
    def where(self) -> str:
        """``rehearsal`` or ``kaggle``: what a record of this client's doings says."""
        return REHEARSAL if self.is_rehearsal else KAGGLE

    def credential(self) -> Credential:
        """The credential that will be used, without its value. Raises NerveError if there is none."""
        return credentials.require(self._variables)

    def blank(self, text: str) -> str:
        """``text`` without credentials."""
        return credentials.blank(text, self._secrets)

    def list_files(self, on_page: Callable[[int], None] = lambda _: None) -> Listing:
        """The competition's files, all pages. ``on_page`` gets the number of files so far.

        If a page after the first cannot be read, or all take too long, what there is comes back as a Listing
        that is not whole.
        """
        end = time.monotonic() + self.limits.listing
        files: list[records.RemoteFile] = []
        seen, token = set(), ""
        for _ in range(PAGES):
            page = {"slug": self.slug, "token": token, "size": PAGE}
            try:
                answer = self.ask("list_files", page, "listing the data", self.limits.call)
            except KaggleError:
                if not token:
                    raise
                return Listing(tuple(files), whole=False)
            files += [file for row in answer["files"] if (file := records.as_file(row)).name]
            on_page(len(files))
            seen.add(token)
            token = answer["next"]
            if not token:
                return Listing(tuple(files))
            if token in seen or time.monotonic() > end:
                break
        return Listing(tuple(files), whole=False)

    def submissions(self) -> list[RemoteSubmission]:
        """The newest submissions of this account's team, newest first."""
        newest = {"slug": self.slug, "size": PAGE}
        rows = self.ask("submissions", newest, "listing the submissions", self.limits.call)
        return [records.as_submission(row) for row in rows]

    def download_all(
        self,
        folder: Path,
        *,
        force: bool = False,
        on_progress: Callable[[int, int | None], None] = lambda done, total: None,
    ) -> Path:
        """Get the archive of all files into ``folder``, going on where an earlier download ended.

        ``on_progress`` gets the bytes there and, once known, those of the whole. The client may say that all
        is well though the archive is damaged: check it.
        """
        folder.mkdir(parents=True, exist_ok=True)
        archive = archive_path(folder, self.slug)
        watch = Arrival(
            lambda: bytes_on_disk(archive),
            self.limits.stall,
            lambda size: on_progress(size, expected_size(archive)),
            "downloading the data",
        )
        wanted = {"slug": self.slug, "folder": str(folder), "force": force}
        self.ask("download_all", wanted, watch.doing, self.limits.download, watch=watch)
        if not archive.is_file():
            raise KaggleError(
                failures.CLIENT,
                f"The kaggle client ended without an error, but {archive} is not there: {versions.mend()}.",
            )
        size = archive.stat().st_size
        on_progress(size, size)
        return archive

    def submit(self, file: Path, message: str) -> Answer:
        """Upload and submit one file, once. Whether it worked only the list of submissions can tell."""
        sent = {"slug": self.slug, "file": str(file), "message": message}
        try:
            said = self.ask("submit", sent, "submitting", self.limits.submit)
        except KaggleError as fault:
            return Answer(fault, str(fault))
        # An upload that failed is an answer like any other, and only its words tell.
        fault = self.explain(Fault(said or ""), "submitting")
        return Answer(fault, str(fault)) if fault.kind == failures.UPLOAD else Answer(None, said or "")

    def ask(
        self,
        call: str,
        arguments: Mapping[str, Any],
        doing: str,
        limit: float,
        *,
        watch: Callable[[str], None] = lambda _: None,
        on_event: Callable[[Message], None] = lambda _: None,
        about: About | None = None,
    ) -> Any:
        """What a function of `guard` answers. Raises KaggleError unless it does so in time.

        ``watch`` and ``on_event`` are those of `Program.ask`; ``about``: what a failure speaks of, None is the
        competition.
        """
        self.credential()  # says so at once if there is none
        try:
            reply = self._program.ask({"call": call, "with": dict(arguments)}, limit, watch, on_event)
        except EndedError as end:
            ended = Fault(self.blank(str(end)), "ended", frozenset({"EndedError"}))
            raise self.explain(ended, doing, about) from None
        if reply is None:
            raise failures.timed_out(doing, limit)
        message, said = reply
        if "fault" in message:
            raise self.explain(Fault.read(message["fault"], self.blank), doing, about)
        if LOST in said:
            # Versions up to 2.2.4 make a dataset without the file that the storage did not take.
            raise self.explain(Fault(LOST), doing, about)
        return self._blanked(message["answer"])

    def explain(self, fault: Fault, doing: str, about: About | None = None) -> KaggleError:
        """What a fault means."""
        credential = credentials.find(self._variables)
        about = about or About(self.slug)
        return failures.explain(
            fault,
            doing,
            about.slug,
            credential,
            rehearsal=self.is_rehearsal,
            wording=about.wording,
        )

    def _blanked(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.blank(value)
        if isinstance(value, list):
            return [self._blanked(item) for item in value]
        if isinstance(value, dict):
            return {name: self._blanked(item) for name, item in value.items()}
        return value


def archive_path(folder: Path, slug: str) -> Path:
    """Where the client puts the archive."""
    return folder / f"{slug}.zip"


def partial_path(file: Path) -> Path:
    """The client's note of what it is in the midst of downloading: JSON with the whole ``size``."""
    return file.with_name(f"{file.name}{PARTIAL}")


def bytes_on_disk(file: Path) -> int:
    """The size of a file, 0 where there is none."""
    return file.stat().st_size if file.is_file() else 0


def expected_size(archive: Path) -> int | None:
    """The bytes that an unfinished archive will have, if the client noted them."""
    try:
        size = records.read_object(partial_path(archive).read_text(encoding="utf-8")).get("size")
    except (OSError, ValueError):
        return None
    return size if isinstance(size, int) else None
