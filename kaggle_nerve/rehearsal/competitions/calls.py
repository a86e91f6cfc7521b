"""Kaggle's calls: each takes the client's own request type and gives its answer type, or a whole Reply."""

import csv
import hmac
import io
import zipfile
from datetime import UTC, datetime

from kagglesdk.competitions.types import competition_api_service as api
from kagglesdk.competitions.types.competition_enums import SubmissionGroup, SubmissionSortBy
from kagglesdk.competitions.types.submission_status import SubmissionStatus
from kagglesdk.security.types.oauth_service import IntrospectTokenRequest, IntrospectTokenResponse

from kaggle_nerve.rehearsal.competitions.state import COMPLETE, ERROR, PENDING, TEAM, Submission
from kaggle_nerve.rehearsal.exchange import Exchange
from kaggle_nerve.rehearsal.paging import one_page
from kaggle_nerve.rehearsal.transfers import ARCHIVE, FILE
from kaggle_nerve.rehearsal.wire import UPLOAD_LIMIT, RefusedError, Reply, Text, redirect


def introspect_token(exchange: Exchange, ask: IntrospectTokenRequest) -> IntrospectTokenResponse:
    """Is this token good, and whose is it?"""
    answer = IntrospectTokenResponse()
    answer.active = hmac.compare_digest(ask.token.encode(), exchange.house.token.encode())
    if answer.active:
        answer.username = TEAM
    return answer


def list_files(exchange: Exchange, ask: api.ApiListDataFilesRequest) -> api.ApiListDataFilesResponse:
    """A page of the files in the zip."""
    served = exchange.house.served
    short = exchange.strike("short-listing")
    members = served.members[: len(served.members) - short["missing"]] if short else served.members
    created = datetime.fromtimestamp(served.archive.stat().st_mtime, UTC).replace(tzinfo=None)
    answer = api.ApiListDataFilesResponse()
    page, answer.next_page_token = one_page(members, ask.page_size, ask.page_token)
    answer.files = [_file(member.name, member.size, created) for member in page]
    return answer


def download_all(exchange: Exchange, ask: api.ApiDownloadDataFilesRequest) -> Reply:
    """Leads to the zip's signed address."""
    house = exchange.house
    return redirect(house.links.download(f"{ARCHIVE}/{house.served.archive.name}"))


def download_one(exchange: Exchange, ask: api.ApiDownloadDataFileRequest) -> Reply:
    """Leads to one file's signed address."""
    if exchange.house.served.member(ask.file_name) is None:
        raise RefusedError(404, f"There is no file {ask.file_name!r} in the competition's data.")
    wrapped = ".zip" if exchange.strike("zip-wrapped") else ""
    return redirect(exchange.house.links.download(f"{FILE}/{ask.file_name}{wrapped}"))


def start_upload(
    exchange: Exchange, ask: api.ApiStartSubmissionUploadRequest
) -> api.ApiStartSubmissionUploadResponse:
    """Announces a submission file; the answer says where it goes."""
    if ask.content_length > UPLOAD_LIMIT:
        raise RefusedError(400, f"A submission may have {UPLOAD_LIMIT} bytes at most.")
    answer = api.ApiStartSubmissionUploadResponse()
    answer.token = exchange.house.state.announce(ask.file_name, ask.content_length)
    answer.create_url = exchange.house.links.upload(answer.token)
    return answer


def create_submission(
    exchange: Exchange, ask: api.ApiCreateSubmissionRequest
) -> api.ApiCreateSubmissionResponse:
    """Submits the uploaded file and scores it."""
    state = exchange.house.state
    if exchange.strike("daily-limit") or state.today >= state.daily_limit:
        raise RefusedError(
            400, f"You have used all {state.daily_limit} submissions of today. Try again tomorrow."
        )
    failing = exchange.strike("scoring-fails") is not None
    made = state.submit(ask.blob_file_tokens, ask.submission_description or "", failing)
    if made is None:
        raise RefusedError(400, "No uploaded file goes by this token.")
    answer = api.ApiCreateSubmissionResponse()
    answer.message = "Successfully submitted to Ultrasound Nerve Segmentation (rehearsal)"
    answer.ref = made.ref
    return answer


