"""The socket side: reads a request, has it answered, and sends the reply as its fate wants."""

import select
import socket
import sys
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from kaggle_nerve.rehearsal import routes
from kaggle_nerve.rehearsal.exchange import Exchange, House, Record
from kaggle_nerve.rehearsal.incoming import Incoming, Request, read_body, read_target
from kaggle_nerve.rehearsal.links import BLOBS, UPLOADS
from kaggle_nerve.rehearsal.wire import (
    BLOB_LIMIT,
    JSON_LIMIT,
    UPLOAD_LIMIT,
    RefusedError,
    Reply,
    error_reply,
)

GONE = (ConnectionError, TimeoutError)
"""The client left, or does not take what it asked for. That is its right, and no defect of the server."""


class Listener(ThreadingHTTPServer):
    """Listens on 127.0.0.1, on any free port; a thread per connection, all of them ended by ``end``."""

    daemon_threads = True
    house: House

    def __init__(self, log: list[Record], errors: list[Exception], port: int = 0) -> None:
        self.log, self.errors = log, errors
        self.stopping = threading.Event()
        self._open: dict[socket.socket, threading.Thread] = {}
        super().__init__(("127.0.0.1", port), Handler)

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


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server_version = "kaggle-nerve-rehearsal"
    timeout = 300
    disable_nagle_algorithm = True
    server: Listener  # pyright: ignore[reportIncompatibleVariableOverride]

    def serve(self) -> None:
        """Answer one request, whatever its method."""
        record = Record(self.command, "", "", span=self.headers.get("Range", ""))
        self.server.log.append(record)
        try:
            reply = self._answer(record)
        except GONE:
            record.aborted = self.close_connection = True
            return
        except Exception as fault:
            self.server.errors.append(fault)
            reply = error_reply(RefusedError(500, f"The rehearsal server has a defect: {fault!r}"))
        record.status = reply.status
        try:
            self._send(reply, record)
        except GONE:
            record.aborted = self.close_connection = True

    def __getattr__(self, name: str) -> object:
        """The standard handler looks for ``do_GET`` and so on: here all methods go one way."""
        if name.startswith("do_"):
            return self.serve
        raise AttributeError(name)

    def log_message(self, format: str, *args: object) -> None:
        """A library does not print; ``log`` has it all."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What is not even HTTP, or a method nobody knows, is in the log too."""
        self.server.log.append(Record(self.command or "", "", "", status=int(code)))
        super().send_error(code, message, explain)

    def _answer(self, record: Record) -> Reply:
        try:
            request = self._read(record)
        except RefusedError as refusal:
            self.close_connection = True  # the rest of the request is still on its way
            return error_reply(refusal)
        reply = routes.answer(Exchange(self.server.house, request, record))
        if request.incoming is not None:
            # The client reads no answer before it has sent everything.
            for _ in request.incoming.pieces():
                pass
        return reply

    def _read(self, record: Record) -> Request:
        target = f"//{self.path}" if self.command == "CONNECT" else self.path
        record.host, path, query = read_target(target, self.headers)
        record.path = f"{UPLOADS}***" if path.startswith(UPLOADS) else path
        if self.command == "PUT" and path.startswith(BLOBS):
            incoming = Incoming(self.rfile, self.headers, BLOB_LIMIT)
            record.received = incoming.length or 0
            return Request(self.command, record.host, path, query, self.headers, incoming=incoming)
        limit = UPLOAD_LIMIT if self.command == "PUT" else JSON_LIMIT
        body = read_body(self.rfile, self.headers, limit)
        record.received = len(body)
        return Request(self.command, record.host, path, query, self.headers, body)

    def _send(self, reply: Reply, record: Record) -> None:
        fate = reply.fate
        self.server.stopping.wait(fate.delay)
        if fate.dropped:
            return self._break_off()
        if fate.stall_after == 0:
            return self._stall()
        self._send_head(reply)
        self._send_body(reply, record)
        if fate.stall_after is not None:
            return self._stall()
        return self._break_off() if fate.cut_after is not None else None

    def _send_head(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(reply.length))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()

    def _send_body(self, reply: Reply, record: Record) -> None:
        """Send the content, or as much of it as its fate allows."""
        ends = (reply.length, reply.fate.cut_after, reply.fate.stall_after)
        stop = reply.start + min(end for end in ends if end is not None)
        if self.command == "HEAD":
            return
        for piece in reply.content.pieces(reply.start, stop):
            self.wfile.write(piece)
            record.sent += len(piece)

    def _stall(self) -> None:
        """Say nothing more until the server stops or the client leaves."""
        while not (self.server.stopping.wait(0.1) or self._client_left()):
            pass
        self._break_off()

    def _client_left(self) -> bool:
        readable, _, _ = select.select([self.connection], [], [], 0)
        return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)

    def _break_off(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)
