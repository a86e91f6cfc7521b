"""Kaggle's kernel calls: push, session status, output."""

from datetime import UTC, datetime
from typing import Any

from kagglesdk.kernels.types import kernels_api_service as api
from kagglesdk.kernels.types.kernels_enums import KernelWorkerStatus

from kaggle_nerve.kaggle_api.slugs import slug_of
from kaggle_nerve.rehearsal.competitions.state import TEAM
from kaggle_nerve.rehearsal.exchange import Exchange
from kaggle_nerve.rehearsal.kernels.state import Kernel
from kaggle_nerve.rehearsal.paging import paginate
from kaggle_nerve.rehearsal.transfers import OUTPUT
from kaggle_nerve.rehearsal.wire import RefusedError

SOURCE_LIMIT = 1_000_000
SHORTEST_TITLE = 5
LANGUAGES, KINDS = ("python", "r", "rmarkdown"), ("script", "notebook")


def save_kernel(exchange: Exchange, request: api.ApiSaveKernelRequest) -> api.ApiSaveKernelResponse:
    """Accept a version of a kernel and start its session. Most refusals come with status 200, in ``error``."""
    if len(request.text.encode()) >= SOURCE_LIMIT:
        raise RefusedError(400, "The kernel source must be less than 1 megabytes in size.")
    if request.id:
        raise RefusedError(501, "The rehearsal knows kernels by user/slug; numbers are not built.")
    answer = api.ApiSaveKernelResponse()
    ref = _ref(exchange, request)
    running = len(exchange.services.kernels.running())
    if refusal := exchange.trigger("kernel-refused", lambda fault: running >= fault["sessions"]):
        answer.error = refusal["message"]
    elif objection := _objection(exchange, request, ref):
        answer.error = objection
    else:
        session_fault = exchange.trigger("session-fails")
        _set_invalid_sources(exchange, request, answer)
        kernel = exchange.services.kernels.push(
            _kernel(request, ref, answer, session_fault["message"] if session_fault else "")
        )
        answer.ref, answer.version_number = f"/code/{ref}", kernel.version
        answer.url = f"https://www.kaggle.com/code/{ref}"
    return answer


def session_status(
    exchange: Exchange, request: api.ApiGetKernelSessionStatusRequest
) -> api.ApiGetKernelSessionStatusResponse:
    """Return the status of the newest version's session."""
    kernel = exchange.services.kernels.poll(_require(exchange, request))
    answer = api.ApiGetKernelSessionStatusResponse()
    answer.status = KernelWorkerStatus[kernel.status]
    if kernel.ended and kernel.failure:
        answer.failure_message = kernel.failure
    return answer


def list_files(exchange: Exchange, request: api.ApiListKernelFilesRequest) -> api.ApiListKernelFilesResponse:
    """List a page of names and sizes of the session's output files."""
    files = _output(exchange, _require(exchange, request))
    answer = api.ApiListKernelFilesResponse()
    page, answer.next_page_token = paginate(files, request.page_size, request.page_token)
    answer.files = []
    for name, path in page:
        item = api.ApiListKernelFilesItem()
        item.name, item.size = name, path.stat().st_size
        item.creation_date = datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat()
        answer.files = [*answer.files, item]
    return answer


def list_output(
    exchange: Exchange, request: api.ApiListKernelSessionOutputRequest
) -> api.ApiListKernelSessionOutputResponse:
    """List a page of download addresses of the session's output, and its log."""
    kernel = _require(exchange, request)
    answer = api.ApiListKernelSessionOutputResponse()
    page, answer.next_page_token = paginate(_output(exchange, kernel), request.page_size, request.page_token)
    answer.files = []
    for name, _ in page:
        item = api.ApiKernelSessionOutputFile()
        item.file_name = name
        item.url = exchange.services.links.download(f"{OUTPUT}/{kernel.slug}/{name}")
        answer.files = [*answer.files, item]
    log = exchange.services.kernels.log_file(kernel.slug)
    if log.is_file():
        answer.log = log.read_text(encoding="utf-8")
    return answer


def _output(exchange: Exchange, kernel: Kernel) -> list:
    return exchange.services.kernels.output(kernel.slug) if kernel.ended else []


def _require(exchange: Exchange, request: Any) -> Kernel:
    """Return the newest version of the requested kernel; raise RefusedError 403 for an unknown one, as Kaggle
    does."""
    if request.version_label:
        raise RefusedError(501, "The rehearsal tells of the newest version; others are not built.")
    kernel = exchange.services.kernels.latest(f"{request.user_name}/{request.kernel_slug}")
    if kernel is None:
        raise RefusedError(403, "Permission 'kernels.get' was denied")
    return kernel


def _ref(exchange: Exchange, request: api.ApiSaveKernelRequest) -> str:
    """Return the kernel's reference. A new kernel gets its slug from the title, whatever the id says."""
    owner, _, slug = request.slug.partition("/")
    exists = exchange.services.kernels.latest(f"{owner}/{slug}") is not None
    return f"{owner}/{slug if exists or not request.new_title else slug_of(request.new_title)}"


def _objection(exchange: Exchange, request: api.ApiSaveKernelRequest, ref: str) -> str:
    """Return the reason why Kaggle does not accept this kernel; "" if it does."""
    if not ref.startswith(f"{TEAM}/"):
        return "Notebook not found"
    if len(request.new_title) < SHORTEST_TITLE:
        return "Title must be at least five characters"
    if request.language not in LANGUAGES or request.kernel_type not in KINDS:
        return f"There are no kernels of type {request.kernel_type} in {request.language}."
    if ref != request.slug and exchange.services.kernels.latest(ref) is not None:
        title = request.new_title
        return f'The requested title "{title}" is already in use by a notebook. Please choose another title.'
    return ""


def _set_invalid_sources(
    exchange: Exchange, request: api.ApiSaveKernelRequest, answer: api.ApiSaveKernelResponse
) -> None:
    """Set in ``answer`` the sources that do not exist here; the kernel is pushed without them."""
    services = exchange.services
    answer.invalid_competition_sources = [
        slug for slug in request.competition_data_sources or [] if slug != services.served.slug
    ]
    answer.invalid_dataset_sources = [
        ref
        for ref in request.dataset_data_sources or []
        if services.datasets.find("/".join(ref.split("/")[:2])) is None
    ]
    answer.invalid_kernel_sources = [
        ref for ref in request.kernel_data_sources or [] if services.kernels.latest(ref) is None
    ]
    answer.invalid_model_sources = list(request.model_data_sources or [])


def _kernel(
    request: api.ApiSaveKernelRequest, ref: str, answer: api.ApiSaveKernelResponse, failure: str
) -> Kernel:
    def valid(sources: list | None, invalid: list | None) -> tuple[str, ...]:
        return tuple(source for source in sources or [] if source not in (invalid or []))

    return Kernel(
        ref=ref,
        version=0,
        title=request.new_title,
        text=request.text,
        language=request.language,
        kernel_type=request.kernel_type,
        is_private=request.is_private,
        enable_gpu=request.enable_gpu,
        enable_tpu=request.enable_tpu,
        enable_internet=request.enable_internet,
        machine_shape=request.machine_shape,
        docker_image=request.docker_image,
        session_timeout=request.session_timeout_seconds,
        competition_sources=valid(request.competition_data_sources, answer.invalid_competition_sources),
        dataset_sources=valid(request.dataset_data_sources, answer.invalid_dataset_sources),
        kernel_sources=valid(request.kernel_data_sources, answer.invalid_kernel_sources),
        failure=failure,
    )
