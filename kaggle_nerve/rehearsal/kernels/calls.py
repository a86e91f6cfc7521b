"""Kaggle's calls about kernels: pushing one, how its session stands, what it left."""

from datetime import UTC, datetime
from typing import Any

from kagglesdk.kernels.types import kernels_api_service as api
from kagglesdk.kernels.types.kernels_enums import KernelWorkerStatus

from kaggle_nerve.kaggle_api.slugs import slug_of
from kaggle_nerve.rehearsal.competitions.state import TEAM
from kaggle_nerve.rehearsal.exchange import Exchange
from kaggle_nerve.rehearsal.kernels.state import Kernel
from kaggle_nerve.rehearsal.paging import one_page
from kaggle_nerve.rehearsal.transfers import OUTPUT
from kaggle_nerve.rehearsal.wire import RefusedError

SOURCE_LIMIT = 1_000_000
SHORTEST_TITLE = 5
LANGUAGES, KINDS = ("python", "r", "rmarkdown"), ("script", "notebook")


def save_kernel(exchange: Exchange, ask: api.ApiSaveKernelRequest) -> api.ApiSaveKernelResponse:
    """Takes a version of a kernel and starts its session; most refusals come with status 200, in ``error``."""
    if len(ask.text.encode()) >= SOURCE_LIMIT:
        raise RefusedError(400, "The kernel source must be less than 1 megabytes in size.")
    if ask.id:
        raise RefusedError(501, "The rehearsal knows kernels by user/slug; numbers are not built.")
    answer = api.ApiSaveKernelResponse()
    ref = _ref(exchange, ask)
    if told := exchange.strike("kernel-refused"):
        answer.error = told["message"]
    elif fault := _fault(exchange, ask, ref):
        answer.error = fault
    else:
        failing = exchange.strike("session-fails")
        _sort_sources(exchange, ask, answer)
        made = exchange.house.kernels.push(_kernel(ask, ref, answer, failing["message"] if failing else ""))
        answer.ref, answer.version_number = f"/code/{ref}", made.version
        answer.url = f"https://www.kaggle.com/code/{ref}"
    return answer


def session_status(
    exchange: Exchange, ask: api.ApiGetKernelSessionStatusRequest
) -> api.ApiGetKernelSessionStatusResponse:
    """How the newest version's session stands."""
    seen = exchange.house.kernels.look(_require(exchange, ask))
    answer = api.ApiGetKernelSessionStatusResponse()
    answer.status = KernelWorkerStatus[seen.status]
    if seen.ended and seen.failure:
        answer.failure_message = seen.failure
    return answer


def list_files(exchange: Exchange, ask: api.ApiListKernelFilesRequest) -> api.ApiListKernelFilesResponse:
    """A page of the names and sizes of what the session left."""
    files = _output(exchange, _require(exchange, ask))
    answer = api.ApiListKernelFilesResponse()
    page, answer.next_page_token = one_page(files, ask.page_size, ask.page_token)
    answer.files = []
    for name, path in page:
        item = api.ApiListKernelFilesItem()
        item.name, item.size = name, path.stat().st_size
        item.creation_date = datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat()
        answer.files = [*answer.files, item]
    return answer


def list_output(
    exchange: Exchange, ask: api.ApiListKernelSessionOutputRequest
) -> api.ApiListKernelSessionOutputResponse:
    """A page of the addresses of what the session left, and its log."""
    kernel = _require(exchange, ask)
    answer = api.ApiListKernelSessionOutputResponse()
    page, answer.next_page_token = one_page(_output(exchange, kernel), ask.page_size, ask.page_token)
    answer.files = []
    for name, _ in page:
        item = api.ApiKernelSessionOutputFile()
        item.file_name = name
        item.url = exchange.house.links.download(f"{OUTPUT}/{kernel.slug}/{name}")
        answer.files = [*answer.files, item]
    log = exchange.house.kernels.log_file(kernel.slug)
    if log.is_file():
        answer.log = log.read_text(encoding="utf-8")
    return answer


def _output(exchange: Exchange, kernel: Kernel) -> list:
    return exchange.house.kernels.output(kernel.slug) if kernel.ended else []


def _require(exchange: Exchange, ask: Any) -> Kernel:
    """The newest version of the kernel that is asked for; RefusedError 403 for an unknown one, as Kaggle does."""
    if ask.version_label:
        raise RefusedError(501, "The rehearsal tells of the newest version; others are not built.")
    kernel = exchange.house.kernels.latest(f"{ask.user_name}/{ask.kernel_slug}")
    if kernel is None:
        raise RefusedError(403, "Permission 'kernels.get' was denied")
    return kernel


def _ref(exchange: Exchange, ask: api.ApiSaveKernelRequest) -> str:
    """A kernel that is not there yet gets its slug from the title, whatever the id says."""
    owner, _, slug = ask.slug.partition("/")
    known = exchange.house.kernels.latest(f"{owner}/{slug}") is not None
    return f"{owner}/{slug if known or not ask.new_title else slug_of(ask.new_title)}"


def _fault(exchange: Exchange, ask: api.ApiSaveKernelRequest, ref: str) -> str:
    """Why Kaggle does not take this kernel; "" if it does."""
    if not ref.startswith(f"{TEAM}/"):
        return "Notebook not found"
    if len(ask.new_title) < SHORTEST_TITLE:
        return "Title must be at least five characters"
    if ask.language not in LANGUAGES or ask.kernel_type not in KINDS:
        return f"There are no kernels of type {ask.kernel_type} in {ask.language}."
    if ref != ask.slug and exchange.house.kernels.latest(ref) is not None:
        return f'The requested title "{ask.new_title}" is already in use by a notebook. Please choose another title.'
    return ""


def _sort_sources(
    exchange: Exchange, ask: api.ApiSaveKernelRequest, answer: api.ApiSaveKernelResponse
) -> None:
    """Names in ``answer`` the sources that do not exist here; the kernel is pushed without them."""
    house = exchange.house
    answer.invalid_competition_sources = [
        slug for slug in ask.competition_data_sources or [] if slug != house.served.slug
    ]
    answer.invalid_dataset_sources = [
        ref
        for ref in ask.dataset_data_sources or []
        if house.datasets.find("/".join(ref.split("/")[:2])) is None
    ]
    answer.invalid_kernel_sources = [
        ref for ref in ask.kernel_data_sources or [] if house.kernels.latest(ref) is None
    ]
    answer.invalid_model_sources = list(ask.model_data_sources or [])


def _kernel(
    ask: api.ApiSaveKernelRequest, ref: str, answer: api.ApiSaveKernelResponse, failure: str
) -> Kernel:
    def good(asked: list | None, bad: list | None) -> tuple[str, ...]:
        return tuple(source for source in asked or [] if source not in (bad or []))

    return Kernel(
        ref=ref,
        version=0,
        title=ask.new_title,
        text=ask.text,
        language=ask.language,
        kernel_type=ask.kernel_type,
        is_private=ask.is_private,
        enable_gpu=ask.enable_gpu,
        enable_tpu=ask.enable_tpu,
        enable_internet=ask.enable_internet,
        machine_shape=ask.machine_shape,
        docker_image=ask.docker_image,
        session_timeout=ask.session_timeout_seconds,
        competition_sources=good(ask.competition_data_sources, answer.invalid_competition_sources),
        dataset_sources=good(ask.dataset_data_sources, answer.invalid_dataset_sources),
        kernel_sources=good(ask.kernel_data_sources, answer.invalid_kernel_sources),
        failure=failure,
    )
