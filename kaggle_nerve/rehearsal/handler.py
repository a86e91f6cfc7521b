"""The socket side: Werkzeug reads a request, it is answered, and the reply is sent as its fate wants."""

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
from kaggle_nerve.rehearsal.exchange import Exchange, House, Record
from kaggle_nerve.rehearsal.incoming import read_request
from kaggle_nerve.rehearsal.links import UPLOADS
from kaggle_nerve.rehearsal.wire import RefusedError, Reply, error_reply

GONE = (ConnectionError, TimeoutError)
"""The client left, or does not take what it asked for. That is its right, and no defect of the server."""

Environ = dict[str, Any]


class BrokenOffError(ConnectionAbortedError):
    """The server broke the connection off, as a fault wants it."""


class Handler(WSGIRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    timeout = 300
    disable_nagle_algorithm = True
    server: "Listener"  # pyright: ignore[reportIncompatibleVariableOverride]

    def log(self, type: str, message: str, *args: object) -> None:
        """A library does not print; the server's ``log`` has it all."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What is not even HTTP is in the log, too."""
        self.server.log_of_requests.append(Record(self.command or "", "", "", status=int(code)))
        super().send_error(code, message, explain)


class Listener(ThreadedWSGIServer):
    """Listens on 127.0.0.1, on any free port; a thread per connection, all of them ended by ``end``."""

    daemon_threads = True
    house: House

    def __init__(self, log: list[Record], errors: list[Exception], port: int = 0) -> None:
        self.log_of_requests, self.errors = log, errors
        self.stopping = threading.Event()
        self._open: dict[socket.socket, threading.Thread] = {}
        # Bound here: Werkzeug prints, and ends the process, where the port is taken.
        with socket.create_server(("127.0.0.1", port)) as bound:
            host, free_port = bound.getsockname()
            super().__init__(host, free_port, self._answer, handler=Handler, fd=bound.fileno())

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Remember which thread has which connection."""
        self._open[request] = threading.current_thread()
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._open.pop(request, None)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Called while the exception is handled; the standard one would print it."""
        fault = sys.exception()
        if isinstance(fault, Exception) and not isinstance(fault, GONE):
            self.errors.append(fault)

    def end(self) -> None:
        """Stop accepting, break off what is open, wait for its threads."""
        self.stopping.set()
        self.shutdown()
        for connection, thread in list(self._open.items()):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            thread.join(5)
        self.server_close()

    def _answer(self, environ: Environ, start: Callable[..., object]) -> Iterator[bytes]:
        """The WSGI application."""
        record = Record(environ["REQUEST_METHOD"], "", "", span=environ.get("HTTP_RANGE", ""))
        self.log_of_requests.append(record)
        try:
            reply = self._reply(environ, record)
            record.status = reply.status
            yield from self._sent(reply, environ, start, record)
        except BrokenOffError:
            raise
        except (*GONE, GeneratorExit):
            record.aborted = True
            raise

    def _reply(self, environ: Environ, record: Record) -> Reply:
        try:
            request = read_request(environ)
        except RefusedError as refusal:
            return error_reply(refusal)
        record.host, record.received = request.host, request.received
        record.path = f"{UPLOADS}***" if request.path.startswith(UPLOADS) else request.path
        try:
            reply = routes.answer(Exchange(self.house, request, record))
            if request.incoming is not None:
                for _ in request.incoming.pieces():
                    pass  # the client reads no answer before it has sent everything
        except GONE:
            raise
        except Exception as fault:
            self.errors.append(fault)
            return error_reply(RefusedError(500, f"The rehearsal server has a defect: {fault!r}"))
        return reply

    def _sent(
        self, reply: Reply, environ: Environ, start: Callable[..., object], record: Record
    ) -> Iterator[bytes]:
        """The body, or as much of it as its fate allows."""
        fate, connection = reply.fate, environ["werkzeug.socket"]
        self.stopping.wait(fate.delay)
        if fate.dropped:
            _break_off(connection)
        if fate.stall_after == 0:
            self._stall(connection)
        headers = {**reply.headers, "Content-Length": str(reply.length)}
        start(f"{reply.status} {_phrase(reply.status)}", list(headers.items()))
        ends = (reply.length, fate.cut_after, fate.stall_after)
        stop = reply.start + min(end for end in ends if end is not None)
        yield b""  # the headers, whatever follows
        if record.method != "HEAD":
            for piece in reply.content.pieces(reply.start, stop):
                yield piece
                record.sent += len(piece)
        if fate.stall_after is not None:
            self._stall(connection)
        if fate.cut_after is not None:
            _break_off(connection)

    def _stall(self, connection: socket.socket) -> None:
        """Say nothing more until the server stops or the client leaves."""
        while not (self.stopping.wait(0.1) or _has_left(connection)):
            pass
        _break_off(connection)


def _has_left(connection: socket.socket) -> bool:
    readable, _, _ = select.select([connection], [], [], 0)
    return bool(readable) and not connection.recv(1, socket.MSG_PEEK)


def _break_off(connection: socket.socket) -> NoReturn:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    raise BrokenOffError


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
