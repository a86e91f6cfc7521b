"""Call Kaggle through the official package on behalf of the parent process, and exit when the parent exits.

Run as a script, so that this package, kaggle_nerve, is not imported. Standard input: one JSON question per line,
``{"call": "submissions", "with": {"slug": ...}}``. Standard output: one JSON reply per question, either of

    {"answer": ...}                                     the result of a function in `CALLS`
    {"fault": {"message", "cause", "types", "status", "url", "page", "errno", "path"}}

and before it, while files are sent, any number of lines ``{"sent": bytes, "of": bytes}``. The official package's
own output goes to standard error, ended by an `END` line before each reply.

Standard input ends when the parent dies, even by ``kill -9``, and this program then exits. If it went on, it would
write to an archive that the next client writes to as well, or submit unnoticed.
"""

import json
import os
import queue
import sys
import threading
import time
from typing import Any, BinaryIO, TextIO

END = "\x04"
"""Last line on standard error before a reply; needed because the parent reads standard error and standard output
independently."""

REPORT_SECONDS = 0.2
"""Seconds between two reports of the bytes sent."""


def list_files(api: Any, slug: str, token: str, size: int) -> dict[str, Any]:
    """List a page of the competition's files."""
    page = api.competition_list_files(slug, page_token=token or None, page_size=size)
    return {
        "files": [_file(file, file.total_bytes) for file in page.files or []],
        "next": page.next_page_token,
    }


def submissions(api: Any, slug: str, size: int) -> list[dict[str, Any]]:
    """List the newest submissions."""
    rows = api.competition_submissions(slug, page_size=size) or []
    names = ("ref", "file_name", "date", "description", "public_score", "private_score")
    return [{"status": row.status.name, **{name: getattr(row, name) for name in names}} for row in rows]


def download_all(api: Any, slug: str, folder: str, force: bool) -> None:
    """Download the archive of all files into a folder."""
    # Not quiet: only its output shows what it retries, such as writing to a full disk.
    api.competition_download_files(slug, path=folder, force=force, quiet=False)


def submit(api: Any, slug: str, file: str, message: str) -> str:
    """Upload and submit a file. Returns Kaggle's message, or the package's for a failed upload."""
    return api.competition_submit(file, message, slug, quiet=True).message


def username(api: Any) -> str | None:
    """Return the user name of the credentials."""
    return api.get_config_value(api.CONFIG_NAME_USER)


def push_kernel(api: Any, folder: str) -> dict[str, Any]:
    """Push the kernel in a folder; ``missing`` lists the sources unknown to Kaggle, by kind."""
    response = api.kernels_push(folder)
    kinds = {"dataset": response.invalid_dataset_sources, "competition": response.invalid_competition_sources}
    kinds["kernel"] = response.invalid_kernel_sources
    return {
        "error": response.error,
        "url": response.url,
        "version": response.version_number,
        "missing": {kind: list(names) for kind, names in kinds.items() if names},
    }


def kernel_status(api: Any, ref: str) -> dict[str, Any]:
    """Return the status of a kernel's newest session."""
    session = api.kernels_status(ref)
    return {"status": session.status.name, "failure": session.failure_message}


def list_kernel_files(api: Any, ref: str, token: str, size: int) -> dict[str, Any]:
    """List a page of the output files of a kernel's newest session."""
    page = api.kernels_list_files(ref, page_token=token or None, page_size=size)
    return {"files": [_file(file, file.size) for file in page.files or []], "next": page.next_page_token}


def kernel_output(api: Any, ref: str, folder: str, pattern: str, size: int) -> None:
    """Download a kernel's output files whose names match a pattern, all pages."""
    api.kernels_output(ref, folder, file_pattern=pattern, quiet=False, page_size=size)


def dataset_status(api: Any, ref: str) -> dict[str, Any]:
    """Return the status of a dataset's newest version, and its number."""
    return json.loads(api.dataset_status(ref, format="json"))


def make_dataset(api: Any, folder: str) -> dict[str, Any]:
    """Create a dataset from the files in a folder."""
    return _creation(api.dataset_create_new(folder, quiet=True, dir_mode="zip"))


def make_version(api: Any, folder: str, notes: str) -> dict[str, Any]:
    """Create a version of a dataset from the files in a folder."""
    return _creation(api.dataset_create_version(folder, notes, quiet=True, dir_mode="zip"))


CALLS = {
    call.__name__: call
    for call in (
        list_files,
        submissions,
        download_all,
        submit,
        username,
        push_kernel,
        kernel_status,
        list_kernel_files,
        kernel_output,
        dataset_status,
        make_dataset,
        make_version,
    )
}


