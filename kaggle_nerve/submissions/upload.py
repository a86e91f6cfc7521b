"""Upload a submission: check it, send it once, find it again whatever happens on the way, and record its
score.

The client cannot be trusted: it exits 0 on failures, and a connection that drops after the file has arrived
looks like one that dropped before. So each submission carries a tag in its description, the ledger has the
tag before anything is sent, and Kaggle's list of submissions decides what happened.
"""

import re
import secrets
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from kaggle_nerve import storage
from kaggle_nerve.competition import submission
from kaggle_nerve.competition.facts import SAMPLE_CSV
from kaggle_nerve.errors import NerveError
from kaggle_nerve.kaggle_api import failures
from kaggle_nerve.kaggle_api.client import Client
from kaggle_nerve.kaggle_api.failures import KaggleError
from kaggle_nerve.kaggle_api.records import COMPLETE, ERROR, PENDING, RemoteSubmission
from kaggle_nerve.progress import SILENT, Reporter
from kaggle_nerve.submissions import ledger as ledgers
from kaggle_nerve.submissions.ledger import Entry, Ledger, Origin
from kaggle_nerve.submissions.origin import default_message, find_origin

DIGEST = 12
"""Characters of the file's digest in a tag; a random part follows."""

MESSAGE = 400
"""Maximum characters of a description, so that the tag after it is not cut off."""

POLLS = (2, 3, 5, 8, 13, 21, 30)
"""Seconds between polls of a submission that is not scored yet; the last one repeats."""

LOOKS = (0, 1, 2, 4, 8)
"""Seconds before each search for a submission that may have been made: lists lag behind."""

SETTLING = 30
"""Seconds after which a killed upload that Kaggle does not list counts as not made."""


class SubmissionError(NerveError):
    """The file was refused, not scored, or its outcome is unknown; ``entry`` is its ledger row, with the
    status."""

    def __init__(self, sentence: str, entry: Entry) -> None:
        super().__init__(sentence)
        self.entry = entry


@dataclass(frozen=True)
class Upload:
    """A submission on Kaggle. ``sent``: sent by this call; False if the same file had been sent before."""

    entry: Entry
    sent: bool
    slug: str

    @property
    def public(self) -> float | None:
        """The public score, once there is one."""
        return self.entry.public

    @property
    def private(self) -> float | None:
        """The private score; late submissions show it at once."""
        return self.entry.private

    @property
    def sentence(self) -> str:
        """What happened and what comes next."""
        entry = self.entry
        start = f"{Path(entry.file).name} is submission {entry.ref}"
        if not self.sent:
            start = (
                f"{Path(entry.file).name} was sent on {entry.timestamp[:10]} and is submission {entry.ref}"
            )
        if entry.status == COMPLETE:
            end = f"public score {_figure(entry.public)}, private {_figure(entry.private)}."
        elif entry.status == ERROR:
            page = f"https://www.kaggle.com/competitions/{self.slug}/submissions"
            end = f"which Kaggle could not score: the reason stands on {page}."
        else:
            end = "not scored yet: `kaggle-nerve submissions refresh` gets the score later."
        return f"{start}, {end}" + ("" if self.sent else " --again sends the same file once more.")

    def __str__(self) -> str:
        return self.sentence


def send(
    csv: Path,
    data_dir: Path,
    submissions_dir: Path,
    client: Client,
    *,
    message: str | None = None,
    again: bool = False,
    wait: bool = True,
    reporter: Reporter = SILENT,
) -> Upload:
    """Submit ``csv`` as `upload` does, with the sample in ``data_dir`` and the ledger in ``submissions_dir``.

    Its origin is the one recorded for it there, and so is the default of ``message``.
    """
    origin = find_origin(csv, submissions_dir)
    return upload(
        csv,
        message or (default_message(origin) if origin else csv.name),
        client,
        sample=data_dir / SAMPLE_CSV,
        ledger=ledgers.open_ledger(submissions_dir),
        origin=origin,
        again=again,
        wait=wait,
        reporter=reporter,
    )


def upload(
    csv: Path,
    message: str,
    client: Client,
    *,
    sample: Path,
    ledger: Ledger,
    origin: Origin | None = None,
    again: bool = False,
    wait: bool = True,
    timeout: float = 600,
    reporter: Reporter = SILENT,
) -> Upload:
    """Submit ``csv``, once, and wait for its score.

    Args:
        csv: the file; it is checked against ``sample`` first, and a faulty one is not sent.
        message: the description on Kaggle; a tag is added.
        client: the Kaggle client.
        sample: sample_submission.csv.
        ledger: gets a row before anything is sent, and all later updates.
        origin: what the file was made from, for the ledger.
        again: send the file even if it was sent before.
        wait: wait for the score, at most ``timeout`` seconds; a later score is no failure.
        reporter: gets progress lines.

    Raises NerveError if nothing was sent, and SubmissionError if Kaggle refused or could not score the file,
    or if the outcome is unknown.
    """
    submission.check(csv, sample).raise_if_faulty()
    client.credential()
    digest = storage.digest_file(csv)
    with ledger.upload_lock():
        reporter.say(f"Asking {client.where} for earlier submissions")
        new = _new_entry(csv, digest, message, client, ledger, origin or Origin())
        entry = _find_earlier(new, client, ledger, again, reporter)
        sent = entry is None
        if entry is None:
            entry = _send(new, csv, client, ledger, reporter)
    if wait and entry.status == PENDING:
        entry = _wait(entry, client, ledger, timeout, reporter)
    result = Upload(entry, sent, client.slug)
    if entry.status == ERROR:
        raise SubmissionError(result.sentence, entry)
    return result