def get_submission(exchange: Exchange, ask: api.ApiGetSubmissionRequest) -> api.ApiSubmission:
    """One submission by its number."""
    for shown in _shown(exchange):
        if shown.ref == ask.ref:
            return shown
    raise RefusedError(404, f"There is no submission {ask.ref}.")


def list_submissions(
    exchange: Exchange, ask: api.ApiListSubmissionsRequest
) -> api.ApiListSubmissionsResponse:
    """A page of the team's submissions, newest first."""
    plain = SubmissionGroup.SUBMISSION_GROUP_ALL, SubmissionSortBy.SUBMISSION_SORT_BY_DATE
    if (ask.group, ask.sort_by) != plain:
        raise RefusedError(
            501, "The rehearsal lists all submissions by date; other groups and orders are not built."
        )
    answer = api.ApiListSubmissionsResponse()
    page, answer.next_page_token = one_page(_shown(exchange), ask.page_size, ask.page_token, ask.page)
    answer.submissions = page
    return answer


def submission_limits(exchange: Exchange, ask: api.ApiGetSubmissionLimitsRequest) -> api.ApiSubmissionLimits:
    """How many submissions were made, and how many are left today."""
    state = exchange.house.state
    answer = api.ApiSubmissionLimits()
    answer.num_today, answer.num_total = state.today, len(state.submissions)
    answer.num_allowed_now = max(state.daily_limit - answer.num_today, 0)
    return answer


def view_leaderboard(exchange: Exchange, ask: api.ApiGetLeaderboardRequest) -> api.ApiGetLeaderboardResponse:
    """The public leaderboard: one team, with its best public score."""
    answer = api.ApiGetLeaderboardResponse()
    if best := _best(exchange):
        row = api.ApiLeaderboardSubmission()
        row.team_id, row.team_name, row.submission_date, row.score = 1, TEAM, best.when, best.public
        answer.submissions = [row]
    return answer


def download_leaderboard(exchange: Exchange, ask: api.ApiDownloadLeaderboardRequest) -> Reply:
    """The same as a zip with one CSV, sent at once as Kaggle does."""
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(["TeamId", "TeamName", "SubmissionDate", "Score"])
    if best := _best(exchange):
        rows.writerow([1, TEAM, best.date, best.public])
    packed = io.BytesIO()
    slug = exchange.house.served.slug
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(f"{slug}-publicleaderboard.csv", table.getvalue())
    return Reply(200, {"Content-Type": "application/zip"}, Text(packed.getvalue()))


def _file(name: str, size: int, created: datetime) -> api.ApiDataFile:
    file = api.ApiDataFile()
    file.ref, file.name, file.total_bytes, file.creation_date = name, name, size, created
    return file


def _shown(exchange: Exchange) -> list[api.ApiSubmission]:
    """The submissions as this look shows them, after the faults of this call."""
    seen = exchange.house.state.look()
    if seen and exchange.strike("late-listing"):
        return [_submission(item, item.status) for item in seen[1:]]
    held = bool(seen) and exchange.strike("pending-forever") is not None
    return [
        _submission(item, PENDING if held and place == 0 else item.status) for place, item in enumerate(seen)
    ]


def _submission(item: Submission, status: str) -> api.ApiSubmission:
    """Scores and errors show only once they are final."""
    shown = api.ApiSubmission()
    shown.ref, shown.date, shown.status = item.ref, item.when, SubmissionStatus[status]
    shown.file_name, shown.description, shown.total_bytes = item.file_name, item.description, item.bytes
    shown.submitted_by = shown.submitted_by_ref = shown.team_name = TEAM
    shown.public_score = item.public if status == COMPLETE else ""
    shown.private_score = item.private if status == COMPLETE else ""
    shown.error_description = item.error if status == ERROR else ""
    return shown


def _best(exchange: Exchange) -> Submission | None:
    scored = [item for item in exchange.house.state.submissions if item.status == COMPLETE]
    return max(scored, key=lambda item: float(item.public), default=None)
