"""HTTP as Kaggle uses it: replies, JSON, errors, ranges, limits. Stateless."""

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
"""Maximum bytes of a call's JSON and of an uploaded submission. A notebook of 1 MB, the most that Kaggle
accepts, is longer as JSON; a full submission has about 10 MB."""

BLOB_LIMIT = 200 << 30
"""Maximum bytes of one file of a dataset. It is written to disk as it arrives."""

PIECE = 1 << 18


class RefusedError(Exception):
    """The call is refused with an HTTP error: ``status``, and ``message`` in Kaggle's JSON form."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers or {}


class Content(Protocol):
    """Bytes to send."""

    @property
    def size(self) -> int:
        """Number of bytes."""
        ...

    def pieces(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes from ``start`` up to ``stop``, chunk by chunk."""
        ...


@dataclass(frozen=True)
class Text:
    """Content held in memory."""

    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    def pieces(self, start: int, stop: int) -> Iterator[bytes]:
        yield self.data[start:stop]


@dataclass(frozen=True)
class File:
    """Content read from disk while it is sent."""

    path: Path
    size: int

    def pieces(self, start: int, stop: int) -> Iterator[bytes]:
        with self.path.open("rb") as file:
            file.seek(start)
            while start < stop and (piece := file.read(min(PIECE, stop - start))):
                start += len(piece)
                yield piece


@dataclass(frozen=True)
class CorruptContent:
    """Content with ``length`` bytes inverted from offset ``at`` on."""

    content: Content
    at: int
    length: int = 64

    @property
    def size(self) -> int:
        return self.content.size

    def pieces(self, start: int, stop: int) -> Iterator[bytes]:
        """Yield the bytes from ``start`` to ``stop``, some of them inverted."""
        for piece in self.content.pieces(start, stop):
            inverted = range(max(self.at, start), min(self.at + self.length, start + len(piece)))
            corrupted = bytearray(piece)
            for offset in inverted:
                corrupted[offset - start] ^= 0xFF
            start += len(piece)
            yield bytes(corrupted)


@dataclass
class Disruption:
    """Disruption of a reply: seconds of delay, bytes after which it is cut or stalls, or dropped altogether."""

    delay: float = 0.0
    cut_after: int | None = None
    stall_after: int | None = None
    dropped: bool = False


@dataclass
class Reply:
    """A reply that sends the bytes of ``content`` from ``start`` up to ``stop``."""

    status: int
    headers: dict[str, str]
    content: Content
    start: int = 0
    stop: int = -1
    disruption: Disruption = field(default_factory=Disruption)

    def __post_init__(self) -> None:
        if self.stop < 0:
            self.stop = self.content.size

    @property
    def length(self) -> int:
        """Announced length of the body."""
        return self.stop - self.start


def json_reply(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Reply:
    """Make a reply with ``value`` as JSON."""
    body = json.dumps(value).encode()
    return Reply(status, {"Content-Type": "application/json", **(headers or {})}, Text(body))


def error_reply(refusal: RefusedError) -> Reply:
    """Make an error reply in Kaggle's form: the code once more, and a message that the client shows."""
    value = {"code": refusal.status, "message": refusal.message}
    return json_reply(value, refusal.status, refusal.headers)


def bare_reply(status: int, text: str) -> Reply:
    """Make an error page like that of a gateway or of the storage behind a signed address."""
    return Reply(status, {"Content-Type": "text/plain; charset=utf-8"}, Text(text.encode()))


def redirect(address: str) -> Reply:
    """Make a 302 to ``address``."""
    return Reply(302, {"Location": address}, Text(b""))


def file_reply(content: Content, kind: str, etag: str, modified: float, headers: Headers) -> Reply:
    """Make a reply with ``content`` or the requested Range of it: 200, 206 or (RefusedError) 416.

    If-Range is honoured: a client that resumes a different object gets all of this one.
    """
    validators = {"ETag": etag, "Last-Modified": formatdate(modified, usegmt=True)}
    common = {"Content-Type": kind, "Accept-Ranges": "bytes", **validators}
    requested = headers.get("Range")
    if headers.get("If-Range", etag) not in validators.values():
        requested = None
    part = read_range(requested, content.size)
    if part is None:
        return Reply(200, common, content)
    start, stop = part
    return Reply(
        206, {**common, "Content-Range": f"bytes {start}-{stop - 1}/{content.size}"}, content, start, stop
    )


def read_range(header: str | None, size: int) -> tuple[int, int] | None:
    """Return (start, stop) of the byte range that ``header`` requests of ``size`` bytes; None means
    everything.

    Anything but one plain byte range is ignored, as RFC 9110 allows. Raises RefusedError 416 past the end.
    """
    parsed = parse_range_header(header)
    if parsed is None or parsed.units != "bytes" or len(parsed.ranges) != 1:
        return None
    start, end = parsed.ranges[0]
    if start < 0:
        start, stop = max(size + start, 0), size
    else:
        stop = size if end is None else min(end, size)
    if start >= size:
        raise RefusedError(416, "There are no such bytes.", {"Content-Range": f"bytes */{size}"})
    return (start, stop) if start < stop else None
