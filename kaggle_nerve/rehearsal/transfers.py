"""The storage behind signed addresses: the zip, single files, kernels' output, and where submissions are put."""

import hashlib
import io
import zipfile

from kaggle_nerve.rehearsal.exchange import Exchange
from kaggle_nerve.rehearsal.wire import (
    Content,
    Corrupted,
    File,
    RefusedError,
    Reply,
    Text,
    bare_reply,
    file_reply,
)

ARCHIVE, FILE, OUTPUT = "archive", "file", "output"


def send_archive(exchange: Exchange, name: str) -> Reply:
    """The competition's zip, or the range of it that is asked for."""
    served = exchange.house.served
    if name != served.archive.name:
        raise RefusedError(404, "There is no such object.")
    content = File(served.archive, served.archive.stat().st_size)
    return _send(exchange, content, "application/zip", served.digest, served.archive.stat().st_mtime)


def send_file(exchange: Exchange, name: str) -> Reply:
    """One file of the competition; as NAME.zip it comes wrapped."""
    served = exchange.house.served
    wrapped = served.member(name) is None and name.endswith(".zip")
    member = served.member(name.removesuffix(".zip") if wrapped else name)
    if member is None:
        raise RefusedError(404, "There is no such object.")
    data = served.read_member(member.name)
    if wrapped:
        data = _wrap(member.name.rpartition("/")[2], data)
    kind = "application/zip" if wrapped else "application/octet-stream"
    modified = served.archive.stat().st_mtime
    return _send(exchange, Text(data), kind, hashlib.sha256(data).hexdigest(), modified)


def send_output(exchange: Exchange, name: str) -> Reply:
    """A file that a kernel's session left."""
    slug, _, inner = name.partition("/")
    path = dict(exchange.house.kernels.output(slug)).get(inner)
    if path is None:
        raise RefusedError(404, "There is no such object.")
    about = path.stat()
    tag = hashlib.sha256(f"{name} {about.st_size} {about.st_mtime_ns}".encode()).hexdigest()
    return _send(exchange, File(path, about.st_size), "application/octet-stream", tag, about.st_mtime)


def take_upload(exchange: Exchange, token: str) -> Reply:
    """A submission's bytes come to the address that StartSubmissionUpload gave."""
    state, body = exchange.house.state, exchange.request.body
    announced = state.announced(token)
    if announced is None:
        raise RefusedError(404, "No upload was announced for this address.")
    if "Content-Range" in exchange.request.headers:
        raise RefusedError(501, "Resumed uploads are not rehearsed: submissions are sent whole.")
    if len(body) != announced.length:
        raise RefusedError(400, f"{announced.length} bytes were announced, {len(body)} came.")
    state.receive(token, body)
    return Reply(200, {}, Text(b""))


def _send(exchange: Exchange, content: Content, kind: str, digest: str, modified: float) -> Reply:
    headers = exchange.request.headers
    exchange.house.links.check(exchange.request.path, exchange.request.query)
    if exchange.strike("expired-link", lambda fault: "Range" in headers or not fault["resume"]):
        return bare_reply(403, "<Error><Code>AccessDenied</Code><Message>Expired.</Message></Error>")
    reply = file_reply(content, kind, f'"{digest[:32]}"', modified, headers)
    corrupt = exchange.strike(
        "corrupt", lambda fault: reply.start <= _spot(fault["at"], content) < reply.stop
    )
    if corrupt:
        reply.content = Corrupted(content, _spot(corrupt["at"], content))
    return reply


def _spot(at: int, content: Content) -> int:
    return at if at >= 0 else content.size // 2


def _wrap(name: str, data: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr(zipfile.ZipInfo(name), data)
    return packed.getvalue()
