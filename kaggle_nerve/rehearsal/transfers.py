"""The storage behind signed addresses: the zip, single files, kernel output, and uploaded submissions."""

import hashlib
import io
import zipfile

from kaggle_nerve.rehearsal.exchange import Exchange
from kaggle_nerve.rehearsal.wire import (
    Content,
    CorruptContent,
    File,
    RefusedError,
    Reply,
    Text,
    bare_reply,
    file_reply,
)

ARCHIVE, FILE, OUTPUT = "archive", "file", "output"


def send_archive(exchange: Exchange, name: str) -> Reply:
    """Send the competition's zip, or the requested range of it."""
    served = exchange.services.served
    if name != served.archive.name:
        raise RefusedError(404, "There is no such object.")
    content = File(served.archive, served.archive.stat().st_size)
    return _send(exchange, content, "application/zip", served.digest, served.archive.stat().st_mtime)


def send_file(exchange: Exchange, name: str) -> Reply:
    """Send one file of the competition; NAME.zip requests it zipped."""
    served = exchange.services.served
    is_zipped = served.member(name) is None and name.endswith(".zip")
    member = served.member(name.removesuffix(".zip") if is_zipped else name)
    if member is None:
        raise RefusedError(404, "There is no such object.")
    data = served.read_member(member.name)
    if is_zipped:
        data = _zip(member.name.rpartition("/")[2], data)
    kind = "application/zip" if is_zipped else "application/octet-stream"
    modified = served.archive.stat().st_mtime
    return _send(exchange, Text(data), kind, hashlib.sha256(data).hexdigest(), modified)


def send_output(exchange: Exchange, name: str) -> Reply:
    """Send an output file of a kernel's session."""
    slug, _, inner = name.partition("/")
    path = dict(exchange.services.kernels.output(slug)).get(inner)
    if path is None:
        raise RefusedError(404, "There is no such object.")
    stat = path.stat()
    tag = hashlib.sha256(f"{name} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()
    return _send(exchange, File(path, stat.st_size), "application/octet-stream", tag, stat.st_mtime)


def receive_upload(exchange: Exchange, token: str) -> Reply:
    """Receive a submission at the address that StartSubmissionUpload returned."""
    state, body = exchange.services.state, exchange.request.body
    upload = state.upload(token)
    if upload is None:
        raise RefusedError(404, "No upload was announced for this address.")
    if "Content-Range" in exchange.request.headers:
        raise RefusedError(501, "Resumed uploads are not rehearsed: submissions are sent whole.")
    if len(body) != upload.length:
        raise RefusedError(400, f"{upload.length} bytes were announced, {len(body)} came.")
    state.receive(token, body)
    return Reply(200, {}, Text(b""))


def _send(exchange: Exchange, content: Content, kind: str, digest: str, modified: float) -> Reply:
    headers = exchange.request.headers
    exchange.services.links.check(exchange.request.path, exchange.request.query)
    if exchange.trigger("expired-link", lambda fault: "Range" in headers or not fault["resume"]):
        return bare_reply(403, "<Error><Code>AccessDenied</Code><Message>Expired.</Message></Error>")
    reply = file_reply(content, kind, f'"{digest[:32]}"', modified, headers)
    fault = exchange.trigger(
        "corrupt", lambda fault: reply.start <= _offset(fault["at"], content) < reply.stop
    )
    if fault:
        reply.content = CorruptContent(content, _offset(fault["at"], content))
    return reply


def _offset(at: int, content: Content) -> int:
    return at if at >= 0 else content.size // 2


def _zip(name: str, data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()
