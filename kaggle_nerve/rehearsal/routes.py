"""Route a request to the call that answers it, after checking for injected faults."""

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
    Disruption,
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
"""The only call without a token in its header: it checks one."""


@dataclass(frozen=True)
class Call:
    """A Kaggle API call: the type that parses its JSON, and the function that answers it."""

    request_type: type
    handler: Callable[[Exchange, Any], Any]


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
"""Every implemented call. Any other gets a 501 that names it, never a fabricated success."""


def handle(exchange: Exchange) -> Reply:
    """Return the reply to a request. A RefusedError becomes an error reply; any other exception is a defect."""
    try:
        reply = _route(exchange)
    except RefusedError as error:
        reply = error_reply(error)
    if exchange.record.call:
        reply.disruption = _disruption(exchange, reply)
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
    """Answer an API call."""
    exchange.record.call = name.rpartition("/")[2]
    call = CALLS[name]
    request = _read(call.request_type, exchange.request.body)
    if name != OPEN:
        _require_token(exchange)
    if (fault_reply := _fault_reply(exchange)) is not None:
        return fault_reply
    if hasattr(request, "competition_name"):
        exchange.require_competition(request.competition_name)
    result = call.handler(exchange, request)
    return result if isinstance(result, Reply) else json_reply(result.to_dict(result))


def _transfer(exchange: Exchange, kind: str, name: str) -> Reply:
    """Serve a download or an upload at a storage address."""
    handlers = {
        transfers.ARCHIVE: transfers.send_archive,
        transfers.FILE: transfers.send_file,
        transfers.OUTPUT: transfers.send_output,
        "upload": transfers.receive_upload,
        "blob": dataset_calls.receive_blob,
    }
    if kind not in handlers:
        raise RefusedError(404, "There is no such object.")
    exchange.record.call = kind
    fault_reply = _fault_reply(exchange)
    return fault_reply if fault_reply is not None else handlers[kind](exchange, name)


def _read(kind: type, body: bytes) -> Any:
    try:
        return kind.from_dict(dict(json.loads(body or b"{}").items()))
    except Exception as fault:  # wrong values raise all kinds of exceptions
        raise RefusedError(400, f"The request is not a {kind.__name__}.") from fault


def _require_token(exchange: Exchange) -> None:
    """Check the token: Bearer TOKEN, or the older user name and key with the token as the key."""
    scheme, _, token = exchange.request.headers.get("Authorization", "").partition(" ")
    if scheme == "Basic":
        try:
            token = base64.b64decode(token).decode().partition(":")[2]
        except ValueError:
            token = ""
    if not hmac.compare_digest(token.encode(), exchange.services.token.encode()):
        raise RefusedError(401, "Unauthenticated")


def _fault_reply(exchange: Exchange) -> Reply | None:
    """Return the error that an injected fault puts in place of this call, or None."""
    slug = exchange.services.served.slug
    if exchange.trigger("unauthorized"):
        raise RefusedError(401, "Unauthenticated")
    if exchange.trigger("unknown-competition"):
        raise RefusedError(404, f"There is no competition {slug!r}.")
    if exchange.trigger("rules"):
        raise RefusedError(403, f"You must accept the rules of {slug} before you can do this.")
    if exchange.trigger("upload-fails"):
        return bare_reply(500, "Internal error")
    if fault := exchange.trigger("status"):
        if fault["json"]:
            raise RefusedError(fault["status"], fault["message"])
        return bare_reply(fault["status"], fault["message"])
    return None


def _disruption(exchange: Exchange, reply: Reply) -> Disruption:
    """Apply the faults of the transfer to this reply."""
    disruption = Disruption(dropped=reply.status == 200 and exchange.trigger("upload-uncertain") is not None)
    if slow := exchange.trigger("slow"):
        disruption.delay = slow["seconds"]
    if stall := exchange.trigger("stall", lambda fault: fault["after"] == 0 or fault["after"] < reply.length):
        disruption.stall_after = stall["after"]
    if cut := exchange.trigger("cut", lambda fault: fault["after"] < reply.length):
        disruption.cut_after = cut["after"]
    return disruption
