"""Running the official client: its environment, its limits, its failures, and that no credential comes out."""

import base64
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, quote_plus

import pytest
from cli_support import command
from kaggle_support import LIMITS, assert_only_loopback, client_of, guarded
from processes import is_gone, wait_until
from rehearsal_support import write_submission

from kaggle_nerve.competition import facts
from kaggle_nerve.errors import NerveError
from kaggle_nerve.kaggle_api import client as clients
from kaggle_nerve.kaggle_api import (
    credentials,
    download_watch,
    environment,
    failures,
    records,
    subjects,
    versions,
)
from kaggle_nerve.kaggle_api.client import Client, Limits
from kaggle_nerve.kaggle_api.credentials import Credential
from kaggle_nerve.kaggle_api.failures import KaggleError
from kaggle_nerve.kaggle_api.process import EndedError, Program
from kaggle_nerve.kaggle_api.raw_error import RawError
from kaggle_nerve.rehearsal.competitions.served import ServedCompetition
from kaggle_nerve.rehearsal.server import RehearsalServer

PLANTED = "KGAT_planted0123456789abcdef"
"""A recognisable token: it must appear in nothing that a user, a log or a file gets."""


@pytest.fixture
def server(served: ServedCompetition, tmp_path: Path) -> Iterator[RehearsalServer]:
    with RehearsalServer(served, tmp_path / "state", token=PLANTED) as running:
        yield running


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A user with an empty home, no credentials and no proxies; the home."""
    for name in environment.USER:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


class TestEnvironment:
    def test_a_rehearsal_gets_nothing_of_the_user(
        self, nobody: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in (
            "KAGGLE_KEY",
            "KAGGLE_USERNAME",
            "NO_PROXY",
            "REQUESTS_CA_BUNDLE",
            "ALL_PROXY",
            "AWS_SECRET",
        ):
            monkeypatch.setenv(name, "of-the-user")
        given = rehearsal_variables()
        built = environment.build(given)
        assert "of-the-user" not in built.values()
        assert {name: built[name] for name in given} == given

    def test_the_users_variables_are_taken_by_name(
        self, nobody: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in (
            "KAGGLE_KEY",
            "https_proxy",
            "REQUESTS_CA_BUNDLE",
            "VERBOSE",
            "VERBOSE_OUTPUT",
            "AWS_SECRET",
        ):
            monkeypatch.setenv(name, "1")
        built = environment.build(None)
        assert {"KAGGLE_KEY", "https_proxy", "REQUESTS_CA_BUNDLE", "PATH", "HOME"} <= built.keys()
        assert not {"VERBOSE", "VERBOSE_OUTPUT", "AWS_SECRET"} & built.keys()

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("KAGGLE_API_ENVIRONMENT", ""),
            ("KAGGLE_API_ENVIRONMENT", "TEST"),
            ("http_proxy", ""),
            ("https_proxy", ""),
            ("https_proxy", "http://proxy.example:3128"),
            ("HTTPS_PROXY", "http://10.0.0.1:3128"),
            ("http_proxy", "http://127.0.0.1.example:80"),
            ("all_proxy", "socks5://proxy.example"),
            ("no_proxy", "localhost"),
            ("NO_PROXY", "*"),
            ("HOME", ""),
            ("KAGGLE_API_TOKEN", ""),
        ],
    )
    def test_a_rehearsal_that_could_leave_this_machine_does_not_start(self, name: str, value: str) -> None:
        with pytest.raises(NerveError, match=f"could reach the real Kaggle.*{name}"):
            Client({**rehearsal_variables(), name: value})

    def test_a_shell_with_the_rehearsals_exports_rehearses(
        self, nobody: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in rehearsal_variables().items():
            monkeypatch.setenv(name, value)
        assert (Client().is_rehearsal, Client().where) == (True, "rehearsal")
        monkeypatch.setenv("no_proxy", "localhost")
        with pytest.raises(NerveError, match="no_proxy must be empty"):
            Client()

    def test_an_endpoint_that_the_client_ignores_is_refused(
        self, nobody: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "TEST")
        with pytest.raises(NerveError, match="KAGGLE_API_ENVIRONMENT=TEST is ignored"):
            Client()


def rehearsal_variables() -> dict[str, str]:
    proxy = "http://127.0.0.1:9"
    return {
        "HOME": "/nowhere",
        "KAGGLE_API_TOKEN": "t0ken",
        "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
        **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"), proxy),
        **dict.fromkeys(("no_proxy", "NO_PROXY"), ""),
    }


class TestCredentials:
    def test_order_and_what_is_ignored(self, tmp_path: Path) -> None:
        """The client's own order: variable, token file, pair, login."""
        folder = tmp_path / ".kaggle"
        folder.mkdir()
        (folder / "kaggle.json").write_text(json.dumps({"username": "me", "key": "k3y-of-me"}))
        variables = {"HOME": str(tmp_path)}
        assert credentials.find(variables) == Credential("user name and key", str(folder / "kaggle.json"))
        (folder / "access_token").write_text("t0ken-in-file\n")
        (folder / "credentials.json").write_text(json.dumps({"refresh_token": "r3fresh"}))
        variables["KAGGLE_API_TOKEN"] = "t0ken-in-env"
        found = credentials.find(variables)
        assert found == Credential(
            "access token",
            "KAGGLE_API_TOKEN",
            tuple(str(folder / name) for name in ("access_token", "kaggle.json", "credentials.json")),
        )
        hidden = credentials.secrets(variables)
        assert {"t0ken-in-env", "t0ken-in-file", "k3y-of-me", "r3fresh"} <= hidden
        assert not any(secret in repr(found) for secret in hidden)

    def test_the_pair_may_come_from_both_places(self, tmp_path: Path) -> None:
        (tmp_path / "kaggle.json").write_text(json.dumps({"username": "me", "key": "old"}))
        variables = {"HOME": str(tmp_path), "KAGGLE_CONFIG_DIR": str(tmp_path), "KAGGLE_KEY": "new-key"}
        assert credentials.find(variables).where == "KAGGLE_USERNAME and KAGGLE_KEY"
        assert "new-key" in credentials.secrets(variables)

    def test_token_variable_may_name_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "token").write_text("t0ken-in-file")
        variables = {"HOME": str(tmp_path), "KAGGLE_API_TOKEN": str(tmp_path / "token")}
        assert "t0ken-in-file" in credentials.secrets(variables)
        assert credentials.find({**variables, "KAGGLE_API_TOKEN": "x" * 5000}).kind == "access token"

    def test_in_a_kaggle_notebook(self, tmp_path: Path) -> None:
        (tmp_path / "token").write_text("t0ken-of-notebook")
        variables = {
            "HOME": str(tmp_path),
            "KAGGLE_KERNEL_RUN_TYPE": "Batch",
            "KAGGLE_DATA_PROXY_URL": "http://x",
            "KAGGLE_API_V1_TOKEN": str(tmp_path / "token"),
        }
        assert credentials.find(variables).where == "the Kaggle notebook"
        assert "t0ken-of-notebook" in credentials.secrets(variables)

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            (b"KGAT_old000\nKGAT_new111\n", "has 2 lines: leave only the newest one, on one line"),
            (b"KGAT_old000 and KGAT_new111", "has 3 words"),
            (
                b'{\n  "username": "me",\n  "key": "k3y-of-me"\n}\n',
                "is the text of a kaggle.json, not a token",
            ),
            ("\ufeffKGAT_new111\n".encode(), "another encoding than plain UTF-8"),
            ("KGAT_new111\n".encode("utf-16"), "another encoding than plain UTF-8"),
            ("KGAT_n\u00e4w111".encode(), "has characters that no token has"),
        ],
    )
    def test_a_file_that_holds_no_token_is_refused_without_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: bytes, told: str
    ) -> None:
        path = tmp_path / "t"
        path.write_bytes(text)
        monkeypatch.setenv("KAGGLE_API_TOKEN", str(path))
        done = command(tmp_path, "fetch", "--data", "f", code=1)
        assert told in done.stderr
        assert done.stderr.count("Error: ") == 1
        assert not any(secret in done.output for secret in ("old000", "new111", "w111", "k3y-of-me"))

    def test_a_token_in_the_place_of_a_key_is_refused_without_it(self, tmp_path: Path) -> None:
        variables = {"HOME": str(tmp_path), "KAGGLE_USERNAME": "me", "KAGGLE_KEY": "KGAT_0123"}
        with pytest.raises(NerveError, match="set KAGGLE_API_TOKEN to it") as caught:
            credentials.require(variables)
        assert "0123" not in str(caught.value)

    @pytest.mark.parametrize("secret", ["KGAT_a\nKGAT_b", "q\"uo'te\\d", "p@ss w/rd%+ä", "tab\tbed-secret"])
    def test_a_secret_is_blank_however_it_is_quoted(self, tmp_path: Path, secret: str) -> None:
        variables = {"HOME": str(tmp_path), "KAGGLE_USERNAME": "me", "KAGGLE_KEY": secret}
        hide = credentials.secrets(variables)
        login = f"me:{secret}".encode()
        for quoted in (
            secret,
            repr(secret),
            ascii(secret),
            repr(secret.encode()),
            json.dumps(secret),
            quote(secret),
            quote_plus(secret),
            quote(secret, safe=""),
            base64.b64encode(secret.encode()).decode(),
            base64.b64encode(login).decode(),
            base64.urlsafe_b64encode(login).decode(),
            quote(f"me:{secret}", safe=":"),
            *secret.splitlines(),
        ):
            blanked = credentials.blank(f"Invalid header value {quoted} for you", hide)
            assert credentials.BLANK in blanked, quoted
            left = blanked.replace("Invalid header value", "").replace("for you", "").strip("' \"b=me:")
            assert left == credentials.BLANK, quoted

    def test_none(self, nobody: Path) -> None:
        assert credentials.find() is None
        with pytest.raises(
            NerveError, match=r"No Kaggle credentials.*kaggle.com/settings.*KAGGLE_API_TOKEN.*again"
        ):
            Client().list_files()

    def test_a_broken_or_open_kaggle_json_is_named(self, tmp_path: Path) -> None:
        (tmp_path / ".kaggle").mkdir()
        config = tmp_path / ".kaggle" / "kaggle.json"
        config.write_text("{")
        config.chmod(0o644)
        told = credentials.problems({"HOME": str(tmp_path)})
        assert [("not readable JSON" in line, "chmod 600" in line) for line in told] == [
            (True, False),
            (False, True),
        ]
        with pytest.raises(NerveError, match="not readable JSON"):
            credentials.require({"HOME": str(tmp_path)})

    @pytest.mark.parametrize(
        ("text", "rest"),
        [
            ("Authorization: Bearer abc.def", "Authorization: ***"),
            ("{'Authorization': 'Basic bWU6a2V5'}", "{'Authorization': '***'}"),
            ("GET /x.zip?X-Goog-Signature=0a1b&z=1", "GET /x.zip?X-Goog-Signature=***&z=1"),
            ("via http://me:pass@proxy:3128/", "via http://***@proxy:3128/"),
            ("token KGAT_0123", "token ***"),
            ("403 Client Error: Forbidden for url: http://localhost/api", None),
        ],
    )
    def test_blanking_what_looks_like_a_credential(self, text: str, rest: str | None) -> None:
        assert credentials.blank(text, frozenset()) == (text if rest is None else rest)

    def test_blanking_what_is_one(self, tmp_path: Path) -> None:
        variables = {
            "HOME": str(tmp_path),
            "https_proxy": "http://me:s%40fe-word@proxy.example",
            "KAGGLE_USERNAME": "me",
            "KAGGLE_KEY": "k3y-of-me",
        }
        hide = credentials.secrets(variables)
        for secret in ("s%40fe-word", "s@fe-word", "k3y-of-me", "bWU6azN5LW9mLW1l"):
            assert credentials.blank(f"<{secret}>", hide) == "<***>"


