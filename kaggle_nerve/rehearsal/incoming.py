"""Parse incoming HTTP requests with Werkzeug; read uploaded files chunk by chunk. Stateless."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import urlsplit

from werkzeug.datastructures import Headers
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge
from werkzeug.wrappers import Request as Reader

from kaggle_nerve.rehearsal.links import BLOBS
from kaggle_nerve.rehearsal.wire import BLOB_LIMIT, JSON_LIMIT, PIECE, UPLOAD_LIMIT, RefusedError


@dataclass
class Incoming:
    """A request body that is read chunk by chunk, for files too large for memory; ``received`` counts its
    bytes.

    ``length`` is the announced Content-Length; None for a chunked body, which is short.
    """

    stream: IO[bytes]
    length: int | None
    received: int = 0
    whole: bool = False

    def pieces(self) -> Iterator[bytes]:
        """Yield the rest of the body. Raises ConnectionResetError if the client disconnects before the end."""
        while not self.whole:
            count = PIECE if self.length is None else min(PIECE, self.length - self.received)
            piece = _read(self.stream, count) if count else b""
            self.whole = not piece
            self.received += len(piece)
            yield piece


@dataclass(frozen=True)
class Request:
    """A request. ``host`` is the host the client wanted to reach, lower case, without the port.

    ``incoming`` is the body of an upload that has not been read yet; then ``body`` is empty.
    """

    method: str
    host: str
    path: str
    query: dict[str, str]
    headers: Headers
    body: bytes = b""
    incoming: Incoming | None = None

    @property
    def received(self) -> int:
        """Announced bytes of the body."""
        return len(self.body) if self.incoming is None else self.incoming.length or 0


def read_request(environ: dict[str, Any]) -> Request:
    """Parse the request. Raises RefusedError for a bad address or length, and for a body that is too long.

    Raises ConnectionResetError if the client disconnects before the end.
    """
    reader = Reader(environ, populate_request=False)
    # A CONNECT names its target only in the request line.
    netloc = environ["RAW_URI"] if reader.method == "CONNECT" else environ.get("HTTP_HOST", "")
    try:
        host = urlsplit(f"//{netloc}").hostname or ""
    except ValueError as fault:
        raise RefusedError(400, "The request's address is malformed.") from fault
    content_length = environ.get("CONTENT_LENGTH", "0")
    if not (content_length.isascii() and content_length.isdigit()):
        raise RefusedError(400, "Content-Length is not a number.")
    head = reader.method, host, reader.path, reader.args.to_dict(), reader.headers
    is_blob = reader.method == "PUT" and reader.path.startswith(BLOBS)
    limit = BLOB_LIMIT if is_blob else UPLOAD_LIMIT if reader.method == "PUT" else JSON_LIMIT
    reader.max_content_length = limit
    try:
        if is_blob:
            length = None if environ.get("wsgi.input_terminated") else int(content_length)
            return Request(*head, incoming=Incoming(reader.stream, length))
        return Request(*head, body=_read(reader.stream, -1))
    except RequestEntityTooLarge as fault:
        raise RefusedError(413, f"The body has more than {limit} bytes.") from fault


def _read(stream: IO[bytes], count: int) -> bytes:
    try:
        return stream.read(count)
    except (ClientDisconnected, OSError) as fault:
        cause = fault.__context__ or fault
        if isinstance(cause, OSError) and not isinstance(cause, (ConnectionError, TimeoutError)):
            raise RefusedError(400, "A chunk's length is not a number.") from fault
        raise ConnectionResetError("the client left in the middle of its request") from fault
