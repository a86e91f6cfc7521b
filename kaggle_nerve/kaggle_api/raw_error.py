"""What went wrong in the official client, as `guard` reports it."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

API = re.compile(r"https?://(api\.kaggle\.com|www\.kaggle\.com|localhost/api)/")
"""Addresses of Kaggle's API; all others belong to the storage."""

MAX_REASON_LENGTH = 300


@dataclass(frozen=True)
class RawError:
    """What went wrong in the client, before it is explained: an exception, or only a message.

    Attributes:
        message: the exception's text, or what the client or Kaggle said.
        cause: text of the exception's first cause, such as "[Errno 111] Connection refused".
        name: the exception's class.
        types: that class, its base classes, and those of the exception's causes.
        status, url: status and address of the HTTP answer.
        is_page: whether that answer is a web page, and not one of Kaggle's API.
        errno, path: number of the system error, and the file or folder that it is about.
        is_own_folder: whether that is the client's own folder, or one above it.
    """

    message: str
    name: str = ""
    types: frozenset[str] = frozenset()
    status: int | None = None
    url: str = ""
    errno: int | None = None
    cause: str = ""
    is_page: bool = False
    path: str = ""
    is_own_folder: bool = False

    @classmethod
    def read(cls, fields: dict[str, Any], blank: Callable[[str], str], own_folder: Path) -> Self:
        """Build from `guard`'s message; ``blank`` removes credentials, ``own_folder`` is the client's own."""
        types, path = fields["types"], fields["path"]
        return cls(
            blank(fields["message"]),
            types[0],
            frozenset(types),
            fields["status"],
            fields["url"],
            fields["errno"],
            blank(fields["cause"]),
            fields["page"],
            blank(path),
            bool(path) and Path(path) in (own_folder, *own_folder.parents),
        )

    @property
    def last_line(self) -> str:
        """The last line of the message, where Python, the client and Kaggle put the reason."""
        return last_line(self.message)

    @property
    def is_answer(self) -> bool:
        """Whether Kaggle said this: an HTTP answer, or the text in one. Anything else is a local fault."""
        return self.status is not None or not self.types

    @property
    def is_from_storage(self) -> bool:
        """Whether the answer came from the file storage, whose signed addresses expire, and not from Kaggle's
        API."""
        return bool(self.url) and not API.match(self.url)


def last_line(text: str) -> str:
    """Return the last non-empty line that the client wrote, where Python and the client put the reason."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    line = lines[-1] if lines else "the client said nothing"
    return line if len(line) <= MAX_REASON_LENGTH else line[:MAX_REASON_LENGTH] + "..."
