"""Run the official Kaggle client. Nothing else in the package does."""

import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kaggle_nerve.competition import facts
from kaggle_nerve.kaggle_api import credentials, environment, failures, records, versions
from kaggle_nerve.kaggle_api.credentials import Credential
from kaggle_nerve.kaggle_api.download_watch import DownloadWatch
from kaggle_nerve.kaggle_api.failures import KaggleError, Subject
from kaggle_nerve.kaggle_api.process import EndedError, Message, Program
from kaggle_nerve.kaggle_api.raw_error import RawError
from kaggle_nerve.kaggle_api.records import Listing, RemoteSubmission

GUARD = Path(__file__).with_name("guard.py")
PAGE, PAGES = 200, 500
"""Rows per page, the most that Kaggle returns, and the maximum number of pages."""

REHEARSAL, KAGGLE = "rehearsal", "kaggle"

UPLOAD_FAILED_TEXT = "Upload unsuccessful"
"""Text that the client prints if the storage refuses a dataset's file."""

PARTIAL = ".kaggle-partial"
"""Suffix of the client's resume file (JSON with the full size), which lies beside an unfinished download."""


@dataclass(frozen=True)
class Limits:
    """Limits in seconds after which the client is stopped; it does not limit the time of a command itself.

    Attributes:
        call: one API call.
        listing: all pages of a file list; 17,000 names in pages of 200 are not worth a longer wait.
        submit: the upload of a submission.
        download: the download of the whole archive.
        stall: longest time without growth of the archive, or without progress of a dataset's upload. The client's
            own waits between retries add up to one minute.
        output: the download of all files of a kernel.
        file: longest time without growth on disk while a kernel's output is downloaded (client 2.2.4 writes a
            file only when it is complete).
        ship: the upload of a dataset.
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
class SubmitResult:
    """The client's report on a submission: its text, and ``failure``, which is None if the client reports success.

    It may be wrong in both cases: check the list of submissions.
    """

    failure: KaggleError | None
    text: str


class Client:
    """The Kaggle operations that this competition needs.

    Args:
        variables: the environment of a rehearsal (``RehearsalServer.environment``), used exclusively and only
            if it points to this machine; None uses the user's credentials and proxies.
        slug: the competition.
        limits: time limits, see Limits.

    Attributes:
        is_rehearsal: whether all requests go to this machine.

    Methods raise KaggleError on failure, or NerveError without credentials; `submit` returns the failure instead.
    No text that leaves this class contains a credential.
    """

    def __init__(
        self,
        variables: Mapping[str, str] | None = None,
        slug: str = facts.SLUG,
        limits: Limits = Limits(),
    ) -> None:
        self.slug, self.limits = slug, limits
        self._variables = environment.build(variables)
        self._secrets = credentials.secrets(self._variables)
        self.is_rehearsal = environment.is_rehearsal(self._variables)
        # -P: a kaggle.py, or a namesake of another module, in the user's folder must not shadow the real one.
        self._program = Program([sys.executable, "-P", str(GUARD)], self._variables)

    @property
    def where(self) -> str:
        """``rehearsal`` or ``kaggle``, as noted in records of what this client did."""
        return REHEARSAL if self.is_rehearsal else KAGGLE

    def credential(self) -> Credential:
        """Return the credential that will be used, without its value. Raises NerveError if there is none."""
        return credentials.require(self._variables)

    def blank(self, text: str) -> str:
        """Return ``text`` with all credentials blanked out."""
        return credentials.blank(text, self._secrets)

    def list_files(self, on_page: Callable[[int], None] = lambda _: None) -> Listing:
        """List the competition's files, all pages. ``on_page`` gets the number of files so far.

        If a page after the first cannot be read, or all take too long, the files so far are returned as a
        Listing that is not whole.
        """
        end = time.monotonic() + self.limits.listing
        files: list[records.RemoteFile] = []
        used_tokens, token = set(), ""
        for _ in range(PAGES):
            page = {"slug": self.slug, "token": token, "size": PAGE}
            try:
                answer = self.ask("list_files", page, "listing the data", self.limits.call)
            except KaggleError:
                if not token:
                    raise
                return Listing(tuple(files), whole=False)
            rows = map(records.as_file, answer["files"])
            files += [file for file in rows if file.name]
            on_page(len(files))
            used_tokens.add(token)
            token = answer["next"]
            if not token:
                return Listing(tuple(files))
            if token in used_tokens or time.monotonic() > end:
                break
        return Listing(tuple(files), whole=False)

    def submissions(self) -> list[RemoteSubmission]:
        """List the newest submissions of this account's team, newest first."""
        page = {"slug": self.slug, "size": PAGE}
        rows = self.ask("submissions", page, "listing the submissions", self.limits.call)
        return [records.as_submission(row) for row in rows]

    def download_all(
        self,
        folder: Path,
        *,
        force: bool = False,
        on_progress: Callable[[int, int | None], None] = lambda done, total: None,
    ) -> Path:
        """Download the archive of all files into ``folder``, resuming an earlier download.

        ``on_progress`` gets the bytes on disk and, once known, the total. The client may report success for a
        damaged archive: check it.
        """
        folder.mkdir(parents=True, exist_ok=True)
        archive = archive_path(folder, self.slug)
        watch = DownloadWatch(
            lambda: bytes_on_disk(archive),
            self.limits.stall,
            lambda size: on_progress(size, expected_size(archive)),
            "downloading the data",
        )
        arguments = {"slug": self.slug, "folder": str(folder), "force": force}
        self.ask("download_all", arguments, watch.doing, self.limits.download, watch=watch)
        if not archive.is_file():
            raise KaggleError(
                failures.CLIENT,
                f"The kaggle client ended without an error, but {archive} is not there: {versions.next_step()}.",
            )
        size = archive.stat().st_size
        on_progress(size, size)
        return archive

    def submit(self, file: Path, message: str) -> SubmitResult:
        """Upload and submit one file, once. Only the list of submissions can tell whether it worked."""
        arguments = {"slug": self.slug, "file": str(file), "message": message}
        try:
            text = self.ask("submit", arguments, "submitting", self.limits.submit)
        except KaggleError as fault:
            return SubmitResult(fault, str(fault))
        # A failed upload comes as a normal answer; only its text reveals the failure.
        fault = self.explain(RawError(text or ""), "submitting")
        if fault.kind == failures.UPLOAD:
            return SubmitResult(fault, str(fault))
        return SubmitResult(None, text or "")

    def ask(
        self,
        call: str,
        arguments: Mapping[str, Any],
        doing: str,
        limit: float,
        *,
        watch: Callable[[str], None] = lambda _: None,
        on_event: Callable[[Message], None] = lambda _: None,
        about: Subject | None = None,
    ) -> Any:
        """Call a function of `guard` and return its result.

        Args:
            call: name of the function.
            arguments: its arguments.
            doing: participle phrase for messages, such as "listing the data".
            limit: seconds after which the client is stopped.
            watch, on_event: those of `Program.ask`.
            about: what a failure message is about; None means the competition.

        Raises KaggleError on failure or after ``limit`` seconds, and NerveError without credentials.
        """
        self.credential()  # fails early if there is none
        try:
            reply = self._program.ask({"call": call, "with": dict(arguments)}, limit, watch, on_event)
        except EndedError as fault:
            name = f"ended by {signal.Signals(-fault.code).name}" if fault.code < 0 else "ended"
            error = RawError(self.blank(str(fault)), name, frozenset({"EndedError"}))
            raise self.explain(error, doing, about) from None
        if reply is None:
            raise failures.timed_out(doing, limit)
        message, printed = reply
        if "fault" in message:
            error = RawError.read(message["fault"], self.blank, credentials.config_folder(self._variables))
            raise self.explain(error, doing, about)
        if UPLOAD_FAILED_TEXT in printed:
            # Versions up to 2.2.4 create the dataset without the file that the storage refused.
            raise self.explain(RawError(UPLOAD_FAILED_TEXT), doing, about)
        return self._blanked(message["answer"])

    def explain(self, error: RawError, doing: str, about: Subject | None = None) -> KaggleError:
        """Convert an error into a KaggleError with a sentence for the user."""
        credential = credentials.find(self._variables)
        about = about or Subject(self.slug)
        return failures.explain(
            error,
            doing,
            about.slug,
            credential,
            rehearsal=self.is_rehearsal,
            rules=about.rules,
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
    """Return the path where the client puts the archive."""
    return folder / f"{slug}.zip"


def partial_path(file: Path) -> Path:
    """Return the path of the client's resume file for an unfinished download."""
    return file.with_name(f"{file.name}{PARTIAL}")


def bytes_on_disk(file: Path) -> int:
    """Return the size of a file, 0 if it does not exist."""
    return file.stat().st_size if file.is_file() else 0


def expected_size(archive: Path) -> int | None:
    """Return the final size of an unfinished archive, or None if the client recorded none."""
    try:
        size = records.read_object(partial_path(archive).read_text(encoding="utf-8")).get("size")
    except (OSError, ValueError):
        return None
    return size if isinstance(size, int) else None
