"""HTTP as Kaggle speaks it: requests and replies as values, JSON, ranges, body limits. No state."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import Message
from email.utils import formatdate
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from urllib.parse import parse_qsl, urlsplit

LOOPBACK = ("127.0.0.1", "localhost")
JSON_LIMIT = 1 << 20
UPLOAD_LIMIT = 100 << 20
"""Bytes that a call's JSON and an uploaded submission may have; a full submission has about 10 MB."""

PIECE = 1 << 18
PLAIN_RANGE = re.compile(r"bytes=(?!-$)([0-9]{0,18})-([0-9]{0,18})")


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


@dataclass(frozen=True)
class Request:
    """What came in. ``host`` is whom the client wanted to reach, lower case, without the port."""

    method: str
    host: str
    path: str
    query: dict[str, str]
    headers: Message
    body: bytes = b""


def read_target(target: str, headers: Message) -> tuple[str, str, dict[str, str]]:
    """(host, path, query) of a request line's target, in origin form or, as to a proxy, in absolute form."""
    try:
        parts = urlsplit(target)
        host = parts.hostname or urlsplit("//" + headers.get("Host", "")).hostname or ""
    except ValueError as fault:
        raise RefusedError(400, "The request's address is malformed.") from fault
    return host, parts.path, dict(parse_qsl(parts.query))


def read_body(stream: BinaryIO, headers: Message, limit: int) -> bytes:
    """The request's body, sent with a length or in chunks. RefusedError for a bad length or a long body."""
    if headers.get("Transfer-Encoding", "").lower() == "chunked":
        return _read_chunks(stream, limit)
    length = headers.get("Content-Length", "0")
    if not (length.isascii() and length.isdigit()):
        raise RefusedError(400, "Content-Length is not a number.")
    if int(length) > limit:
        raise RefusedError(413, f"The body has {length} bytes; at most {limit} are taken.")
    body = stream.read(int(length))
    if len(body) < int(length):
        raise ConnectionResetError("the client left in the middle of its request")
    return body


def _read_chunks(stream: BinaryIO, limit: int) -> bytes:
    """The client sends an empty file in chunks, since its length is not true."""
    body = bytearray()
    while True:
        try:
            length = int(stream.readline(64).split(b";")[0], 16)
        except ValueError as fault:
            raise RefusedError(400, "A chunk's length is not a number.") from fault
        if length < 0 or len(body) + length > limit:
            raise RefusedError(413, f"The body has more than {limit} bytes.")
        body += stream.read(length)
        stream.readline(64)
        if length == 0:
            return bytes(body)


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


def file_reply(content: Content, kind: str, etag: str, modified: float, headers: Message) -> Reply:
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
    if not (asked := PLAIN_RANGE.fullmatch((header or "").strip())):
        return None
    first, last = asked.groups()
    if not first:
        start, stop = max(size - int(last), 0), size
    else:
        start, stop = int(first), min(int(last or size) + 1, size)
    if start >= size:
        raise RefusedError(416, "There are no such bytes.", {"Content-Range": f"bytes */{size}"})
    return (start, stop) if start < stop else None