def _find_earlier(
    new: Entry, client: Client, ledger: Ledger, again: bool, reporter: Reporter
) -> Entry | None:
    """Return the row of this file if Kaggle already has it. Uploads with an unknown outcome are settled
    first."""
    while True:
        remote = client.submissions()
        ledger.put(*ledgers.settle(_rows_here(ledger, new), remote))
        rows = [row for row in _rows_here(ledger, new) if row.sha256 == new.sha256]
        open_rows = [row for row in rows if row.status in ledgers.OPEN]
        wait = max((SETTLING - row.age for row in open_rows), default=0)
        if wait <= 0:
            break
        reporter.say(f"An earlier upload of this file broke off; looking for it for {wait:.0f} s more")
        time.sleep(min(wait, 3))
    ledger.put(*(replace(row, status=ledgers.LOST) for row in open_rows))
    if again:
        return None
    accepted = [row for row in rows if row.status in ledgers.ACCEPTED]
    return accepted[-1] if accepted else _adopt_remote(new, remote, ledger)


def _rows_here(ledger: Ledger, new: Entry) -> list[Entry]:
    return [row for row in ledger.rows() if row.where == new.where]


def _adopt_remote(new: Entry, remote: list[RemoteSubmission], ledger: Ledger) -> Entry | None:
    """Find the same file uploaded with another ledger, by the file's digest in its tag, and add it to this
    one."""
    tag_pattern = re.compile(rf"\[({new.sha256[:DIGEST]}-[0-9a-f]+)\]")
    for item in remote:
        if match := tag_pattern.search(item.description):
            return ledger.add(
                replace(new, tag=match[1], timestamp=item.date or new.timestamp).with_remote(item)
            )
    return None


def _new_entry(csv: Path, digest: str, message: str, client: Client, ledger: Ledger, origin: Origin) -> Entry:
    folder = ledger.path.parent.resolve()
    path = csv.resolve()
    return Entry(
        timestamp=datetime.now(UTC).isoformat(timespec="seconds"),
        file=(path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix(),
        sha256=digest,
        **asdict(origin),
        status=ledgers.SENDING,
        message=client.blank(" ".join(message.split()))[:MESSAGE],
        tag=f"{digest[:DIGEST]}-{secrets.token_hex(4)}",
        where=client.where,
    )


def _send(entry: Entry, csv: Path, client: Client, ledger: Ledger, reporter: Reporter) -> Entry:
    """Upload once, and look in Kaggle's list for the outcome; record it in the ledger."""
    ledger.add(entry)
    reporter.say(f"Uploading {csv.name}")
    result = client.submit(csv, f"{entry.message} [{entry.tag}]".strip())
    failure = result.failure
    is_answered = failure is not None and failure.kind not in failures.UNANSWERED
    is_final = failure is not None and is_answered and failure.kind != failures.REFUSED
    remote = _look_for(entry, client, LOOKS[:1] if is_final else LOOKS)
    if remote is not None:
        return _note(ledger, entry.with_remote(remote))
    if is_answered:
        raise SubmissionError(str(failure), _note(ledger, replace(entry, status=ledgers.REFUSED)))
    reason = "the client says it was taken, but the list lacks it" if failure is None else failure.reason
    raise SubmissionError(
        f"Nobody knows yet whether {csv.name} was submitted ({reason}): run `kaggle-nerve submissions "
        "refresh` in a few minutes; submitting it again looks for it first, and sends it only if it is not there.",
        _note(ledger, replace(entry, status=ledgers.UNKNOWN)),
    )


def _look_for(entry: Entry, client: Client, pauses: Sequence[float]) -> RemoteSubmission | None:
    for pause in pauses:
        time.sleep(pause)
        try:
            remote = ledgers.find(entry, client.submissions())
        except KaggleError:
            continue
        if remote is not None:
            return remote
    return None


def _wait(entry: Entry, client: Client, ledger: Ledger, timeout: float, reporter: Reporter) -> Entry:
    """Poll until Kaggle has scored it or ``timeout`` is over; failed polls do not end the wait."""
    start = time.monotonic()
    delays = iter(POLLS)
    with reporter.bar(f"Waiting for the score of {entry.ref}", None, "second") as bar:
        shown = 0
        while entry.status == PENDING and time.monotonic() - start < timeout:
            time.sleep(min(next(delays, POLLS[-1]), timeout))
            remote = _look_for(entry, client, (0,))
            if remote is not None:
                entry = _note(ledger, entry.with_remote(remote))
            elapsed = int(time.monotonic() - start)
            bar.update(elapsed - shown)
            bar.note(entry.status)
            shown = elapsed
    return entry


def _note(ledger: Ledger, entry: Entry) -> Entry:
    ledger.put(entry)
    return entry


def _figure(score: float | None) -> str:
    return "unknown" if score is None else f"{score:.5f}"
