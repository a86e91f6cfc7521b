"""What the official client prints, as values."""

import json
import re
from dataclasses import dataclass
from typing import Any

from kaggle_nerve.kaggle_api import failures, versions
from kaggle_nerve.kaggle_api.failures import KaggleError

PENDING, COMPLETE, ERROR = "pending", "complete", "error"
NEXT_PAGE = re.compile(r"^Next Page Token = (\S+)$", re.MULTILINE)
TABLE = re.compile(r"^\[", re.MULTILINE)


@dataclass(frozen=True)
class RemoteFile:
    """A file as Kaggle lists it. ``size`` in bytes, 0 if it does not tell; ``date`` of its making, or ""."""

    name: str
    size: int
    date: str = ""


@dataclass(frozen=True)
class Listing:
    """The competition's files. Kaggle's lists of large competitions are known to lack some.

    ``whole`` is False if the last pages could not be read.
    """

    files: tuple[RemoteFile, ...] = ()
    whole: bool = True

    @property
    def bytes(self) -> int:
        """The files' sizes together."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True)
class RemoteSubmission:
    """A submission as Kaggle lists it. ``status`` is pending, complete or error; scores may be ""."""

    ref: str
    file_name: str
    date: str
    description: str
    status: str
    public: str
    private: str


def next_page(out: str) -> str:
    """The token of the page after this one, or ""."""
    found = NEXT_PAGE.search(out)
    return found[1] if found else ""


def read_table(out: str) -> list[dict[str, Any]] | None:
    """The rows printed as JSON, past whatever warnings stand before and after; None if there are none."""
    if "No submissions found" in out:
        return []
    for start in TABLE.finditer(out):
        try:
            rows, _ = json.JSONDecoder().raw_decode(out, start.start())
        except ValueError:
            continue
        if all(isinstance(row, dict) for row in rows):
            return rows
    return None


def require_table(out: str) -> list[dict[str, Any]]:
    """The same; KaggleError where there are none."""
    rows = read_table(out)
    if rows is None:
        raise KaggleError(
            failures.CLIENT,
            f"The kaggle client printed something that this version cannot read ({failures.last_words(out)}): "
            f"{versions.mend()}.",
        )
    return rows


def read_object(text: str) -> dict[str, Any]:
    """A JSON object; raises ValueError for anything else."""
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def as_file(row: dict[str, Any]) -> RemoteFile:
    """A row of ``competitions files`` or ``kernels files``."""
    size = row.get("size")
    return RemoteFile(
        str(row.get("name") or ""),
        size if isinstance(size, int) and size > 0 else 0,
        str(row.get("creationDate") or ""),
    )


def as_submission(row: dict[str, Any]) -> RemoteSubmission:
    """A row of ``competitions submissions``. The status comes as ``SubmissionStatus.COMPLETE``."""
    text = {name: "" if value in (None, "None") else str(value) for name, value in row.items()}
    return RemoteSubmission(
        ref=text.get("ref", ""),
        file_name=text.get("fileName", ""),
        date=text.get("date", ""),
        description=text.get("description", ""),
        status=text.get("status", "").rpartition(".")[2].lower(),
        public=text.get("publicScore", ""),
        private=text.get("privateScore", ""),
    )
