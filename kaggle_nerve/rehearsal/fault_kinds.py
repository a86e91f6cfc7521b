"""The kinds of faults, the calls they affect, and their options."""

from dataclasses import dataclass, field
from typing import Any

COMPETITION = (
    "ListDataFiles",
    "DownloadDataFiles",
    "DownloadDataFile",
    "StartSubmissionUpload",
    "CreateSubmission",
    "GetSubmission",
    "GetSubmissionLimits",
    "ListSubmissions",
    "GetLeaderboard",
    "DownloadLeaderboard",
)
KERNELS = ("SaveKernel", "GetKernelSessionStatus", "ListKernelFiles", "ListKernelSessionOutput")
DATASETS = ("StartBlobUpload", "CreateDataset", "CreateDatasetVersion", "GetDataset", "GetDatasetStatus")
DATA = ("archive", "file", "output")
UPLOADS = ("upload", "blob")
TOKEN_CHECK = ("IntrospectToken",)
"""Every client's first call: a fault affects it only if it names it, or no other call would be reached."""

API_CALLS = (*COMPETITION, *KERNELS, *DATASETS)
ALL = (*API_CALLS, *DATA, *UPLOADS)
"""Everything a fault can affect: Kaggle's calls by their own names, then the GET of the zip, of one file and
of a file of a kernel's output, and the PUT of a submission and of a dataset's file."""

ALWAYS = None
"""As a number of times: until the fault is removed."""


@dataclass(frozen=True)
class Kind:
    """A kind of fault: its meaning, the calls it affects, its default number of times, and its options'
    defaults.

    ``by_name`` are calls that it affects only if ``call`` names them.
    """

    meaning: str
    calls: tuple[str, ...]
    times: int | None = 1
    options: dict[str, Any] = field(default_factory=dict)
    by_name: tuple[str, ...] = ()


KINDS = {
    "cut": Kind("a download breaks off after `after` bytes of the answer", DATA, 1, {"after": 1_500_000}),
    "stall": Kind(
        "the answer stops after `after` bytes and never goes on; 0: not even headers",
        ALL,
        1,
        {"after": 0},
        TOKEN_CHECK,
    ),
    "slow": Kind("the answer comes `seconds` late", ALL, 1, {"seconds": 3.0}, TOKEN_CHECK),
    "status": Kind(
        "the call answers HTTP `status`, as Kaggle's JSON error or, with json=0, as a bare page",
        ALL,
        1,
        {"status": 503, "json": True, "message": "The rehearsal was told to answer so."},
        TOKEN_CHECK,
    ),
    "rules": Kind(
        "403: the rules are not accepted, for downloads and submissions",
        ("DownloadDataFiles", "DownloadDataFile", "StartSubmissionUpload", "CreateSubmission"),
        ALWAYS,
    ),
    "unauthorized": Kind("401 to every call but the token check", API_CALLS, ALWAYS, {}, TOKEN_CHECK),
    "unknown-competition": Kind("404: there is no such competition", COMPETITION, ALWAYS),
    "daily-limit": Kind(
        "CreateSubmission refuses with 400: no submissions left today", ("CreateSubmission",), ALWAYS
    ),
    "expired-link": Kind(
        "the signed download address answers 403; resume=1: only to a request that resumes",
        DATA,
        1,
        {"resume": False},
    ),
    "corrupt": Kind(
        "the download has its full length, but 64 bytes from offset `at` on are wrong; at=-1: in the middle",
        DATA,
        1,
        {"at": -1},
    ),
    "zip-wrapped": Kind(
        "a single file comes as NAME.zip, as Kaggle does with large ones", ("DownloadDataFile",), ALWAYS
    ),
    "short-listing": Kind(
        "the list of files lacks its last `missing` ones", ("ListDataFiles",), ALWAYS, {"missing": 1}
    ),
    "upload-fails": Kind("the upload of a submission, or of a dataset's file, answers 500", UPLOADS),
    "upload-cut": Kind(
        "the upload of a dataset's file breaks off after `after` bytes", ("blob",), 1, {"after": 1_000_000}
    ),
    "upload-uncertain": Kind(
        "what was sent is taken, but the connection drops before the answer",
        ("CreateSubmission", "SaveKernel", "CreateDataset", "CreateDatasetVersion"),
    ),
    "late-listing": Kind(
        "the newest submission is not shown yet, for `times` polls", ("ListSubmissions", "GetSubmission"), 2
    ),
    "pending-forever": Kind(
        "the newest submission shows as PENDING", ("ListSubmissions", "GetSubmission"), ALWAYS
    ),
    "scoring-fails": Kind("a good submission ends with status ERROR", ("CreateSubmission",)),
    "kernel-refused": Kind(
        "a pushed kernel is not taken, with `message` as the reason and status 200, as Kaggle does; `sessions`: only "
        "if that many kernels run already",
        ("SaveKernel",),
        1,
        {"message": "Maximum batch GPU session count of 2 reached.", "sessions": 0},
    ),
    "session-fails": Kind(
        "the session of the pushed kernel ends with status ERROR and `message`",
        ("SaveKernel",),
        1,
        {"message": "Your notebook tried to allocate more memory than is available."},
    ),
    "processing-fails": Kind(
        "the dataset that is made ends with status FAILED", ("CreateDataset", "CreateDatasetVersion")
    ),
}