PROGRAM = """
import json, os, subprocess, sys, time
for line in sys.stdin:
    asked = json.loads(line)
    print(asked.get("noise", ""), file=sys.stderr, flush=True)
    for event in asked.get("events", []):
        print(json.dumps(event), flush=True)
    if asked.get("child"):
        child = subprocess.Popen(["sleep", "60"])
        print(json.dumps({"pid": child.pid}), flush=True)
    if "exit" in asked:
        sys.exit(asked["exit"])
    time.sleep(asked.get("seconds", 0))
    print("\\x04", file=sys.stderr, flush=True)
    print(json.dumps({"answer": [os.getpid(), asked]}), flush=True)
"""


def program(**environment: str) -> Program:
    return Program([sys.executable, "-c", PROGRAM], {**os.environ, **environment})


class TestProgram:
    def test_one_process_answers_until_it_is_let_go(self) -> None:
        speaker, events = program(), []
        question = {"noise": "one\r\ntwo", "events": [{"sent": 1}, {"sent": 2}]}
        first, text = speaker.ask(question, 30, on_event=events.append)
        assert (first["answer"][1], text, events) == (question, "one\ntwo\n", [{"sent": 1}, {"sent": 2}])
        second, text = speaker.ask({}, 30)
        assert (second["answer"][0], text) == (first["answer"][0], "\n")
        del speaker
        assert is_gone(first["answer"][0])

    def test_time_limit_ends_the_whole_group_and_the_next_question_begins_anew(self) -> None:
        speaker, events, began = program(), [], time.monotonic()
        assert speaker.ask({"seconds": 60, "child": True}, 1, on_event=events.append) is None
        assert time.monotonic() - began < 50
        wait_until(lambda: is_gone(events[0]["pid"]), "the grandchild lives on")
        assert speaker.ask({}, 30)[0]["answer"][1] == {}

    def test_interrupt_ends_it_and_goes_on(self) -> None:
        speaker, pids = program(), []

        def interrupt(event: dict) -> None:
            pids.append(event["pid"])
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            speaker.ask({"seconds": 60, "child": True}, 30, on_event=interrupt)
        wait_until(lambda: is_gone(pids[0]), "the grandchild lives on")

    def test_a_watcher_sees_what_was_written(self) -> None:
        texts = []
        program().ask({"noise": "words", "seconds": 0.6}, 30, texts.append)
        assert set(texts) == {"words\n"}

    def test_one_that_ends_by_itself_is_told_with_its_last_words(self) -> None:
        speaker = program()
        with pytest.raises(EndedError, match="out of order"):
            speaker.ask({"noise": "out of order", "exit": 3}, 30)
        assert speaker.ask({}, 30)[0]["answer"][1] == {}


