"""The ledger ``submissions/ledger.csv``: what was submitted, from what, and what it scored.

A person may open it, add columns and correct cells. It is replaced atomically, and never if it cannot be
read.
"""

import csv
import io
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from kaggle_nerve import storage
from kaggle_nerve.errors import NerveError
from kaggle_nerve.kaggle_api.client import Client
from kaggle_nerve.kaggle_api.records import COMPLETE, ERROR, PENDING, RemoteSubmission
from kaggle_nerve.locks import hold_lock

SENDING, UNKNOWN, REFUSED, LOST = "sending", "unknown", "refused", "lost"
"""Statuses besides Kaggle's own pending, complete and error: the upload runs or was killed; its outcome is
unknown; Kaggle refused; Kaggle does not have it."""

OPEN = (SENDING, UNKNOWN)
ACCEPTED = (PENDING, COMPLETE, ERROR)
PATIENCE = 30
"""Seconds to wait for another process that writes the ledger."""

GRACE = 600
"""Seconds after which a submission that Kaggle does not list counts as lost."""


@dataclass(frozen=True)
class Origin:
    """Origin of a submission: run, digest of its settings, out-of-fold Dice with its interval."""

    run: str = ""
    settings_hash: str = ""
    oof: float | None = None
    oof_low: float | None = None
    oof_high: float | None = None


@dataclass(frozen=True)
class Entry:
    """A row. ``timestamp``: UTC, ISO. ``tag`` identifies the submission in Kaggle's list. ``extra``: columns
    that a person added."""

    timestamp: str = ""
    file: str = ""
    sha256: str = ""
    run: str = ""
    settings_hash: str = ""
    oof: float | None = None
    oof_low: float | None = None
    oof_high: float | None = None
    ref: str = ""
    status: str = ""
    public: float | None = None
    private: float | None = None
    message: str = ""
    tag: str = ""
    where: str = ""
    extra: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the row as plain values, for JSON."""
        return {name: getattr(self, name) for name in COLUMNS} | self.extra

    @property
    def key(self) -> str:
        """Identifies the submission; rows that a person added have no tag."""
        return self.tag or f"{self.timestamp} {self.file} {self.ref}"

    @property
    def age(self) -> float:
        """Seconds since the upload; infinite if the timestamp cannot be read."""
        try:
            return (datetime.now(UTC) - datetime.fromisoformat(self.timestamp)).total_seconds()
        except (ValueError, TypeError):
            return float("inf")

    def with_remote(self, remote: RemoteSubmission) -> "Entry":
        """Return this row updated with Kaggle's listing of the submission."""
        return replace(
            self,
            ref=remote.ref,
            status=remote.status,
            public=_number(remote.public),
            private=_number(remote.private),
        )


COLUMNS = tuple(item.name for item in fields(Entry) if item.name != "extra")
FIGURES = ("oof", "oof_low", "oof_high", "public", "private")
NEEDED = ("sha256", "status", "tag")


