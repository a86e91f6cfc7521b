"""Asks Kaggle through the official package, for the process that started it, and ends as soon as that is gone.

Started by its path, as a program of its own; it knows nothing of this package. Standard input brings questions, one
JSON object a line: ``{"call": "submissions", "with": {"slug": ...}}``. Standard output carries for each of them one of

    {"answer": ...}                                     what a function of `CALLS` returned
    {"fault": {"message", "types", "status", "url", "errno"}}

and before it, while files are sent, ``{"sent": bytes, "of": bytes}``. Whatever the package prints goes to standard
error. When the starter dies, however it dies, standard input ends. Without this a client would live on after
``kill -9``, write to an archive that the next one writes to as well, or submit unseen.
"""

import json
import os
import queue
import sys
import threading
import time
from typing import Any, TextIO

EVERY = 0.2
"""Seconds between two reports of how much was sent."""


def list_files(api: Any, slug: str, token: str, size: int) -> dict[str, Any]:
    """A page of the competition's files."""
    page = api.competition_list_files(slug, page_token=token or None, page_size=size)
    return {
        "files": [_file(file, file.total_bytes) for file in page.files or []],
        "next": page.next_page_token,
    }


def submissions(api: Any, slug: str, size: int) -> list[dict[str, Any]]:
    """The newest submissions."""
    rows = api.competition_submissions(slug, page_size=size) or []
    names = ("ref", "file_name", "date", "description", "public_score", "private_score")
    return [{"status": row.status.name, **{name: getattr(row, name) for name in names}} for row in rows]


def download_all(api: Any, slug: str, folder: str, force: bool) -> None:
    """Get the archive of all files into a folder."""
    # Not quiet: what it retries, such as writing to a full disk, is told by its print-outs alone.
    api.competition_download_files(slug, path=folder, force=force, quiet=False)


def submit(api: Any, slug: str, file: str, message: str) -> str:
    """Upload and submit a file; returns what Kaggle says of it, or the package of an upload that failed."""
    return api.competition_submit(file, message, slug, quiet=True).message


def username(api: Any) -> str | None:
    """Whose credentials these are."""
    return api.get_config_value(api.CONFIG_NAME_USER)


def push_kernel(api: Any, folder: str) -> dict[str, Any]:
    """Push the kernel in a folder; ``missing`` are the sources that Kaggle does not know, by kind."""
    made = api.kernels_push(folder)
    kinds = {"dataset": made.invalid_dataset_sources, "competition": made.invalid_competition_sources}
    kinds["kernel"] = made.invalid_kernel_sources
    return {
        "error": made.error,
        "url": made.url,
        "version": made.version_number,
        "missing": {kind: list(names) for kind, names in kinds.items() if names},
    }


def kernel_status(api: Any, ref: str) -> dict[str, Any]:
    """How a kernel's newest session stands."""
    session = api.kernels_status(ref)
    return {"status": session.status.name, "failure": session.failure_message}


def list_kernel_files(api: Any, ref: str, token: str, size: int) -> dict[str, Any]:
    """A page of the files that a kernel's newest session left."""
    page = api.kernels_list_files(ref, page_token=token or None, page_size=size)
    return {"files": [_file(file, file.size) for file in page.files or []], "next": page.next_page_token}


def kernel_output(api: Any, ref: str, folder: str, pattern: str, size: int) -> None:
    """Get the files of a kernel's output whose names match a pattern, of all pages."""
    api.kernels_output(ref, folder, file_pattern=pattern, quiet=False, page_size=size)


def dataset_status(api: Any, ref: str) -> dict[str, Any]:
    """How far a dataset's newest version is, and its number."""
    return json.loads(api.dataset_status(ref, format="json"))


def make_dataset(api: Any, folder: str) -> dict[str, Any]:
    """Make a dataset of the files in a folder."""
    return _made(api.dataset_create_new(folder, quiet=True, dir_mode="zip"))


def make_version(api: Any, folder: str, notes: str) -> dict[str, Any]:
    """Make a version of a dataset of the files in a folder."""
    return _made(api.dataset_create_version(folder, notes, quiet=True, dir_mode="zip"))


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
    """Answer until standard input ends."""
    questions: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(questions,), daemon=True).start()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    while True:
        question = questions.get()
        try:
            answer = {"answer": CALLS[question["call"]](_api(answers), **question["with"])}
        except BaseException as fault:  # SystemExit, too: the package exits where it has no credentials
            answer = {"fault": _told(fault)}
        _write(answers, answer)


def _listen(questions: queue.SimpleQueue[dict[str, Any]]) -> None:
    for line in sys.stdin.buffer:
        questions.put(json.loads(line))
    os._exit(1)


def _api(answers: TextIO) -> Any:
    """The package's own object, logged in."""
    import kaggle
    from kaggle.api import kaggle_api_extended as extended

    if hasattr(extended, "tqdm") and not issubclass(extended.tqdm, _Counting):
        extended.tqdm = type("Counting", (_Counting, extended.tqdm), {"answers": answers})
    if not kaggle.api._authenticated:
        kaggle.api.authenticate()  # importing it tried that, too, but hides why it failed
    return kaggle.api


class _Counting:
    """Comes before the package's progress bar: draws nothing, but reports what it counts."""

    answers: TextIO
    total: float | None

    def __init__(self, *words: Any, **options: Any) -> None:
        super().__init__(*words, **(options | {"disable": True}))

    def update(self, n: float | None = 1) -> Any:
        """Count, and report now and then."""
        self.count = getattr(self, "count", 0) + (n or 0)
        if time.monotonic() - getattr(self, "last", 0) >= EVERY or self.count == self.total:
            self.last = time.monotonic()
            _write(self.answers, {"sent": self.count, "of": self.total})
        return super().update(n)  # pyright: ignore[reportAttributeAccessIssue]


def _write(answers: TextIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer, default=str) + "\n")
    answers.flush()


def _file(file: Any, size: int | None) -> dict[str, Any]:
    return {"name": file.name, "size": size, "date": file.creation_date}


def _made(made: Any) -> dict[str, Any]:
    return {"status": made.status, "error": made.error}


def _told(fault: BaseException) -> dict[str, Any]:
    """What a fault is: its text, the classes of it and of what it came from, and what an HTTP answer said."""
    chain: list[BaseException] = []
    cause: BaseException | None = fault
    replies: list[Any] = []
    # What the package got over before Kaggle's last answer does not count.
    while cause is not None and cause not in chain and not replies:
        chain.append(cause)
        replies += [reply for reply in [getattr(cause, "response", None)] if reply is not None]
        cause = cause.__cause__ or cause.__context__
    errnos = [one.errno for one in chain if isinstance(one, OSError) and one.errno]
    return {
        "message": str(fault),
        "types": [kind.__name__ for one in chain for kind in type(one).__mro__],
        "status": _status(replies[0]) if replies else None,
        "url": replies[0].url.partition("?")[0] if replies else "",
        "errno": errnos[0] if errnos else None,
    }


def _status(reply: Any) -> int:
    """The status of an HTTP answer; an error may come with status 200 and have its own in its body."""
    if reply.status_code >= 400:
        return reply.status_code
    try:
        return int(reply.json()["code"])
    except (ValueError, KeyError, TypeError):
        return reply.status_code


if __name__ == "__main__":
    main()
