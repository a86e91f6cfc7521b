"""What the official client answers, as values."""

import json
from dataclasses import dataclass
from typing import Any

PENDING, COMPLETE, ERROR = "pending", "complete", "error"


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


def read_object(text: str) -> dict[str, Any]:
    """A JSON object; raises ValueError for anything else."""
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def as_file(row: dict[str, Any]) -> RemoteFile:
    """A file of the competition's, or of a kernel's output. `guard` gives the row."""
    size = row["size"]
    return RemoteFile(
        row["name"] or "", size if isinstance(size, int) and size > 0 else 0, _text(row["date"])
    )


def as_submission(row: dict[str, Any]) -> RemoteSubmission:
    """A submission. `guard` gives the row."""
    return RemoteSubmission(
        ref=_text(row["ref"]),
        file_name=_text(row["file_name"]),
        date=_text(row["date"]),
        description=_text(row["description"]),
        status=row["status"].lower(),
        public=_text(row["public_score"]),
        private=_text(row["private_score"]),
    )


def _text(value: object) -> str:
    return "" if value is None else str(value)
