"""Kaggle's competition calls: each takes the client's own request type and returns its answer type, or a
Reply."""

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
from kaggle_nerve.rehearsal.paging import paginate
from kaggle_nerve.rehearsal.transfers import ARCHIVE, FILE
from kaggle_nerve.rehearsal.wire import UPLOAD_LIMIT, RefusedError, Reply, Text, redirect


def introspect_token(exchange: Exchange, request: IntrospectTokenRequest) -> IntrospectTokenResponse:
    """Check a token, and tell whose it is."""
    answer = IntrospectTokenResponse()
    answer.active = hmac.compare_digest(request.token.encode(), exchange.services.token.encode())
    if answer.active:
        answer.username = TEAM
    return answer


def list_files(exchange: Exchange, request: api.ApiListDataFilesRequest) -> api.ApiListDataFilesResponse:
    """List a page of the files in the zip."""
    served = exchange.services.served
    fault = exchange.trigger("short-listing")
    members = served.members[: len(served.members) - fault["missing"]] if fault else served.members
    created = datetime.fromtimestamp(served.archive.stat().st_mtime, UTC).replace(tzinfo=None)
    answer = api.ApiListDataFilesResponse()
    page, answer.next_page_token = paginate(members, request.page_size, request.page_token)
    answer.files = [_file(member.name, member.size, created) for member in page]
    return answer


def download_all(exchange: Exchange, request: api.ApiDownloadDataFilesRequest) -> Reply:
    """Redirect to the zip's signed address."""
    services = exchange.services
    return redirect(services.links.download(f"{ARCHIVE}/{services.served.archive.name}"))


def download_one(exchange: Exchange, request: api.ApiDownloadDataFileRequest) -> Reply:
    """Redirect to one file's signed address."""
    if exchange.services.served.member(request.file_name) is None:
        raise RefusedError(404, f"There is no file {request.file_name!r} in the competition's data.")
    suffix = ".zip" if exchange.trigger("zip-wrapped") else ""
    return redirect(exchange.services.links.download(f"{FILE}/{request.file_name}{suffix}"))


def start_upload(
    exchange: Exchange, request: api.ApiStartSubmissionUploadRequest
) -> api.ApiStartSubmissionUploadResponse:
    """Announce a submission file; the answer says where to upload it."""
    if request.content_length > UPLOAD_LIMIT:
        raise RefusedError(400, f"A submission may have {UPLOAD_LIMIT} bytes at most.")
    answer = api.ApiStartSubmissionUploadResponse()
    answer.token = exchange.services.state.announce(request.file_name, request.content_length)
    answer.create_url = exchange.services.links.upload(answer.token)
    return answer


def create_submission(
    exchange: Exchange, request: api.ApiCreateSubmissionRequest
) -> api.ApiCreateSubmissionResponse:
    """Submit the uploaded file and score it."""
    state = exchange.services.state
    if exchange.trigger("daily-limit") or state.count_today >= state.daily_limit:
        raise RefusedError(
            400, f"You have used all {state.daily_limit} submissions of today. Try again tomorrow."
        )
    scoring_fails = exchange.trigger("scoring-fails") is not None
    new = state.submit(request.blob_file_tokens, request.submission_description or "", scoring_fails)
    if new is None:
        raise RefusedError(400, "No uploaded file goes by this token.")
    answer = api.ApiCreateSubmissionResponse()
    answer.message = "Successfully submitted to Ultrasound Nerve Segmentation (rehearsal)"
    answer.ref = new.ref
    return answer


def get_submission(exchange: Exchange, request: api.ApiGetSubmissionRequest) -> api.ApiSubmission:
    """Return one submission by its number."""
    for row in _visible_submissions(exchange):
        if row.ref == request.ref:
            return row
    raise RefusedError(404, f"There is no submission {request.ref}.")


def list_submissions(
    exchange: Exchange, request: api.ApiListSubmissionsRequest
) -> api.ApiListSubmissionsResponse:
    """List a page of the team's submissions, newest first."""
    supported = SubmissionGroup.SUBMISSION_GROUP_ALL, SubmissionSortBy.SUBMISSION_SORT_BY_DATE
    if (request.group, request.sort_by) != supported:
        raise RefusedError(
            501, "The rehearsal lists all submissions by date; other groups and orders are not built."
        )
    answer = api.ApiListSubmissionsResponse()
    page, answer.next_page_token = paginate(
        _visible_submissions(exchange), request.page_size, request.page_token, request.page
    )
    answer.submissions = page
    return answer


def submission_limits(
    exchange: Exchange, request: api.ApiGetSubmissionLimitsRequest
) -> api.ApiSubmissionLimits:
    """Return the numbers of submissions made, and left today."""
    state = exchange.services.state
    answer = api.ApiSubmissionLimits()
    answer.num_today, answer.num_total = state.count_today, len(state.submissions)
    answer.num_allowed_now = max(state.daily_limit - answer.num_today, 0)
    return answer


def view_leaderboard(
    exchange: Exchange, request: api.ApiGetLeaderboardRequest
) -> api.ApiGetLeaderboardResponse:
    """Return the public leaderboard: one team, with its best public score."""
    answer = api.ApiGetLeaderboardResponse()
    if best := _best(exchange):
        row = api.ApiLeaderboardSubmission()
        row.team_id, row.team_name, row.submission_date, row.score = 1, TEAM, best.created, best.public
        answer.submissions = [row]
    return answer


def download_leaderboard(exchange: Exchange, request: api.ApiDownloadLeaderboardRequest) -> Reply:
    """Return the leaderboard as a zip with one CSV, sent at once as Kaggle does."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["TeamId", "TeamName", "SubmissionDate", "Score"])
    if best := _best(exchange):
        writer.writerow([1, TEAM, best.date, best.public])
    buffer = io.BytesIO()
    slug = exchange.services.served.slug
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(f"{slug}-publicleaderboard.csv", table.getvalue())
    return Reply(200, {"Content-Type": "application/zip"}, Text(buffer.getvalue()))


def _file(name: str, size: int, created: datetime) -> api.ApiDataFile:
    file = api.ApiDataFile()
    file.ref, file.name, file.total_bytes, file.creation_date = name, name, size, created
    return file


def _visible_submissions(exchange: Exchange) -> list[api.ApiSubmission]:
    """List the submissions as this poll shows them, after the faults of this call."""
    rows = exchange.services.state.poll()
    if rows and exchange.trigger("late-listing"):
        return [_submission(item, item.status) for item in rows[1:]]
    is_pending = bool(rows) and exchange.trigger("pending-forever") is not None
    return [
        _submission(item, PENDING if is_pending and index == 0 else item.status)
        for index, item in enumerate(rows)
    ]


def _submission(item: Submission, status: str) -> api.ApiSubmission:
    """Convert to Kaggle's type. Scores and errors show only once they are final."""
    row = api.ApiSubmission()
    row.ref, row.date, row.status = item.ref, item.created, SubmissionStatus[status]
    row.file_name, row.description, row.total_bytes = item.file_name, item.description, item.bytes
    row.submitted_by = row.submitted_by_ref = row.team_name = TEAM
    row.public_score = item.public if status == COMPLETE else ""
    row.private_score = item.private if status == COMPLETE else ""
    row.error_description = item.error if status == ERROR else ""
    return row


def _best(exchange: Exchange) -> Submission | None:
    scored = [item for item in exchange.services.state.submissions if item.status == COMPLETE]
    return max(scored, key=lambda item: float(item.public), default=None)
