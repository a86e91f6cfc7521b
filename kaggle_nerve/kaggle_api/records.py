"""The official client's answers as dataclasses."""

import json
from dataclasses import dataclass
from typing import Any

PENDING, COMPLETE, ERROR = "pending", "complete", "error"


@dataclass(frozen=True)
class RemoteFile:
    """A file as Kaggle lists it. ``size`` in bytes, 0 if not reported; ``date`` of creation, or ""."""

    name: str
    size: int
    date: str = ""


@dataclass(frozen=True)
class Listing:
    """The listed files. Kaggle's lists of large competitions are known to be incomplete.

    ``whole`` is False if the last pages could not be read.
    """

    files: tuple[RemoteFile, ...] = ()
    whole: bool = True

    @property
    def bytes(self) -> int:
        """Total size of the files."""
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
    """Parse a JSON object. Raises ValueError for anything else."""
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def as_file(row: dict[str, Any]) -> RemoteFile:
    """Convert `guard`'s row for a file of the competition or of a kernel's output."""
    size = row["size"]
    return RemoteFile(
        row["name"] or "", size if isinstance(size, int) and size > 0 else 0, _text(row["date"])
    )


def as_submission(row: dict[str, Any]) -> RemoteSubmission:
    """Convert `guard`'s row for a submission."""
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
