"""From an address to the call that answers it, past everything that may be told to go wrong before."""

import base64
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kagglesdk.blobs.types.blob_api_service import ApiStartBlobUploadRequest
from kagglesdk.competitions.types import competition_api_service as api
from kagglesdk.datasets.types import dataset_api_service as datasets
from kagglesdk.kernels.types import kernels_api_service as kernels
from kagglesdk.security.types.oauth_service import IntrospectTokenRequest

from kaggle_nerve.rehearsal import transfers
from kaggle_nerve.rehearsal.competitions import calls
from kaggle_nerve.rehearsal.datasets import calls as dataset_calls
from kaggle_nerve.rehearsal.exchange import Exchange
from kaggle_nerve.rehearsal.kernels import calls as kernel_calls
from kaggle_nerve.rehearsal.links import BLOBS, DOWNLOADS, UPLOADS
from kaggle_nerve.rehearsal.wire import (
    LOOPBACK,
    Fate,
    RefusedError,
    Reply,
    bare_reply,
    error_reply,
    json_reply,
)

BASE = "/api/v1/"
COMPETITIONS = "competitions.CompetitionApiService/"
KERNELS, DATASETS = "kernels.KernelsApiService/", "datasets.DatasetApiService/"
OPEN = "security.OAuthService/IntrospectToken"
"""The one call that needs no token in its head: it is asked whether one is good."""


@dataclass(frozen=True)
class Call:
    """A call of Kaggle's: the type that reads its JSON, and the function that answers."""

    asks: type
    answer: Callable[[Exchange, Any], Any]


CALLS = {
    OPEN: Call(IntrospectTokenRequest, calls.introspect_token),
    COMPETITIONS + "ListDataFiles": Call(api.ApiListDataFilesRequest, calls.list_files),
    COMPETITIONS + "DownloadDataFiles": Call(api.ApiDownloadDataFilesRequest, calls.download_all),
    COMPETITIONS + "DownloadDataFile": Call(api.ApiDownloadDataFileRequest, calls.download_one),
    COMPETITIONS + "StartSubmissionUpload": Call(api.ApiStartSubmissionUploadRequest, calls.start_upload),
    COMPETITIONS + "CreateSubmission": Call(api.ApiCreateSubmissionRequest, calls.create_submission),
    COMPETITIONS + "GetSubmission": Call(api.ApiGetSubmissionRequest, calls.get_submission),
    COMPETITIONS + "GetSubmissionLimits": Call(api.ApiGetSubmissionLimitsRequest, calls.submission_limits),
    COMPETITIONS + "ListSubmissions": Call(api.ApiListSubmissionsRequest, calls.list_submissions),
    COMPETITIONS + "GetLeaderboard": Call(api.ApiGetLeaderboardRequest, calls.view_leaderboard),
    COMPETITIONS + "DownloadLeaderboard": Call(api.ApiDownloadLeaderboardRequest, calls.download_leaderboard),
    KERNELS + "SaveKernel": Call(kernels.ApiSaveKernelRequest, kernel_calls.save_kernel),
    KERNELS + "GetKernelSessionStatus": Call(
        kernels.ApiGetKernelSessionStatusRequest, kernel_calls.session_status
    ),
    KERNELS + "ListKernelFiles": Call(kernels.ApiListKernelFilesRequest, kernel_calls.list_files),
    KERNELS + "ListKernelSessionOutput": Call(
        kernels.ApiListKernelSessionOutputRequest, kernel_calls.list_output
    ),
    "blobs.BlobApiService/StartBlobUpload": Call(ApiStartBlobUploadRequest, dataset_calls.start_upload),
    DATASETS + "CreateDataset": Call(datasets.ApiCreateDatasetRequest, dataset_calls.create),
    DATASETS + "CreateDatasetVersion": Call(
        datasets.ApiCreateDatasetVersionRequest, dataset_calls.create_version
    ),
    DATASETS + "GetDataset": Call(datasets.ApiGetDatasetRequest, dataset_calls.get),
    DATASETS + "GetDatasetStatus": Call(datasets.ApiGetDatasetStatusRequest, dataset_calls.status),
}
"""Every call that is built. Any other gets a 501 that names it, never a made-up success."""


def answer(exchange: Exchange) -> Reply:
    """The reply to a request; a RefusedError becomes an error reply, any other is a defect."""
    try:
        reply = _route(exchange)
    except RefusedError as refusal:
        reply = error_reply(refusal)
    if exchange.record.call:
        reply.fate = _fate(exchange, reply)
    return reply