class TestDownloadWatch:
    def test_patience_counts_from_the_last_change_also_to_fewer(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        sizes, now, reported = iter([0, 100, 10, 20, 20, 20]), [0.0], []
        monkeypatch.setattr(download_watch.time, "monotonic", lambda: now[0])
        watch = download_watch.DownloadWatch(lambda: next(sizes), 15, reported.append, "downloading it")
        for _ in range(5):
            watch("")
            now[0] += 10
        assert reported == [0, 100, 10, 20]
        with pytest.raises(
            KaggleError, match="Nothing came for 15 s while downloading it: check the network"
        ):
            watch("")

    def test_a_full_disk_ends_it_at_once(self) -> None:
        watch = download_watch.DownloadWatch(
            lambda: 0, 15, lambda size: None, "downloading it", subjects.KERNEL_FAILURES
        )
        with pytest.raises(KaggleError, match=r"disk became full while downloading it.*with --runs") as fault:
            watch("OSError: [Errno 28] No space left on device\nRetrying in 2 s")
        assert fault.value.kind == "disk"


class TestRecords:
    def test_unknown_values(self) -> None:
        row = {"ref": 7, "file_name": "a.csv", "date": None, "description": "", "status": "COMPLETE"}
        found = records.as_submission(row | {"public_score": "0.5", "private_score": None})
        assert (found.ref, found.date, found.status, found.public, found.private) == (
            "7",
            "",
            "complete",
            "0.5",
            "",
        )
        assert records.as_file({"name": "a", "size": None, "date": None}) == records.RemoteFile("a", 0)


def raised(name: str, message: str, *others: str, **facts) -> RawError:
    """A fault as `guard` tells it."""
    return RawError(message, name, frozenset([name, *others]), **facts)


def http(status: int, message: str, url: str = "https://api.kaggle.com/v1/x") -> RawError:
    """Kaggle's answer with an error."""
    return raised("HTTPError", message, "OSError", status=status, url=url)


STORAGE = "https://storage.googleapis.com/bundle/archive.zip"
CAPTURED = [
    (raised("ModuleNotFoundError", "No module named 'six'", "ImportError"), "client", "pip install six"),
    (
        raised("ModuleNotFoundError", "No module named 'kaggle'", "ImportError"),
        "client",
        'run `pip install --force-reinstall "kaggle>=2.2.4,<=',
    ),
    (raised("OSError", "[Errno 28] No space left on device", errno=28), "disk", "free some space"),
    (raised("ValueError", "Gave up: No space left on device"), "disk", "free some space"),
    (raised("SystemExit", "1"), "unauthorized", "make a new token"),
    (http(401, "401 Client Error: Unauthorized for url: x"), "unauthorized", "make a new token"),
    (
        raised(
            "ValueError",
            "Cannot access kernel (Permission 'kernels.get' was denied)",
            "HTTPError",
            status=401,
        ),
        "unauthorized",
        "make a new token",
    ),
    (
        http(403, "You must accept this competition's rules before you'll be able to download files."),
        "rules",
        "Late Submission",
    ),
    (http(403, "Required permission 'competitions.get' was not satisfied"), "rules", "/rules"),
    (http(403, "403 Client Error: Forbidden for url: https://api.kaggle.com/v1/x"), "rules", "/rules"),
    (http(403, "403 Client Error: Forbidden for url: x", STORAGE), "link", "new one"),
    (
        http(400, "Submission not allowed: Your team has used its daily Submission allowance (5) today"),
        "daily-limit",
        "midnight UTC",
    ),
    (
        http(404, "404 Client Error: Not Found for url: https://api.kaggle.com/v1/x"),
        "not-found",
        "in a browser",
    ),
    (http(404, "no such thing"), "not-found", "in a browser"),
    (http(429, "slower"), "rate", "wait some minutes"),
    (http(503, "503 Server Error: Service Unavailable for url: x"), "server", "wait some minutes"),
    (http(200, "Downloaded file size (3) does not match expected size (4)"), "corrupt", "again"),
    (raised("ProxyError", "Max retries exceeded", "ConnectionError"), "network", "https_proxy"),
    (
        raised("SSLError", "x", "ConnectionError", cause="CERTIFICATE_VERIFY_FAILED"),
        "network",
        "REQUESTS_CA_BUNDLE to its",
    ),
    (
        raised("PermissionError", "Permission was denied", "OSError"),
        "broken",
        "(PermissionError: Permission was",
    ),
    (raised("EndedError", "403 Client Error: Forbidden"), "broken", "The kaggle client broke while doing"),
    (raised("ConnectionError", "x", "PermissionError", "OSError", errno=1), "network", "check the network"),
    (
        raised("ValueError", "No such thing"),
        "broken",
        "The kaggle client broke while doing (ValueError: No such",
    ),
    (raised("ConnectionError", "Failed to resolve 'api.kaggle.com'"), "network", "check the network"),
    (raised("ChunkedEncodingError", "Response ended prematurely"), "network", "check the network"),
    (raised("JSONDecodeError", "Expecting value", "ValueError"), "network", "login page"),
    (
        raised(
            *("FileNotFoundError", "[Errno 2] No such file: '/root/.kaggle'", "OSError"),
            errno=2,
            path="/root/.kaggle",
            is_own_folder=True,
        ),
        "client",
        "(FileNotFoundError: [Errno 2] No such file: '/root/.kaggle'): set KAGGLE_CONFIG_DIR",
    ),
    (
        raised("TypeError", "'NoneType' object is not iterable"),
        "broken",
        "(TypeError: 'NoneType' object is not iterable): run ",
    ),
    (
        raised("BadZipFile", "File is not a zip file"),
        "broken",
        "The kaggle client broke while doing (BadZipFile: File is not a zip file): ",
    ),
    (http(400, "no such luck"), "refused", "no such luck"),
    (RawError(""), "refused", "said nothing"),
]


class TestFailures:
    @pytest.mark.parametrize(
        ("fault", "kind", "words"), CAPTURED, ids=[one[0].message[-40:] for one in CAPTURED]
    )
    def test_captured(self, fault: RawError, kind: str, words: str) -> None:
        found = failures.explain(fault, "doing", facts.SLUG, None)
        assert (found.kind, words in str(found)) == (kind, True), str(found)
        assert "\n" not in str(found)

    @pytest.mark.parametrize(
        ("client", "step"),
        [
            ("9.9", 'run `pip install "kaggle>=2.2.4,<='),
            (
                versions.NEWEST,
                "run the same command again, and if it fails the same way again, look for a newer kaggle-nerve.",
            ),
        ],
    )
    def test_the_next_step_with_an_untested_client_is_a_tested_one(
        self, monkeypatch: pytest.MonkeyPatch, client: str, step: str
    ) -> None:
        monkeypatch.setattr(versions, "installed", lambda: client)
        assert step in str(failures.explain(raised("TypeError", "x"), "doing", facts.SLUG, None))

    def test_the_reason_alone(self) -> None:
        found = failures.explain(
            http(503, "503 Server Error: Bad for url: x"), "submitting", facts.SLUG, None
        )
        assert (
            found.reason
            == "Kaggle has a fault of its own while submitting (503 Server Error: Bad for url: x)"
        )

    def test_a_credential_that_the_token_takes_precedence_over_is_named(self) -> None:
        credential = Credential("access token", "KAGGLE_API_TOKEN", ("/home/me/.kaggle/kaggle.json",))
        told = str(failures.explain(http(401, "401 Client Error"), "doing", facts.SLUG, credential))
        assert "the access token from KAGGLE_API_TOKEN" in told
        assert "takes precedence over /home/me/.kaggle/kaggle.json" in told


class TestAgainstTheServer:
    def test_all_pages(self, server: RehearsalServer, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(clients, "PAGE", 10)
        seen = []
        listing = client_of(server, home).list_files(seen.append)
        assert [(file.name, file.size) for file in listing.files] == [
            (m.name, m.size) for m in server.served.members
        ]
        assert (listing.whole, seen) == (True, [10, 18])
        assert_only_loopback(home)

    def test_a_later_page_that_fails_leaves_a_part(
        self, server: RehearsalServer, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(clients, "PAGE", 10)
        client = client_of(server, home)
        listing = client.list_files(lambda count: server.faults.add("status", call="ListDataFiles"))
        assert (len(listing.files), listing.whole) == (10, False)

    def test_stall_meets_the_time_limit(self, server: RehearsalServer, home: Path) -> None:
        server.faults.add("stall", call="ListSubmissions")
        client = client_of(server, home, Limits(call=3))
        with pytest.raises(
            KaggleError, match="did not answer within 3 s while listing the submissions"
        ) as told:
            client.submissions()
        assert told.value.kind == "timeout"

    def test_a_namesake_in_the_users_folder_is_not_run(
        self, server: RehearsalServer, home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        (tmp_path / "kaggle.py").write_text("raise SystemExit('the wrong one')")
        (tmp_path / "json.py").write_text("raise SystemExit('the wrong one')")
        monkeypatch.chdir(tmp_path)
        assert client_of(server, home).submissions() == []

    def test_no_network(self, server: RehearsalServer, home: Path) -> None:
        client = client_of(server, home)
        server.close()
        with pytest.raises(KaggleError, match=r"server does not answer.*run the same command again") as told:
            client.list_files()
        assert told.value.kind == "network"
        assert_only_loopback(home)

    def test_six_is_missing(self, server: RehearsalServer, home: Path) -> None:
        variables = guarded(server, home)
        broken = home / "guard" / "kaggle"
        broken.mkdir()
        (broken / "__init__.py").write_text("raise ModuleNotFoundError(\"No module named 'six'\")")
        with pytest.raises(KaggleError, match="pip install six"):
            Client(variables).list_files()


class TestNoCredentialComesOut:
    @pytest.mark.parametrize("fault", ["unauthorized", "rules", "stall", "status"])
    def test_in_messages(self, server: RehearsalServer, home: Path, fault: str) -> None:
        """With the token in the variable and, as a key, in kaggle.json; the client's whole output is looked at."""
        client = client_of(server, home, Limits(call=3, stall=3))
        config = home / "kaggle" / "kaggle.json"
        config.parent.mkdir(parents=True)
        config.write_text(json.dumps({"username": "me", "key": PLANTED}))
        server.faults.add(fault, **({"message": f"bad token {PLANTED}"} if fault == "status" else {}))
        with pytest.raises(KaggleError) as told:
            client.download_all(home / "got")
        assert PLANTED not in f"{told.value!r} {told.value} {client.credential()!r} {vars(told.value)}"

    def test_in_what_kaggle_says_of_a_submission(self, server: RehearsalServer, home: Path) -> None:
        server.faults.add("status", call="CreateSubmission", status=400, message=f"token {PLANTED} is bad")
        csv = write_submission(home.parent / "submission.csv")
        answer = client_of(server, home, LIMITS).submit(csv, "x")
        assert "token *** is bad" in answer.text
        assert PLANTED not in repr(answer)
