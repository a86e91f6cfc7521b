"""Kaggle's calls about datasets: announcing files, making a dataset or a version, and how far it is."""

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
    exchange: Exchange, ask: blobs.ApiStartBlobUploadRequest
) -> blobs.ApiStartBlobUploadResponse:
    """Announces a file of a dataset; the answer says where it goes."""
    if ask.type != blobs.ApiBlobType.DATASET:
        raise RefusedError(501, f"The rehearsal takes files for datasets; {ask.type.name} is not built.")
    if not ask.name or PurePosixPath(ask.name).name != ask.name:
        raise RefusedError(400, f"{ask.name!r} is no file name.")
    if ask.content_length > BLOB_LIMIT:
        raise RefusedError(400, f"A file may have {BLOB_LIMIT} bytes at most.")
    answer = blobs.ApiStartBlobUploadResponse()
    answer.token = exchange.house.datasets.announce(ask.name, ask.content_length)
    answer.create_url = exchange.house.links.blob(answer.token)
    return answer


def take_blob(exchange: Exchange, token: str) -> Reply:
    """The bytes of an announced file come, all at once or from where an earlier upload broke off.

    A request without bytes, for part ``*``, asks how many there are: 308, with a Range unless it is none.
    """
    blob, incoming = exchange.house.datasets.blob(token), exchange.request.incoming
    if blob is None or incoming is None:
        raise RefusedError(404, "No upload was announced for this address.")
    asked = exchange.request.headers.get("Content-Range")
    start = 0 if asked is None else _start(asked, blob)
    if start is not None:
        if incoming.length is not None and start + incoming.length != blob.length:
            raise RefusedError(
                400, f"{blob.length} bytes were announced, {start + incoming.length} would come."
            )
        cut = exchange.strike("upload-cut", lambda fault: fault["after"] < blob.length)
        blob.take(_until(incoming.pieces(), cut["after"]) if cut else incoming.pieces(), start)
    if blob.whole:
        return Reply(200, {}, Text(b""))
    if start is not None:
        raise RefusedError(400, f"{blob.length} bytes were announced, {blob.size} came.")
    return Reply(308, {"Range": f"bytes=0-{blob.size - 1}"} if blob.size else {}, Text(b""))


def create(exchange: Exchange, ask: api.ApiCreateDatasetRequest) -> api.ApiCreateDatasetResponse:
    """Makes a dataset of uploaded files; refusals come with status 200, in ``error``."""
    datasets, ref = exchange.house.datasets, f"{ask.owner_slug}/{ask.slug}"
    tokens = [file.token for file in ask.files or []]
    fault = _title_fault(ask) or _files_fault(exchange, tokens)
    if not fault and (datasets.find(ref) or ask.title in [other.title for other in datasets.made]):
        fault = (
            f'The requested title "{ask.title}" is already in use by a dataset. Please choose another title.'
        )
    if fault:
        return _refused(fault)
    datasets.create(ref, ask.title, ask.license_name, ask.is_private)
    fails = exchange.strike("processing-fails") is not None
    return _made(datasets.add_version(ref, "Initial release", tokens, fails))


def create_version(
    exchange: Exchange, ask: api.ApiCreateDatasetVersionRequest
) -> api.ApiCreateDatasetResponse:
    """Makes a version of a dataset of uploaded files."""
    dataset = _require(exchange, ask)
    tokens = [file.token for file in ask.body.files or []]
    if fault := _files_fault(exchange, tokens):
        return _refused(fault)
    fails = exchange.strike("processing-fails") is not None
    return _made(exchange.house.datasets.add_version(dataset.ref, ask.body.version_notes, tokens, fails))


def status(exchange: Exchange, ask: api.ApiGetDatasetStatusRequest) -> api.ApiGetDatasetStatusResponse:
    """How far the newest version is."""
    answer = api.ApiGetDatasetStatusResponse()
    seen = exchange.house.datasets.look(_require(exchange, ask).ref)
    answer.status = DatabundleVersionStatus[seen.latest.status]
    return answer


def get(exchange: Exchange, ask: api.ApiGetDatasetRequest) -> api.ApiDataset:
    """The dataset's own facts."""
    found = _require(exchange, ask)
    answer = api.ApiDataset()
    answer.ref, answer.title, answer.is_private = found.ref, found.title, found.is_private
    answer.license_name, answer.owner_ref = found.license, TEAM
    answer.current_version_number = found.latest.number
    answer.url = f"https://www.kaggle.com/datasets/{found.ref}"
    return answer


def _require(exchange: Exchange, ask: Any) -> Dataset:
    found = exchange.house.datasets.find(f"{ask.owner_slug}/{ask.dataset_slug}")
    if found is None:
        raise RefusedError(404, "Not found")
    return found


def _title_fault(ask: api.ApiCreateDatasetRequest) -> str:
    if ask.owner_slug != TEAM:
        return f"{ask.owner_slug} is another account."
    for name, value in (("title", ask.title), ("slug", ask.slug)):
        if not SHORTEST <= len(value) <= LONGEST:
            return f"The dataset {name} must be between {SHORTEST} and {LONGEST} characters"
    return "" if ask.license_name else "A dataset needs a license."


def _files_fault(exchange: Exchange, tokens: list[str]) -> str:
    found = [exchange.house.datasets.blob(token) for token in tokens]
    if not found:
        return "A dataset needs a file."
    if not all(blob is not None and blob.whole for blob in found):
        return "No uploaded file goes by this token."
    return ""


def _refused(fault: str) -> api.ApiCreateDatasetResponse:
    answer = api.ApiCreateDatasetResponse()
    answer.status, answer.error = "error", fault
    return answer


def _made(dataset: Dataset) -> api.ApiCreateDatasetResponse:
    answer = api.ApiCreateDatasetResponse()
    answer.status, answer.ref = "ok", dataset.ref
    answer.url = f"https://www.kaggle.com/datasets/{dataset.ref}"
    return answer


def _start(header: str, blob: Blob) -> int | None:
    """The offset from which bytes come; None: none do, it is only asked."""
    asked = PART.fullmatch(header)
    if asked is None or int(asked[3]) != blob.length:
        raise RefusedError(400, "Content-Range does not fit what was announced.")
    if asked[1] is None:
        return None
    if int(asked[1]) != blob.size:
        raise RefusedError(400, f"{blob.size} bytes are there, so none can come from {asked[1]} on.")
    return int(asked[1])


def _until(pieces: Iterable[bytes], count: int) -> Iterator[bytes]:
    """The first ``count`` bytes, then a connection that breaks off."""
    for piece in pieces:
        yield piece[:count]
        count -= len(piece)
        if count <= 0:
            raise ConnectionResetError("the rehearsal was told to break off here")
