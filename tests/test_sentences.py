"""What the user reads where Kaggle answers with an error: word for word, on every version of the client."""

from collections.abc import Callable
from pathlib import Path

import pytest
from kaggle_support import LIMITS, client_of
from rehearsal_support import write_submission

from kaggle_nerve.competition import facts
from kaggle_nerve.kaggle_api import versions
from kaggle_nerve.kaggle_api.client import Client
from kaggle_nerve.kaggle_api.datasets import dataset_state
from kaggle_nerve.kaggle_api.failures import KaggleError
from kaggle_nerve.kaggle_api.kernels import kernel_status
from kaggle_nerve.rehearsal import routes
from kaggle_nerve.rehearsal.server import RehearsalServer
from kaggle_nerve.rehearsal.wire import Reply, Text

PAGE = f"https://www.kaggle.com/competitions/{facts.SLUG}"
SERVICE = "http://localhost/api/v1/competitions.CompetitionApiService"
WORDS = "The rehearsal was told to answer so."
TOKEN = (
    "make a new token at https://www.kaggle.com/settings under API, put it in the old one's place and run the same "
    "command again."
)
REFUSED = (
    "Kaggle refused while {doing} and said '{words}': run the same command again later, and if it says the same, "
    "look at {page} for what has changed."
)
RULES = (
    "Kaggle refuses this account (403, while listing the data) because it has not accepted the competition's rules: "
    f"open {PAGE}/rules, press 'Late Submission' or 'I Understand and Accept' (Kaggle may want a phone number first, "
    "at https://www.kaggle.com/settings), and run the same command again."
)
UNKNOWN = (
    f"Kaggle does not know the competition {facts.SLUG}, or no longer has it for this account (404, while listing "
    f"the data): look at {PAGE} in a browser, logged in with the same account."
)
RATE = "Kaggle wants fewer requests (429, while listing the data): wait some minutes and run the same command again."
SERVER = (
    "Kaggle has a fault of its own while {doing} ({words}): wait some minutes and run the same command again."
)
LINK = (
    "The download address that Kaggle gave is refused, as it is when it has expired: run the same command again, "
    "which gets a new one."
)


def list_files(client: Client, home: Path) -> None:
    client.list_files()


def download(client: Client, home: Path) -> None:
    client.download_all(home / "got")


def submit(client: Client, home: Path) -> None:
    answer = client.submit(write_submission(home.parent / "submission.csv"), "x")
    if answer.failure:
        raise answer.failure


def ask_for_a_session(client: Client, home: Path) -> None:
    kernel_status("me/my-kernel", client)


def ask_for_a_dataset(client: Client, home: Path) -> None:
    dataset_state("me/mine", client)


FILES, SESSION = "ListDataFiles", "GetKernelSessionStatus"
CASES = {
    "a reason": (
        list_files, FILES, 400, True, "refused", REFUSED.format(doing="listing the data", words=WORDS, page=PAGE),
    ),
    "no login": (
        list_files, FILES, 401, True, "unauthorized",
        f"Kaggle does not accept the access token from KAGGLE_API_TOKEN (401, while listing the data): {TOKEN}",
    ),
    "no login, which this command of the client calls a missing permission": (
        ask_for_a_session, SESSION, 401, True, "unauthorized",
        "Kaggle does not accept the access token from KAGGLE_API_TOKEN (401, while asking for the status of "
        f"me/my-kernel): {TOKEN}",
    ),
    "a 403 without a reason is mostly of the rules": (list_files, FILES, 403, False, "rules", RULES),
    "a 403 with one is of that": (
        list_files, FILES, 403, True, "refused", REFUSED.format(doing="listing the data", words=WORDS, page=PAGE),
    ),
    "a dataset's 403": (
        ask_for_a_dataset, "GetDatasetStatus", 403, True, "refused",
        REFUSED.format(
            doing="asking for the dataset me/mine", words=WORDS, page="https://www.kaggle.com/datasets/me/mine"
        ),
    ),
    "not there": (list_files, FILES, 404, True, "not-found", UNKNOWN),
    "not there, without a reason": (list_files, FILES, 404, False, "not-found", UNKNOWN),
    "too many questions": (list_files, FILES, 429, True, "rate", RATE),
    "a fault of Kaggle's": (
        list_files, FILES, 503, True, "server", SERVER.format(doing="listing the data", words=WORDS),
    ),
    "a fault of Kaggle's, without a reason": (
        list_files, FILES, 502, False, "server",
        SERVER.format(
            doing="listing the data", words=f"502 Server Error: Bad Gateway for url: {SERVICE}/ListDataFiles"
        ),
    ),
    "a fault while submitting": (
        submit, "CreateSubmission", 503, True, "server", SERVER.format(doing="submitting", words=WORDS),
    ),
    "storage that takes nothing": (
        submit, "upload", 403, False, "upload-failed",
        "Kaggle's storage did not take the file, so nothing was submitted: run the same command again.",
    ),
    "an expired address": (download, "archive", 403, False, "link", LINK),
    "an address where nothing is": (download, "archive", 404, False, "link", LINK),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_an_answer_that_is_an_error(server: RehearsalServer, home: Path, case: str) -> None:
    act: Callable[[Client, Path], None]
    act, call, status, has_reason, kind, sentence = CASES[case]
    server.faults.add("status", call=call, status=status, json=has_reason, message=WORDS, times=None)
    with pytest.raises(KaggleError) as fault:
        act(client_of(server, home, LIMITS), home)
    assert (fault.value.kind, str(fault.value)) == (kind, sentence)


def test_a_client_that_breaks(server: RehearsalServer, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to 2.2.4 it ends with a traceback, later with one line and advice. Kaggle's answer has no list here."""
    call = routes.COMPETITIONS + FILES
    broken = Reply(200, {"Content-Type": "application/json"}, Text(b'{"files": 5}'))
    monkeypatch.setitem(routes.CALLS, call, routes.Call(routes.CALLS[call].request_type, lambda *_: broken))
    with pytest.raises(KaggleError) as fault:
        client_of(server, home).list_files()
    assert str(fault.value) == (
        "The kaggle client broke while listing the data (TypeError: 'int' object is not iterable): "
        f"{versions.next_step()}."
    )
    assert fault.value.kind == "broken"
