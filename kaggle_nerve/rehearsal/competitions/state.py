"""State of the rehearsed competition: uploads, submissions, their scores, the daily limit. Independent of
HTTP."""

import secrets
import threading
import time
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from kaggle_nerve import storage
from kaggle_nerve.rehearsal.competitions.scoring import Verdict, judge
from kaggle_nerve.rehearsal.competitions.served import ServedCompetition

PENDING, COMPLETE, ERROR = "PENDING", "COMPLETE", "ERROR"
TEAM = "rehearsal"
FIRST_REF = 1_000_001


@dataclass(frozen=True)
class Submission:
    """A submission. ``date`` is ISO, UTC; scores are text, empty unless the final ``status`` is COMPLETE.

    While it has ``polls_left``, or before ``ready_at`` (seconds since 1970), it shows as PENDING.
    """

    ref: int
    date: str
    file_name: str
    description: str
    bytes: int
    digest: str
    public: str
    private: str
    error: str
    polls_left: int
    ready_at: float

    @property
    def status(self) -> str:
        """PENDING, COMPLETE or ERROR."""
        if self.polls_left > 0 or time.time() < self.ready_at:
            return PENDING
        return ERROR if self.error else COMPLETE

    @property
    def created(self) -> datetime:
        """``date`` as the client's types want it: naive, UTC."""
        return datetime.fromisoformat(self.date).replace(tzinfo=None)


@dataclass
class Upload:
    """An announced file: the name and length that the client gave, and its path once it has arrived."""

    file_name: str
    length: int
    path: Path | None = None


class State:
    """The team's submissions in a folder; another State on the same folder restores them.

    Args:
        served: the competition to score against.
        folder: keeps ``submissions.json`` and the submitted files.
        pending_polls: number of polls that see a submission PENDING before its result.
        pending_seconds: seconds that it stays PENDING at least.
        daily_limit: submissions allowed per day (UTC).
    """

    def __init__(
        self,
        served: ServedCompetition,
        folder: Path,
        pending_polls: int = 1,
        pending_seconds: float = 0.0,
        daily_limit: int = 100,
    ) -> None:
        self.served, self.daily_limit = served, daily_limit
        self._folder = folder
        self._pending_polls, self._pending_seconds = pending_polls, pending_seconds
        self._lock = threading.Lock()
        self._uploads: dict[str, Upload] = {}
        self._submissions = self._load()

    @property
    def submissions(self) -> list[Submission]:
        """All submissions, newest first."""
        with self._lock:
            return self._submissions[::-1]

    @property
    def count_today(self) -> int:
        """Number of submissions made today."""
        day = datetime.now(UTC).date()
        return sum(item.created.date() == day for item in self.submissions)

    def announce(self, file_name: str, length: int) -> str:
        """Announce a file; return the token of its upload."""
        token = secrets.token_urlsafe(24)
        with self._lock:
            self._uploads[token] = Upload(file_name, length)
        return token

    def upload(self, token: str) -> Upload | None:
        """Return the file announced under ``token``, or None."""
        with self._lock:
            return self._uploads.get(token)

    def receive(self, token: str, data: bytes) -> None:
        """Store the announced file."""
        path = self._folder / "uploads" / f"{token}.csv"
        with storage.atomic_path(path) as temporary:
            temporary.write_bytes(data)
        with self._lock:
            self._uploads[token].path = path

    def submit(self, token: str, description: str, scoring_fails: bool = False) -> Submission | None:
        """Score the file uploaded under ``token`` and record it; return None if there is none. A token works
        once."""
        with self._lock:
            upload = self._uploads.get(token)
            if upload is None or upload.path is None:
                return None
            del self._uploads[token]
        # Score outside the lock, so that others can list meanwhile.
        verdict = Verdict(error="The scoring failed.") if scoring_fails else judge(upload.path, self.served)
        with self._lock:
            new = self._record(upload, upload.path, description, verdict)
            self._submissions.append(new)
            self._save()
        return new

    def poll(self) -> list[Submission]:
        """Return all submissions, newest first, as this poll sees them; pending ones then have one poll less
        left."""
        with self._lock:
            rows = self._submissions[::-1]
            if any(item.polls_left for item in rows):
                self._submissions = [_count_poll(item) for item in self._submissions]
                self._save()
        return rows

    def _record(self, upload: Upload, path: Path, description: str, verdict: Verdict) -> Submission:
        ref = max((item.ref for item in self._submissions), default=FIRST_REF - 1) + 1
        target = path.with_name(f"{ref}.csv")
        path.replace(target)
        return Submission(
            ref=ref,
            date=datetime.now(UTC).isoformat(timespec="milliseconds"),
            file_name=upload.file_name,
            description=description,
            bytes=target.stat().st_size,
            digest=storage.digest_file(target),
            public=verdict.public,
            private=verdict.private,
            error=verdict.error,
            polls_left=self._pending_polls,
            ready_at=time.time() + self._pending_seconds,
        )

    def _load(self) -> list[Submission]:
        path = self._folder / "submissions.json"
        return [Submission(**item) for item in storage.read_json(path, list)] if path.is_file() else []

    def _save(self) -> None:
        storage.write_json(self._folder / "submissions.json", [asdict(item) for item in self._submissions])


def _count_poll(item: Submission) -> Submission:
    return replace(item, polls_left=max(item.polls_left - 1, 0))
