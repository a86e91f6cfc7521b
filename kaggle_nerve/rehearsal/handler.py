"""The socket side: Werkzeug reads a request, ``routes`` answers it, and the reply is sent with its injected
faults."""

import select
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from http import HTTPStatus
from typing import Any, NoReturn

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

from kaggle_nerve.rehearsal import routes
from kaggle_nerve.rehearsal.exchange import Exchange, Record, Services
from kaggle_nerve.rehearsal.incoming import read_request
from kaggle_nerve.rehearsal.links import UPLOADS
from kaggle_nerve.rehearsal.wire import RefusedError, Reply, error_reply

DISCONNECTED = (ConnectionError, TimeoutError)
"""The client disconnected or does not read the answer. This is no defect of the server."""

Environ = dict[str, Any]


class ConnectionClosedError(ConnectionAbortedError):
    """The server closed the connection because a fault demands it."""


class Handler(WSGIRequestHandler):
    """Handler of one connection."""

    protocol_version = "HTTP/1.1"
    timeout = 300
    disable_nagle_algorithm = True
    server: "Listener"  # pyright: ignore[reportIncompatibleVariableOverride]

    def log(self, type: str, message: str, *args: object) -> None:
        """Print nothing: the server's ``log`` has every request."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Log requests that are not even HTTP, too."""
        self.server.log_of_requests.append(Record(self.command or "", "", "", status=int(code)))
        super().send_error(code, message, explain)


class Listener(ThreadedWSGIServer):
    """Listener on 127.0.0.1, on any free port. Each connection has a thread; ``end`` ends them all."""

    daemon_threads = True
    services: Services

    def __init__(self, log: list[Record], errors: list[Exception], port: int = 0) -> None:
        self.log_of_requests, self.errors = log, errors
        self.stopping = threading.Event()
        self._open: dict[socket.socket, threading.Thread] = {}
        # Bind here: if the port is in use, Werkzeug would print and exit the process.
        with socket.create_server(("127.0.0.1", port)) as listening:
            host, free_port = listening.getsockname()
            super().__init__(host, free_port, self._answer, handler=Handler, fd=listening.fileno())

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Record which thread serves which connection."""
        self._open[request] = threading.current_thread()
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._open.pop(request, None)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Collect defects; the standard method would print them."""
        fault = sys.exception()
        if isinstance(fault, Exception) and not isinstance(fault, DISCONNECTED):
            self.errors.append(fault)

    def end(self) -> None:
        """Stop accepting, close open connections, and wait for their threads."""
        self.stopping.set()
        self.shutdown()
        for connection, thread in list(self._open.items()):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            thread.join(5)
        self.server_close()

    def _answer(self, environ: Environ, start: Callable[..., object]) -> Iterator[bytes]:
        """Answer one request, as a WSGI application."""
        record = Record(environ["REQUEST_METHOD"], "", "", span=environ.get("HTTP_RANGE", ""))
        self.log_of_requests.append(record)
        try:
            reply = self._reply(environ, record)
            record.status = reply.status
            yield from self._send_body(reply, environ, start, record)
        except ConnectionClosedError:
            raise
        except (*DISCONNECTED, GeneratorExit):
            record.aborted = True
            # Else Werkzeug would wait for the rest of the request.
            with suppress(OSError):
                environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            raise

    def _reply(self, environ: Environ, record: Record) -> Reply:
        try:
            request = read_request(environ)
        except RefusedError as error:
            return error_reply(error)
        record.host, record.received = request.host, request.received
        record.path = f"{UPLOADS}***" if request.path.startswith(UPLOADS) else request.path
        try:
            reply = routes.handle(Exchange(self.services, request, record))
            if request.incoming is not None:
                for _ in request.incoming.pieces():
                    pass  # clients read no answer before they have sent everything
        except DISCONNECTED:
            raise
        except Exception as fault:
            self.errors.append(fault)
            return error_reply(RefusedError(500, f"The rehearsal server has a defect: {fault!r}"))
        return reply

    def _send_body(
        self, reply: Reply, environ: Environ, start: Callable[..., object], record: Record
    ) -> Iterator[bytes]:
        """Yield the body, or as much of it as the injected faults allow."""
        disruption, connection = reply.disruption, environ["werkzeug.socket"]
        self.stopping.wait(disruption.delay)
        if disruption.dropped:
            _close(connection)
        if disruption.stall_after == 0:
            self._stall(connection)
        headers = {**reply.headers, "Content-Length": str(reply.length)}
        start(f"{reply.status} {_phrase(reply.status)}", list(headers.items()))
        ends = (reply.length, disruption.cut_after, disruption.stall_after)
        stop = reply.start + min(end for end in ends if end is not None)
        yield b""  # sends the headers
        if record.method != "HEAD":
            for chunk in reply.content.pieces(reply.start, stop):
                yield chunk
                record.sent += len(chunk)
        if disruption.stall_after is not None:
            self._stall(connection)
        if disruption.cut_after is not None:
            _close(connection)

    def _stall(self, connection: socket.socket) -> None:
        """Send nothing more until the server stops or the client disconnects."""
        while not (self.stopping.wait(0.1) or _is_disconnected(connection)):
            pass
        _close(connection)


def _is_disconnected(connection: socket.socket) -> bool:
    readable, _, _ = select.select([connection], [], [], 0)
    return bool(readable) and not connection.recv(1, socket.MSG_PEEK)


def _close(connection: socket.socket) -> NoReturn:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    raise ConnectionClosedError


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
