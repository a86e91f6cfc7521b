"""The only place that runs the official client."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kaggle_nerve.competition import facts
from kaggle_nerve.kaggle_api import credentials, environment, failures, process, records, versions
from kaggle_nerve.kaggle_api.arrival import Arrival
from kaggle_nerve.kaggle_api.credentials import Credential
from kaggle_nerve.kaggle_api.failures import About, KaggleError
from kaggle_nerve.kaggle_api.records import Listing, RemoteSubmission

GUARD = Path(__file__).with_name("guard.py")
PAGE, PAGES = 200, 500
"""Rows asked for at once, the most that Kaggle gives, and pages at most."""

REHEARSAL, KAGGLE = "rehearsal", "kaggle"

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
            try:
                out = self._ask("files", ["--page-token", token] if token else [], "listing the data")
            except KaggleError:
                if not token:
                    raise
                return Listing(tuple(files), whole=False)
            files += [file for row in records.require_table(out) if (file := records.as_file(row)).name]
            on_page(len(files))
            seen.add(token)
            token = records.next_page(out)
            if not token:
                return Listing(tuple(files))
            if token in seen or time.monotonic() > end:
                break
        return Listing(tuple(files), whole=False)

    def submissions(self) -> list[RemoteSubmission]:
        """The newest submissions of this account's team, newest first."""
        out = self._ask("submissions", [], "listing the submissions")
        return [records.as_submission(row) for row in records.require_table(out)]

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
        words = ["competitions", "download", self.slug, "--path", str(folder)]
        words += ["--force"] if force else []
        self.run(words, watch.doing, self.limits.download, watch)
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
        words = ["competitions", "submit", self.slug, f"--file={file}", f"--message={message}"]
        try:
            out = self.run(words, "submitting", self.limits.submit)
        except KaggleError as fault:
            return Answer(fault, str(fault))
        if "Successfully submitted" in out:
            return Answer(None, failures.last_words(out))
        # Versions up to 2.2.4 end with 0 though the upload failed.
        fault = self.explain(out, "submitting")
        told = fault.kind in (failures.UPLOAD, failures.NOT_FOUND)
        return Answer(fault if told else None, str(fault))

    def _ask(self, command: str, words: list[str], doing: str) -> str:
        return self.run(
            ["competitions", command, self.slug, "--format", "json", "--page-size", str(PAGE), *words],
            doing,
            self.limits.call,
        )

    def run(
        self,
        words: Sequence[str],
        doing: str,
        limit: float,
        watch: Callable[[str], None] = lambda _: None,
        *,
        about: About | None = None,
    ) -> str:
        """``kaggle WORDS``: its standard output. Raises KaggleError unless it ends well and in time.

        ``about``: what a failure speaks of; None is the competition.
        """
        self.credential()  # says so at once if there is none
        # -P: a kaggle.py, or another module's namesake, in the user's folder must not be taken for the real one.
        command = [sys.executable, "-P", str(GUARD), *words]
        done = process.run(command, self._variables, limit, watch)
        if done.code is None:
            raise failures.timed_out(doing, limit)
        if done.code != 0:
            raise self.explain(done.text, doing, about)
        return self.blank(done.out)

    def explain(self, text: str, doing: str, about: About | None = None) -> KaggleError:
        """What the client meant by ``text``."""
        credential = credentials.find(self._variables)
        about = about or About(self.slug)
        return failures.explain(
            self.blank(text),
            doing,
            about.slug,
            credential,
            rehearsal=self.is_rehearsal,
            wording=about.wording,
        )


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