class Ledger:
    """The file at ``path``, which need not exist yet. Safe between processes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self) -> list[Entry]:
        """Read all rows, oldest first. Raises NerveError that names the line if the file cannot be read."""
        if not self.path.is_file():
            return []
        return _parse(self._text(), self.path)

    def add(self, entry: Entry) -> Entry:
        """Append a row."""
        self._change(lambda rows: [*rows, entry])
        return entry

    def put(self, *changed: Entry) -> None:
        """Replace the rows of the same submissions as ``changed``."""
        by_key = {entry.key: entry for entry in changed}
        if by_key:
            self._change(lambda rows: [by_key.get(row.key, row) for row in rows])

    @contextmanager
    def upload_lock(self) -> Iterator[None]:
        """Allow one upload at a time from this folder: two could send the same file."""
        message = f"Another upload from {self.path.parent} is at work: run the same command again when it has ended."
        with hold_lock(self.path.with_name(".upload.lock"), message, 0):
            yield

    def _change(self, change: Callable[[list[Entry]], list[Entry]]) -> None:
        message = f"Another process holds {self.path}: run the same command again when it has ended."
        with hold_lock(self.path.with_name(".ledger.lock"), message, PATIENCE):
            storage.write_text(self.path, _format(change(self.rows())))

    def _text(self) -> str:
        try:
            return self.path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as fault:
            raise NerveError(_damaged(self.path, "is not UTF-8 text")) from fault


def open_ledger(submissions_dir: Path) -> Ledger:
    """Open the ledger of a folder of submissions."""
    return Ledger(submissions_dir / "ledger.csv")


def refresh(client: Client, ledger: Ledger) -> int:
    """Copy refs, statuses and scores from Kaggle into the ledger; return the number of changed rows.

    Uploads with an unknown outcome are settled, too. Kaggle's client leaves the rehearsal's rows alone, and
    the other way round.
    """
    rows = [row for row in ledger.rows() if row.where == client.where]
    if not rows:
        return 0
    changed = settle(rows, client.submissions())
    ledger.put(*changed)
    return len(changed)


def settle(rows: list[Entry], remote: list[RemoteSubmission], grace: float = GRACE) -> list[Entry]:
    """Return the rows that ``remote`` updates. Open rows that it still lacks after ``grace`` seconds are
    lost."""
    changed = []
    for row in rows:
        submission = find(row, remote)
        if submission is not None:
            # A scored submission keeps its score while Kaggle rescores it.
            new = (
                row if (row.status, submission.status) == (COMPLETE, PENDING) else row.with_remote(submission)
            )
        elif row.status in OPEN and row.age > grace:
            new = replace(row, status=LOST)
        else:
            new = row
        changed += [new] if new != row else []
    return changed


def find(row: Entry, remote: list[RemoteSubmission]) -> RemoteSubmission | None:
    """Find a row's submission: by its tag or, for a row without one, by Kaggle's number."""
    for item in remote:
        if (row.tag in item.description) if row.tag else (row.ref and row.ref == item.ref):
            return item
    return None


def _parse(text: str, path: Path) -> list[Entry]:
    rows = csv.reader(io.StringIO(text), strict=True)
    try:
        header = next(rows, None)
        if header is None:
            return []
        if "\0" in text or len(set(header)) < len(header) or not set(NEEDED) <= set(header):
            raise NerveError(_damaged(path, f"does not begin with the columns {', '.join(COLUMNS)}"))
        entries = []
        for cells in rows:
            if cells and len(cells) != len(header):
                what = f"has {len(cells)} fields in place of {len(header)}"
                raise NerveError(_damaged(path, what, rows.line_num))
            entries += [_entry(dict(zip(header, cells, strict=True)), path, rows.line_num)] if cells else []
        return entries
    except csv.Error as fault:
        raise NerveError(_damaged(path, f"is not CSV ({fault})", rows.line_num)) from fault


def _entry(cells: dict[str, str], path: Path, line: int) -> Entry:
    known: dict[str, Any] = {name: cells[name] for name in COLUMNS if name in cells}
    for name in FIGURES:
        text = known.get(name, "").strip()
        known[name] = _number(text)
        if text and known[name] is None:
            raise NerveError(_damaged(path, f"has {text!r} as {name}", line))
    return Entry(**known, extra={name: text for name, text in cells.items() if name not in COLUMNS})


def _format(rows: list[Entry]) -> str:
    extra_columns = list(dict.fromkeys(name for row in rows for name in row.extra))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *extra_columns])
    for row in rows:
        cells = row.as_dict()
        writer.writerow(
            ["" if cells.get(name) is None else cells[name] for name in (*COLUMNS, *extra_columns)]
        )
    return text.getvalue()


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _damaged(path: Path, what: str, line: int | None = None) -> str:
    at = f"{path}, line {line}," if line else f"{path}"
    return f"{at} {what}: repair it, or move it away to begin a new ledger; it was left as it is."
