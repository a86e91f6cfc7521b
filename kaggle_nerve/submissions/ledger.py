"""What was submitted, from what, and what it scored: ``submissions/ledger.csv``.

A person may open it, add columns and correct cells. It is replaced whole or not at all, and never where it
cannot be read.
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

SENDING, UNKNOWN, REFUSED, LOST = "sending", "unknown", "refused", "lost"
"""Besides Kaggle's own pending, complete and error: the upload runs or was killed; nobody knows its end; Kaggle
said no; Kaggle does not have it."""

OPEN = (SENDING, UNKNOWN)
TAKEN = (PENDING, COMPLETE, ERROR)
PATIENCE = 30
"""Seconds to wait for another process that writes the ledger."""

GRACE = 600
"""Seconds after which a submission that Kaggle does not list is not there."""


@dataclass(frozen=True)
class Origin:
    """What a submission was made from: run, digest of its settings, out-of-fold figure with its interval."""

    run: str = ""
    settings_hash: str = ""
    oof: float | None = None
    oof_low: float | None = None
    oof_high: float | None = None


@dataclass(frozen=True)
class Entry:
    """A row. ``timestamp``: UTC, ISO. ``tag`` marks the submission in Kaggle's list. ``extra``: columns that
    are not ours."""

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
        """The row as plain values, for JSON."""
        return {name: getattr(self, name) for name in COLUMNS} | self.extra

    @property
    def key(self) -> str:
        """Which submission this row is about; rows that a person added have no tag."""
        return self.tag or f"{self.timestamp} {self.file} {self.ref}"

    @property
    def age(self) -> float:
        """Seconds since it was sent; infinite if the timestamp cannot be read."""
        try:
            return (datetime.now(UTC) - datetime.fromisoformat(self.timestamp)).total_seconds()
        except (ValueError, TypeError):
            return float("inf")

    def seen(self, remote: RemoteSubmission) -> "Entry":
        """This row with what Kaggle says of it."""
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
    """The file at ``path``, which need not be there yet. Safe between processes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self) -> list[Entry]:
        """All rows, oldest first. Raises NerveError that names the line where the file cannot be read."""
        if not self.path.is_file():
            return []
        return _parse(self._text(), self.path)

    def add(self, entry: Entry) -> Entry:
        """Append a row."""
        self._change(lambda rows: [*rows, entry])
        return entry

    def put(self, *changed: Entry) -> None:
        """Replace the rows that are about the same submissions as ``changed``."""
        new = {entry.key: entry for entry in changed}
        if new:
            self._change(lambda rows: [new.get(row.key, row) for row in rows])

    @contextmanager
    def only_upload(self) -> Iterator[None]:
        """One upload at a time from this folder: two could send the same file."""
        told = f"Another upload from {self.path.parent} is at work: run the same command again when it has ended."
        with storage.locked(self.path.with_name(".upload.lock"), told, 0):
            yield

    def _change(self, change: Callable[[list[Entry]], list[Entry]]) -> None:
        told = f"Another process holds {self.path}: run the same command again when it has ended."
        with storage.locked(self.path.with_name(".ledger.lock"), told, PATIENCE):
            storage.write_text(self.path, _format(change(self.rows())))

    def _text(self) -> str:
        try:
            return self.path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as fault:
            raise NerveError(_damaged(self.path, "is not UTF-8 text")) from fault


def refresh(client: Client, ledger: Ledger) -> int:
    """Take refs, states and scores from Kaggle into the ledger; the number of rows that changed.

    It also settles uploads whose end was not known. Rows of the rehearsal are left alone by Kaggle's client,
    and the other way round.
    """
    rows = [row for row in ledger.rows() if row.where == client.where]
    if not rows:
        return 0
    changed = settle(rows, client.submissions())
    ledger.put(*changed)
    return len(changed)


def settle(rows: list[Entry], remote: list[RemoteSubmission], grace: float = GRACE) -> list[Entry]:
    """The rows that ``remote`` tells something new about. Open ones that are not in it, and ought to be after
    ``grace`` seconds, are lost."""
    changed = []
    for row in rows:
        found = find(row, remote)
        if found is not None:
            # What has a score keeps it while Kaggle looks at it again.
            new = row if (row.status, found.status) == (COMPLETE, PENDING) else row.seen(found)
        elif row.status in OPEN and row.age > grace:
            new = replace(row, status=LOST)
        else:
            new = row
        changed += [new] if new != row else []
    return changed


def find(row: Entry, remote: list[RemoteSubmission]) -> RemoteSubmission | None:
    """The submission that a row is about: by its tag, or for a row without one by Kaggle's number."""
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
    own = list(dict.fromkeys(name for row in rows for name in row.extra))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*COLUMNS, *own])
    for row in rows:
        cells = row.as_dict()
        writer.writerow(["" if cells.get(name) is None else cells[name] for name in (*COLUMNS, *own)])
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
