"""Kaggle's dataset calls: announce and upload files, create a dataset or a version, report its status."""

import re
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any

from kagglesdk.blobs.types import blob_api_service as blobs
from kagglesdk.datasets.types import dataset_api_service as api
from kagglesdk.datasets.types.dataset_enums import DatabundleVersionStatus

from kaggle_nerve.rehearsal.competitions.state import TEAM
from kaggle_nerve.rehearsal.datasets.state import Blob, Dataset
from kaggle_nerve.rehearsal.exchange import Exchange
from kaggle_nerve.rehearsal.wire import BLOB_LIMIT, RefusedError, Reply, Text

SHORTEST, LONGEST = 6, 50
"""Characters of a dataset's title and slug."""

PART = re.compile(r"bytes (?:\*|(\d{1,18})-(\d{1,18}))/(\d{1,18})")


def start_upload(
    exchange: Exchange, request: blobs.ApiStartBlobUploadRequest
) -> blobs.ApiStartBlobUploadResponse:
    """Announce a file of a dataset; the answer says where to upload it."""
    if request.type != blobs.ApiBlobType.DATASET:
        raise RefusedError(501, f"The rehearsal takes files for datasets; {request.type.name} is not built.")
    if not request.name or PurePosixPath(request.name).name != request.name:
        raise RefusedError(400, f"{request.name!r} is no file name.")
    if request.content_length > BLOB_LIMIT:
        raise RefusedError(400, f"A file may have {BLOB_LIMIT} bytes at most.")
    answer = blobs.ApiStartBlobUploadResponse()
    answer.token = exchange.services.datasets.announce(request.name, request.content_length)
    answer.create_url = exchange.services.links.blob(answer.token)
    return answer


def receive_blob(exchange: Exchange, token: str) -> Reply:
    """Receive the bytes of an announced file, all at once or resuming an interrupted upload.

    A request without bytes, for part ``*``, asks how many have arrived: 308, with a Range unless it is none.
    """
    blob, incoming = exchange.services.datasets.blob(token), exchange.request.incoming
    if blob is None or incoming is None:
        raise RefusedError(404, "No upload was announced for this address.")
    header = exchange.request.headers.get("Content-Range")
    start = 0 if header is None else _start(header, blob)
    if start is not None:
        if incoming.length is not None and start + incoming.length != blob.length:
            raise RefusedError(
                400, f"{blob.length} bytes were announced, {start + incoming.length} would come."
            )
        cut = exchange.trigger("upload-cut", lambda fault: fault["after"] < blob.length)
        blob.write(_until(incoming.pieces(), cut["after"]) if cut else incoming.pieces(), start)
    if blob.whole:
        return Reply(200, {}, Text(b""))
    if start is not None:
        raise RefusedError(400, f"{blob.length} bytes were announced, {blob.size} came.")
    return Reply(308, {"Range": f"bytes=0-{blob.size - 1}"} if blob.size else {}, Text(b""))


def create(exchange: Exchange, request: api.ApiCreateDatasetRequest) -> api.ApiCreateDatasetResponse:
    """Create a dataset from uploaded files; refusals come with status 200, in ``error``."""
    datasets, ref = exchange.services.datasets, f"{request.owner_slug}/{request.slug}"
    tokens = [file.token for file in request.files or []]
    objection = _title_objection(request) or _files_objection(exchange, tokens)
    if not objection and (datasets.find(ref) or request.title in [other.title for other in datasets.all]):
        title = request.title
        objection = (
            f'The requested title "{title}" is already in use by a dataset. Please choose another title.'
        )
    if objection:
        return _refusal(objection)
    datasets.create(ref, request.title, request.license_name, request.is_private)
    fails = exchange.trigger("processing-fails") is not None
    return _success(datasets.add_version(ref, "Initial release", tokens, fails))


def create_version(
    exchange: Exchange, request: api.ApiCreateDatasetVersionRequest
) -> api.ApiCreateDatasetResponse:
    """Create a version of a dataset from uploaded files."""
    dataset = _require(exchange, request)
    tokens = [file.token for file in request.body.files or []]
    if objection := _files_objection(exchange, tokens):
        return _refusal(objection)
    fails = exchange.trigger("processing-fails") is not None
    return _success(
        exchange.services.datasets.add_version(dataset.ref, request.body.version_notes, tokens, fails)
    )


def status(exchange: Exchange, request: api.ApiGetDatasetStatusRequest) -> api.ApiGetDatasetStatusResponse:
    """Return the status of the newest version."""
    answer = api.ApiGetDatasetStatusResponse()
    dataset = exchange.services.datasets.poll(_require(exchange, request).ref)
    answer.status = DatabundleVersionStatus[dataset.latest.status]
    return answer


def get(exchange: Exchange, request: api.ApiGetDatasetRequest) -> api.ApiDataset:
    """Return the dataset's metadata."""
    dataset = _require(exchange, request)
    answer = api.ApiDataset()
    answer.ref, answer.title, answer.is_private = dataset.ref, dataset.title, dataset.is_private
    answer.license_name, answer.owner_ref = dataset.license, TEAM
    answer.current_version_number = dataset.latest.number
    answer.url = f"https://www.kaggle.com/datasets/{dataset.ref}"
    return answer


def _require(exchange: Exchange, request: Any) -> Dataset:
    dataset = exchange.services.datasets.find(f"{request.owner_slug}/{request.dataset_slug}")
    if dataset is None:
        raise RefusedError(404, "Not found")
    return dataset


def _title_objection(request: api.ApiCreateDatasetRequest) -> str:
    if request.owner_slug != TEAM:
        return f"{request.owner_slug} is another account."
    for name, value in (("title", request.title), ("slug", request.slug)):
        if not SHORTEST <= len(value) <= LONGEST:
            return f"The dataset {name} must be between {SHORTEST} and {LONGEST} characters"
    return "" if request.license_name else "A dataset needs a license."


def _files_objection(exchange: Exchange, tokens: list[str]) -> str:
    uploads = [exchange.services.datasets.blob(token) for token in tokens]
    if not uploads:
        return "A dataset needs a file."
    if not all(blob is not None and blob.whole for blob in uploads):
        return "No uploaded file goes by this token."
    return ""


def _refusal(reason: str) -> api.ApiCreateDatasetResponse:
    answer = api.ApiCreateDatasetResponse()
    answer.status, answer.error = "error", reason
    return answer


def _success(dataset: Dataset) -> api.ApiCreateDatasetResponse:
    answer = api.ApiCreateDatasetResponse()
    answer.status, answer.ref = "ok", dataset.ref
    answer.url = f"https://www.kaggle.com/datasets/{dataset.ref}"
    return answer


def _start(header: str, blob: Blob) -> int | None:
    """Return the offset at which the bytes start, or None for a status request without bytes."""
    match = PART.fullmatch(header)
    if match is None or int(match[3]) != blob.length:
        raise RefusedError(400, "Content-Range does not fit what was announced.")
    if match[1] is None:
        return None
    if int(match[1]) != blob.size:
        raise RefusedError(400, f"{blob.size} bytes are there, so none can come from {match[1]} on.")
    return int(match[1])


def _until(pieces: Iterable[bytes], count: int) -> Iterator[bytes]:
    """Yield the first ``count`` bytes, then break the connection."""
    for piece in pieces:
        yield piece[:count]
        count -= len(piece)
        if count <= 0:
            raise ConnectionResetError("the rehearsal was told to break off here")
