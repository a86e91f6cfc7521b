"""What stands between a machine and Kaggle: a proxy, a filter, the login page of a network. All on 127.0.0.1."""

import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

Act = Callable[[socket.socket], None]
NAMES = "subjectAltName=DNS:api.kaggle.com,DNS:www.kaggle.com"


@contextmanager
def listening(act: Act) -> Iterator[str]:
    """A server that does ``act`` with each connection; its address as a proxy."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_accept, args=(server, act), daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def answer(status: str, body: str = "", kind: str = "text/html") -> Act:
    """Answer one request."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close"
    text = f"{head}\r\n\r\n{body}"

    def act(connection: socket.socket) -> None:
        _read_request(connection)
        connection.sendall(text.encode())

    return act


def tunnel(act: Act) -> Act:
    """Accept CONNECT as a proxy, and act as the host behind it."""

    def through(connection: socket.socket) -> None:
        _read_request(connection)
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        act(connection)

    return through


def encrypted(act: Act, pem: Path) -> Act:
    """Open TLS with the certificate in ``pem``, and act inside it."""

    def inside(connection: socket.socket) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        with context.wrap_socket(connection, server_side=True) as wrapped:
            act(wrapped)

    return inside


def make_certificate(folder: Path) -> Path:
    """A key and a certificate in Kaggle's name that nobody trusts; the test skips by name without openssl."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl to make a certificate with")
    pem, words = folder / "both.pem", ["-newkey", "rsa:2048", "-nodes", "-subj", "/CN=api.kaggle.com"]
    files = ["-keyout", folder / "key.pem", "-out", folder / "certificate.pem"]
    subprocess.run(
        ["openssl", "req", "-x509", *words, "-addext", NAMES, *files], check=True, capture_output=True
    )
    pem.write_text((folder / "key.pem").read_text() + (folder / "certificate.pem").read_text())
    return pem


def _accept(server: socket.socket, act: Act) -> None:
    with suppress(OSError):  # closed at the end
        while True:
            threading.Thread(target=_serve, args=(server.accept()[0], act), daemon=True).start()


def _serve(connection: socket.socket, act: Act) -> None:
    with suppress(OSError), connection:  # a client that does not like the answer
        act(connection)


def _read_request(connection: socket.socket) -> None:
    """Read head and body: a server that closes before loses its answer."""
    data = b""
    while b"\r\n\r\n" not in data and (piece := connection.recv(65536)):
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    sizes = [
        int(line.split(b":")[1]) for line in head.splitlines() if line.lower().startswith(b"content-length")
    ]
    while len(body) < sum(sizes) and (piece := connection.recv(65536)):
        body += piece
