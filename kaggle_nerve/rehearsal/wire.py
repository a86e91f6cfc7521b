"""HTTP as Kaggle speaks it: replies as values, JSON, errors, ranges, limits. No state."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any, Protocol

from werkzeug.datastructures import Headers
from werkzeug.http import parse_range_header

LOOPBACK = ("127.0.0.1", "localhost")
JSON_LIMIT = 8 << 20
UPLOAD_LIMIT = 100 << 20
"""Bytes that a call's JSON and an uploaded submission may have. A notebook of 1 MB, the most that Kaggle takes,
is longer as JSON; a full submission has about 10 MB."""

BLOB_LIMIT = 200 << 30
"""Bytes that one file of a dataset may have. It goes to disk as it comes."""

PIECE = 1 << 18


class RefusedError(Exception):
    """The call is answered with an HTTP error: ``status``, and ``message`` in Kaggle's JSON form."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers or {}


class Content(Protocol):
    """Something that has bytes to send."""

    @property
    def size(self) -> int:
        """How many bytes there are."""
        ...

    def pieces(self, start: int, stop: int) -> Iterator[bytes]:
        """Those from ``start`` up to ``stop``, piece by piece."""
        ...


@dataclass(frozen=True)
class Text:
    """Content that is held in memory."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def pieces(self, start: int, stop: int) -> Iterator[bytes]:
        yield self.data[start:stop]


@dataclass(frozen=True)
class File:
    """Content that is read from disk while it is sent."""

    path: Path
    size: int

    def pieces(self, start: int, stop: int) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            file.seek(start)
            while start < stop and (piece := file.read(min(PIECE, stop - start))):
                start += len(piece)
                yield piece


@dataclass(frozen=True)
class Corrupted:
    """Another content with every bit of ``length`` bytes from offset ``at`` on turned over."""

    content: Content
    at: int
    length: int = 64

    @property
    def size(self) -> int:
        return self.content.size

    def pieces(self, start: int, stop: int) -> Iterator[bytes]:
        """The bytes from ``start`` to ``stop``, those of the fault inverted."""
        for piece in self.content.pieces(start, stop):
            wrong = range(max(self.at, start), min(self.at + self.length, start + len(piece)))
            spoilt = bytearray(piece)
            for offset in wrong:
                spoilt[offset - start] ^= 0xFF
            start += len(piece)
            yield bytes(spoilt)


@dataclass
class Fate:
    """What befalls a reply: seconds of delay, bytes after which it is cut or stalls, or no word at all."""

    delay: float = 0.0
    cut_after: int | None = None
    stall_after: int | None = None
    dropped: bool = False


@dataclass
class Reply:
    """What is sent: of ``content`` the bytes from ``start`` up to ``stop``."""

    status: int
    headers: dict[str, str]
    content: Content
    start: int = 0
    stop: int = -1
    fate: Fate = field(default_factory=Fate)

    def __post_init__(self) -> None:
        if self.stop < 0:
            self.stop = self.content.size

    @property
    def length(self) -> int:
        """Bytes of the body that is announced."""
        return self.stop - self.start


def json_reply(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Reply:
    """A reply with ``value`` as JSON."""
    body = json.dumps(value).encode()
    return Reply(status, {"Content-Type": "application/json", **(headers or {})}, Text(body))


def error_reply(refusal: RefusedError) -> Reply:
    """Kaggle's form of an error: its code once more, and a message that the client shows."""
    value = {"code": refusal.status, "message": refusal.message}
    return json_reply(value, refusal.status, refusal.headers)


def bare_reply(status: int, text: str) -> Reply:
    """An error page as a gateway or the storage behind a signed address gives it."""
    return Reply(status, {"Content-Type": "text/plain; charset=utf-8"}, Text(text.encode()))


def redirect(address: str) -> Reply:
    """302 to ``address``."""
    return Reply(302, {"Location": address}, Text(b""))


def file_reply(content: Content, kind: str, etag: str, modified: float, headers: Headers) -> Reply:
    """``content``, or the part that the request's Range wants of it: 200, 206 or (RefusedError) 416.

    If-Range is honoured: a client that resumes another object gets the whole of this one.
    """
    validators = {"ETag": etag, "Last-Modified": formatdate(modified, usegmt=True)}
    fixed = {"Content-Type": kind, "Accept-Ranges": "bytes", **validators}
    wanted = headers.get("Range")
    if headers.get("If-Range", etag) not in validators.values():
        wanted = None
    part = read_range(wanted, content.size)
    if part is None:
        return Reply(200, fixed, content)
    start, stop = part
    return Reply(
        206, {**fixed, "Content-Range": f"bytes {start}-{stop - 1}/{content.size}"}, content, start, stop
    )


def read_range(header: str | None, size: int) -> tuple[int, int] | None:
    """(start, stop) of the one byte range that ``header`` asks of ``size`` bytes; None: everything.

    What is not one plain byte range is ignored, as RFC 9110 allows. Raises RefusedError 416 past the end.
    """
    asked = parse_range_header(header)
    if asked is None or asked.units != "bytes" or len(asked.ranges) != 1:
        return None
    start, end = asked.ranges[0]
    if start < 0:
        start, stop = max(size + start, 0), size
    else:
        stop = size if end is None else min(end, size)
    if start >= size:
        raise RefusedError(416, "There are no such bytes.", {"Content-Range": f"bytes */{size}"})
    return (start, stop) if start < stop else None