def _route(exchange: Exchange) -> Reply:
    request = exchange.request
    if request.method == "CONNECT" or request.host not in LOOPBACK:
        raise RefusedError(
            403, f"This is a rehearsal: nothing is forwarded to {request.host or request.path}."
        )
    match request.method, request.path:
        case ("POST", path) if path.removeprefix(BASE) in CALLS and path.startswith(BASE):
            return _call(exchange, path.removeprefix(BASE))
        case ("GET", path) if path.startswith(DOWNLOADS):
            kind, _, name = path.removeprefix(DOWNLOADS).partition("/")
            return _transfer(exchange, kind, name)
        case ("PUT", path) if path.startswith(BLOBS):
            return _transfer(exchange, "blob", path.removeprefix(BLOBS))
        case ("PUT", path) if path.startswith(UPLOADS):
            return _transfer(exchange, "upload", path.removeprefix(UPLOADS))
    raise RefusedError(501, f"The rehearsal does not know the call {request.method} {exchange.record.path}.")


def _call(exchange: Exchange, name: str) -> Reply:
    """Carry out a call of Kaggle's interface."""
    exchange.record.call = name.rpartition("/")[2]
    call = CALLS[name]
    ask = _read(call.asks, exchange.request.body)
    if name != OPEN:
        _require_token(exchange)
    if (told := _told_to_fail(exchange)) is not None:
        return told
    if hasattr(ask, "competition_name"):
        exchange.require_competition(ask.competition_name)
    result = call.answer(exchange, ask)
    return result if isinstance(result, Reply) else json_reply(result.to_dict(result))


def _transfer(exchange: Exchange, kind: str, name: str) -> Reply:
    """Send from, or take into, the storage behind the addresses."""
    carriers = {
        transfers.ARCHIVE: transfers.send_archive,
        transfers.FILE: transfers.send_file,
        transfers.OUTPUT: transfers.send_output,
        "upload": transfers.take_upload,
        "blob": dataset_calls.take_blob,
    }
    if kind not in carriers:
        raise RefusedError(404, "There is no such object.")
    exchange.record.call = kind
    told = _told_to_fail(exchange)
    return told if told is not None else carriers[kind](exchange, name)


def _read(kind: type, body: bytes) -> Any:
    try:
        return kind.from_dict(dict(json.loads(body or b"{}").items()))
    except Exception as fault:  # the client's types raise whatever a wrong value leads to
        raise RefusedError(400, f"The request is not a {kind.__name__}.") from fault


def _require_token(exchange: Exchange) -> None:
    """Bearer TOKEN, or the older user name and key with the token as the key."""
    scheme, _, given = exchange.request.headers.get("Authorization", "").partition(" ")
    if scheme == "Basic":
        try:
            given = base64.b64decode(given).decode().partition(":")[2]
        except ValueError:
            given = ""
    if not hmac.compare_digest(given.encode(), exchange.house.token.encode()):
        raise RefusedError(401, "Unauthenticated")


def _told_to_fail(exchange: Exchange) -> Reply | None:
    """The error that a fault asks for in place of this call, or None."""
    slug = exchange.house.served.slug
    if exchange.strike("unauthorized"):
        raise RefusedError(401, "Unauthenticated")
    if exchange.strike("unknown-competition"):
        raise RefusedError(404, f"There is no competition {slug!r}.")
    if exchange.strike("rules"):
        raise RefusedError(403, f"You must accept the rules of {slug} before you can do this.")
    if exchange.strike("upload-fails"):
        return bare_reply(500, "Internal error")
    if told := exchange.strike("status"):
        if told["json"]:
            raise RefusedError(told["status"], told["message"])
        return bare_reply(told["status"], told["message"])
    return None


def _fate(exchange: Exchange, reply: Reply) -> Fate:
    """What the faults that work on the way do to this reply."""
    fate = Fate(dropped=reply.status == 200 and exchange.strike("upload-uncertain") is not None)
    if slow := exchange.strike("slow"):
        fate.delay = slow["seconds"]
    if stall := exchange.strike("stall", lambda fault: fault["after"] == 0 or fault["after"] < reply.length):
        fate.stall_after = stall["after"]
    if cut := exchange.strike("cut", lambda fault: fault["after"] < reply.length):
        fate.cut_after = cut["after"]
    return fate