def main() -> None:
    """Reply to questions until standard input ends."""
    questions: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    # A copy: without a valid token the package calls `exit`, which closes standard input, and that would wait for
    # ever for the thread that reads it.
    source = os.fdopen(os.dup(0), "rb")
    threading.Thread(target=_listen, args=(source, questions), daemon=True).start()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    while True:
        question = questions.get()
        try:
            answer = {"answer": CALLS[question["call"]](_api(answers), **question["with"])}
        except BaseException as fault:  # SystemExit, too: without credentials the package exits
            answer = {"fault": _describe(fault)}
        sys.stdout.flush()
        sys.stderr.write(END + "\n")
        sys.stderr.flush()
        _write(answers, answer)


def _listen(source: BinaryIO, questions: queue.SimpleQueue[dict[str, Any]]) -> None:
    for line in source:
        questions.put(json.loads(line))
    os._exit(1)


def _api(answers: TextIO) -> Any:
    """Return the package's API object, logged in."""
    _remember_replies()
    import kaggle
    from kaggle.api import kaggle_api_extended as extended

    if hasattr(extended, "tqdm") and not issubclass(extended.tqdm, _Counting):
        extended.tqdm = type("Counting", (_Counting, extended.tqdm), {"answers": answers})
    if not kaggle.api._authenticated:
        kaggle.api.authenticate()  # the import tried this too, but hid the reason of a failure
    return kaggle.api


last_reply: list[Any] = []
"""The last HTTP answer, whoever gave it. The package hides it when it refuses to go on without a valid token."""


def _remember_replies() -> None:
    """Store each HTTP answer in `last_reply`."""
    import requests

    send = requests.Session.send

    def remember(*args: Any, **options: Any) -> Any:
        last_reply[:] = [send(*args, **options)]
        return last_reply[0]

    if send.__name__ != remember.__name__:
        requests.Session.send = remember


class _Counting:
    """Mixin for the package's progress bar: draws nothing, but reports what it counts."""

    answers: TextIO
    total: float | None

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **(options | {"disable": True}))

    def update(self, n: float | None = 1) -> Any:
        """Count, and report from time to time."""
        self.count = getattr(self, "count", 0) + (n or 0)
        if time.monotonic() - getattr(self, "last", 0) >= REPORT_SECONDS or self.count == self.total:
            self.last = time.monotonic()
            _write(self.answers, {"sent": self.count, "of": self.total})
        return super().update(n)  # pyright: ignore[reportAttributeAccessIssue]


def _write(answers: TextIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer, default=str) + "\n")
    answers.flush()


def _file(file: Any, size: int | None) -> dict[str, Any]:
    return {"name": file.name, "size": size, "date": file.creation_date}


def _creation(response: Any) -> dict[str, Any]:
    return {"status": response.status, "error": response.error}


def _describe(fault: BaseException) -> dict[str, Any]:
    """Describe an exception: its text and its first cause's, classes of it and of its causes, the HTTP answer's
    status, address and whether it is a web page, and number and path of a system error."""
    chain: list[BaseException] = []
    cause: BaseException | None = fault
    replies: list[Any] = []
    # Stop at Kaggle's last answer: earlier errors were handled by the package.
    while cause is not None and cause not in chain and not replies:
        chain.append(cause)
        replies += [reply for reply in [getattr(cause, "response", None)] if reply is not None]
        cause = cause.__cause__ or cause.__context__
    if isinstance(fault, SystemExit):
        replies += last_reply
    errors = [error for error in chain if isinstance(error, OSError) and error.errno]
    return {
        "message": str(fault),
        "cause": str(chain[-1]),
        "types": [kind.__name__ for error in chain for kind in type(error).__mro__],
        "status": _status(replies[0]) if replies else None,
        "url": replies[0].url.partition("?")[0] if replies else "",
        "page": bool(replies) and _is_page(replies[0]),
        "errno": errors[0].errno if errors else None,
        "path": str(errors[0].filename or "") if errors else "",
    }


def _is_page(reply: Any) -> bool:
    """Tell whether an HTTP answer is a web page, such as a filter's, without the mark of Kaggle's API."""
    return "text/html" in reply.headers.get("Content-Type", "") and "X-Kaggle-ApiVersion" not in reply.headers


def _status(reply: Any) -> int:
    """Return the status of an HTTP answer; an error may come with status 200 and its own code in the body."""
    if reply.status_code >= 400:
        return reply.status_code
    try:
        return int(reply.json()["code"])
    except (ValueError, KeyError, TypeError):
        return reply.status_code


if __name__ == "__main__":
    main()
