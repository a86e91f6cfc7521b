"""What comes in over HTTP: requests as values, and bodies read whole or piece by piece. No state."""

from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message
from io import BufferedIOBase
from urllib.parse import parse_qsl, urlsplit

from kaggle_nerve.rehearsal.wire import JSON_LIMIT, PIECE, RefusedError


@dataclass
class Incoming:
    """A body that is read piece by piece, for files that are not held in memory; ``received`` counts its bytes.

    ``length`` is what the request announces; only what the client sends in chunks has none, and is short.
    """

    stream: BufferedIOBase
    headers: Message
    limit: int
    received: int = 0
    whole: bool = False

    @property
    def length(self) -> int | None:
        """The announced length, None for a body in chunks. RefusedError for a bad one."""
        return None if _is_chunked(self.headers) else _length(self.headers, self.limit)

    def pieces(self) -> Iterator[bytes]:
        """What has not been read yet. ConnectionResetError where the client leaves before the end."""
        if self.whole:
            return
        if self.length is None:
            self.whole = True
            yield self._count(_read_chunks(self.stream, JSON_LIMIT))
            return
        while self.received < self.length:
            yield self._count(self.stream.read1(min(PIECE, self.length - self.received)))
        self.whole = True

    def _count(self, piece: bytes) -> bytes:
        if not piece and self.length:
            raise ConnectionResetError("the client left in the middle of its upload")
        self.received += len(piece)
        return piece


@dataclass(frozen=True)
class Request:
    """What came in. ``host`` is whom the client wanted to reach, lower case, without the port.

    ``incoming`` is the body of an upload that is still on its way; then ``body`` is empty.
    """

    method: str
    host: str
    path: str
    query: dict[str, str]
    headers: Message
    body: bytes = b""
    incoming: Incoming | None = None


def read_target(target: str, headers: Message) -> tuple[str, str, dict[str, str]]:
    """(host, path, query) of a request line's target, in origin form or, as to a proxy, in absolute form."""
    try:
        parts = urlsplit(target)
        host = parts.hostname or urlsplit("//" + headers.get("Host", "")).hostname or ""
    except ValueError as fault:
        raise RefusedError(400, "The request's address is malformed.") from fault
    return host, parts.path, dict(parse_qsl(parts.query))


def read_body(stream: BufferedIOBase, headers: Message, limit: int) -> bytes:
    """The request's body, sent with a length or in chunks. RefusedError for a bad length or a long body."""
    if _is_chunked(headers):
        return _read_chunks(stream, limit)
    length = _length(headers, limit)
    body = stream.read(length)
    if len(body) < length:
        raise ConnectionResetError("the client left in the middle of its request")
    return body


def _is_chunked(headers: Message) -> bool:
    return headers.get("Transfer-Encoding", "").lower() == "chunked"


def _length(headers: Message, limit: int) -> int:
    length = headers.get("Content-Length", "0")
    if not (length.isascii() and length.isdigit()):
        raise RefusedError(400, "Content-Length is not a number.")
    if int(length) > limit:
        raise RefusedError(413, f"The body has {length} bytes; at most {limit} are taken.")
    return int(length)


def _read_chunks(stream: BufferedIOBase, limit: int) -> bytes:
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
