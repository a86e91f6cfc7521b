"""The rehearsal server, through the real client wherever the client can show it, else through raw HTTP."""

import base64
import http.client
import io
import json
import socket
import time
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from rehearsal_support import (
    MASKS,
    PUBLIC_IMGS,
    TEST_IMGS,
    make_competition,
    rectangle,
    run_client,
    started_client,
    wait_for_bytes,
    write_submission,
)

from kaggle_nerve.competition import facts
from kaggle_nerve.errors import NerveError
from kaggle_nerve.rehearsal import faults, wire
from kaggle_nerve.rehearsal.competitions import calls
from kaggle_nerve.rehearsal.competitions.served import ServedCompetition, open_packed, pack, split_usage
from kaggle_nerve.rehearsal.server import PROXIES, RehearsalServer

SLUG = facts.SLUG
MIB = 1 << 20


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    return make_competition(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def served(source: tuple[Path, pd.DataFrame], tmp_path_factory: pytest.TempPathFactory) -> ServedCompetition:
    return pack(*source, tmp_path_factory.mktemp("served"))


def statuses(server: RehearsalServer, call: str) -> list[int]:
    return [record.status for record in server.log if record.call == call]


def listed(server: RehearsalServer, home: Path) -> list[dict[str, str]]:
    """The submissions as the client shows them."""
    shown = run_client(server, home, "submissions", SLUG, "--format", "json")
    assert shown.code == 0, shown.err
    return json.loads(shown.out)


def rpc(server: RehearsalServer, name: str, ask: dict, token: str | None = None) -> tuple[int, dict]:
    """One call without the client, for what the client cannot show."""
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    headers = {"Authorization": f"Bearer {token or server.token}"}
    path = f"/api/v1/competitions.CompetitionApiService/{name}"
    connection.request("POST", path, json.dumps(ask), headers)
    answer = connection.getresponse()
    status, body = answer.status, answer.read()
    connection.close()
    return status, json.loads(body or b"{}")


def get(server: RehearsalServer, address: str, **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    connection.request(
        "GET", address, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer.status, answer.headers, body


def archive_link(server: RehearsalServer) -> str:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)
    connection.request(
        "POST",
        "/api/v1/competitions.CompetitionApiService/DownloadDataFiles",
        json.dumps({"competitionName": SLUG}),
        {"Authorization": f"Bearer {server.token}"},
    )
    location = connection.getresponse().headers["Location"]
    connection.close()
    return location.removeprefix(server.url)


def raw(server: RehearsalServer, data: bytes) -> bytes:
    """Send bytes as they are; everything that comes back until the server closes."""
    with socket.create_connection(
        ("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=60
    ) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


class TestFilesThroughTheClient:
    def test_lists_files_page_by_page(self, server: RehearsalServer, home: Path) -> None:
        first = run_client(server, home, "files", SLUG, "-v", "--page-size", "12")
        note, _, table = first.out.partition("\n")
        token = note.removeprefix("Next Page Token = ")
        second = run_client(server, home, "files", SLUG, "-v", "--page-size", "12", "--page-token", token)
        pages = pd.concat([pd.read_csv(io.StringIO(text)) for text in (table, second.out)])
        expected = [(member.name, member.size) for member in server.served.members]
        assert list(zip(pages["name"], pages["size"], strict=True)) == expected
        assert len(expected) == 18

    def test_downloads_everything_once(self, server: RehearsalServer, home: Path) -> None:
        first = run_client(server, home, "download", SLUG, "-p", "got")
        assert first.code == 0, first.err
        got = home / "got" / f"{SLUG}.zip"
        assert got.read_bytes() == server.served.archive.read_bytes()
        again = run_client(server, home, "download", SLUG, "-p", "got")
        assert "Skipping" in again.out
        assert {record.host for record in server.log} == {"localhost", "127.0.0.1"}

    @pytest.mark.parametrize("wrapped", [False, True])
    def test_downloads_one_file(self, server: RehearsalServer, home: Path, wrapped: bool) -> None:
        if wrapped:
            server.faults.add("zip-wrapped")
        done = run_client(server, home, "download", SLUG, "-f", "train/1_1.tif", "-p", "got")
        assert done.code == 0, done.err
        # Versions of the client from 2.2.5 on keep the folder of the name.
        [file] = (path for path in (home / "got").rglob("*") if path.is_file())
        assert file.name == ("1_1.tif.zip" if wrapped else "1_1.tif")
        got = file.read_bytes()
        if wrapped:
            with zipfile.ZipFile(io.BytesIO(got)) as archive:
                got = archive.read("1_1.tif")
        assert got == server.served.read_member("train/1_1.tif")

    def test_short_listing_lacks_the_last_files(self, server: RehearsalServer, home: Path) -> None:
        server.faults.add("short-listing", missing=2)
        shown = run_client(server, home, "files", SLUG, "--format", "json", "--page-size", "200")
        names = [row["name"] for row in json.loads(shown.out)]
        assert names == [member.name for member in server.served.members[:-2]]


class TestBrokenDownloadsThroughTheClient:
    def test_client_goes_on_after_a_cut(self, server: RehearsalServer, home: Path) -> None:
        server.faults.add("cut", times=1, after=1_500_000)
        done = run_client(server, home, "download", SLUG, "-p", "got")
        assert done.code == 0, done.err
        assert "Resuming from 1048576 bytes" in done.out
        transfers = [
            (record.status, record.span, record.faults) for record in server.log if record.call == "archive"
        ]
        assert transfers == [(200, "", ["cut"]), (206, "bytes=1048576-", [])]
        assert (home / "got" / f"{SLUG}.zip").read_bytes() == server.served.archive.read_bytes()

    def test_killed_client_resumes(self, server: RehearsalServer, home: Path) -> None:
        kill_in_the_middle(server, home)
        done = run_client(server, home, "download", SLUG, "-p", "got")
        assert done.code == 0, done.err
        assert [record.span for record in server.log if record.call == "archive"][-1] == "bytes=2097152-"
        assert (home / "got" / f"{SLUG}.zip").read_bytes() == server.served.archive.read_bytes()

    def test_link_that_expires_before_a_resume_spoils_the_file(
        self, server: RehearsalServer, home: Path
    ) -> None:
        """What 2.2.4 then leaves is no archive, and 2.2.5 fetches again: either way only the bytes tell."""
        kill_in_the_middle(server, home)
        server.faults.add("expired-link", resume=True)
        done = run_client(server, home, "download", SLUG, "-p", "got")
        assert 403 in statuses(server, "archive")
        whole = (home / "got" / f"{SLUG}.zip").read_bytes() == server.served.archive.read_bytes()
        assert whole == (done.code == 0)

    def test_expired_link(self, server: RehearsalServer, home: Path) -> None:
        server.faults.add("expired-link")
        done = run_client(server, home, "download", SLUG, "-p", "got")
        assert (done.code, statuses(server, "archive")) == (1, [403])
        assert "403" in done.err

    def test_corrupt_archive_has_its_full_size(self, server: RehearsalServer, home: Path) -> None:
        server.faults.add("corrupt")
        done = run_client(server, home, "download", SLUG, "-p", "got")
        got, sent = home / "got" / f"{SLUG}.zip", server.served.archive
        assert done.code == 0  # the client looks at the size alone
        assert got.stat().st_size == sent.stat().st_size
        with zipfile.ZipFile(got) as archive:
            assert archive.testzip() is not None
        same = np.fromfile(got, np.uint8) == np.fromfile(sent, np.uint8)
        assert np.count_nonzero(~same) == 64


def kill_in_the_middle(server: RehearsalServer, home: Path) -> None:
    """A client is killed once it has two of its 1 MiB pieces on disk."""
    server.faults.add("stall", call="archive", after=2 * MIB + 300_000)
    with started_client(server, home, "download", SLUG, "-p", "got") as process:
        wait_for_bytes(home / "got" / f"{SLUG}.zip", 2 * MIB)
        process.kill()


class TestRefusalsThroughTheClient:
    def test_rules_not_accepted(self, server: RehearsalServer, home: Path) -> None:
        server.faults.add("rules")
        down = run_client(server, home, "download", SLUG)
        up = run_client(server, home, "submit", SLUG, "-f", csv_in(home), "-m", "x")
        for done in (down, up):
            assert done.code == 1
            assert "accept the rules" in done.err
        assert server.submissions == []

    def test_unauthorized(self, server: RehearsalServer, home: Path) -> None:
        server.faults.add("unauthorized")
        done = run_client(server, home, "files", SLUG)
        assert (done.code, statuses(server, "ListDataFiles")) == (1, [401])

    def test_wrong_token_is_refused_and_never_logged(self, server: RehearsalServer, home: Path) -> None:
        done = run_client(server, home, "files", SLUG, KAGGLE_API_TOKEN="stolen-token")
        assert done.code == 1
        assert rpc(server, "ListDataFiles", {"competitionName": SLUG}, token="stolen-token")[0] == 401
        for secret in ("stolen-token", server.token, "Signature"):
            assert secret not in repr(server.log)

    def test_unknown_competition(self, server: RehearsalServer, home: Path) -> None:
        done = run_client(server, home, "files", "ultrasound-nerves")
        assert (done.code, statuses(server, "ListDataFiles")) == (1, [404])
        server.faults.add("unknown-competition")
        done = run_client(server, home, "download", SLUG)
        assert (done.code, statuses(server, "DownloadDataFiles")) == (1, [404])
        assert SLUG in done.err

    def test_unknown_call_is_a_loud_501(self, server: RehearsalServer, home: Path) -> None:
        done = run_client(server, home, "list")
        assert done.code == 1
        assert "ListCompetitions" in done.err
        assert [record.path for record in server.log if record.status == 501] == [
            "/api/v1/competitions.CompetitionApiService/ListCompetitions"
        ]

    def test_rate_limit_on_the_token_check(self, server: RehearsalServer, home: Path) -> None:
        server.faults.add("status", times=None, call="IntrospectToken", status=429)
        done = run_client(server, home, "files", SLUG)
        assert done.code == 1
        assert set(statuses(server, "IntrospectToken")) == {429}


def csv_in(home: Path, masks: dict[int, str] = MASKS) -> str:
    home.mkdir(exist_ok=True)
    return str(write_submission(home / "submission.csv", masks))


class TestSubmissionsThroughTheClient:
    def test_scores_come_after_a_while_and_outlive_the_server(
        self, served: ServedCompetition, tmp_path: Path
    ) -> None:
        """Frame 5, private, gets half of its rectangle: Dice 2*0.5/(0.5+1) = 2/3, so private is (7+2/3)/8."""
        home = tmp_path / "home"
        masks = {**MASKS, 5: rectangle(100, 200, 60, 25)}
        assert 5 not in PUBLIC_IMGS
        with RehearsalServer(served, tmp_path / "state", pending_polls=1) as server:
            done = run_client(server, home, "submit", SLUG, "-f", csv_in(home, masks), "-m", "half of 5")
            assert done.code == 0, done.err
            assert "Successfully submitted" in done.out
            assert "99 submissions remaining today" in done.out
            (row,) = listed(server, home)
            assert (row["status"], row["publicScore"], row["privateScore"]) == (
                "SubmissionStatus.PENDING",
                "",
                "",
            )
            (row,) = listed(server, home)
        assert (row["status"], row["publicScore"], row["privateScore"]) == (
            "SubmissionStatus.COMPLETE",
            "1.00000",
            "0.95833",
        )
        assert (row["fileName"], row["description"]) == ("submission.csv", "half of 5")
        with RehearsalServer(served, tmp_path / "state") as restarted:
            assert listed(restarted, home) == [row]
            board = run_client(restarted, home, "leaderboard", SLUG, "-s", "--format", "json")
            assert json.loads(board.out)[0]["score"] == "1.00000"
            run_client(restarted, home, "leaderboard", SLUG, "-d", "-p", "board")
            with zipfile.ZipFile(home / "board" / f"{SLUG}.zip") as board_zip:
                assert b"1.00000" in board_zip.read(board_zip.namelist()[0])

    @pytest.mark.parametrize(
        ("text", "told"),
        [("img,pixels\n1,5 0\n", "line 2: "), ("", "empty")],
        ids=["bad-run", "empty"],
    )
    def test_invalid_file_ends_in_error(
        self, server: RehearsalServer, home: Path, text: str, told: str
    ) -> None:
        home.mkdir()
        (home / "bad.csv").write_text(text)
        done = run_client(server, home, "submit", SLUG, "-f", "bad.csv", "-m", "bad")
        assert done.code == 0, done.err  # the client looks at nothing
        rpc(server, "ListSubmissions", {"competitionName": SLUG})
        (shown,) = rpc(server, "ListSubmissions", {"competitionName": SLUG})[1]["submissions"]
        assert (shown["status"], shown["publicScore"]) == ("ERROR", "")
        assert shown["errorDescription"] == server.submissions[0].error
        assert len(shown["errorDescription"]) > 10
        assert told in shown["errorDescription"]

    def test_daily_limit(self, served: ServedCompetition, tmp_path: Path) -> None:
        home = tmp_path / "home"
        with RehearsalServer(served, tmp_path / "state", daily_limit=1) as server:
            words = ("submit", SLUG, "-f", csv_in(home), "-m", "x")
            assert "0 submissions remaining today" in run_client(server, home, *words).out
            refused = run_client(server, home, *words)
            assert (refused.code, statuses(server, "CreateSubmission")) == (1, [200, 400])
            assert "submissions of today" in refused.err
            assert len(server.submissions) == 1

    def test_upload_fails_whatever_the_exit_code_says(self, server: RehearsalServer, home: Path) -> None:
        server.faults.add("upload-fails")
        done = run_client(server, home, "submit", SLUG, "-f", csv_in(home), "-m", "x")
        assert "Could not submit" in done.out + done.err
        assert (statuses(server, "upload"), statuses(server, "CreateSubmission")) == ([500], [])
        assert server.submissions == []

    def test_uncertain_upload_is_there_though_the_client_failed(
        self, server: RehearsalServer, home: Path
    ) -> None:
        server.faults.add("upload-uncertain")
        server.faults.add("late-listing", times=1)
        done = run_client(server, home, "submit", SLUG, "-f", csv_in(home), "-m", "lost answer")
        assert done.code == 1
        assert listed_names(server, home) == []
        assert listed_names(server, home) == ["lost answer"]

    def test_pending_for_ever_and_scoring_that_fails(self, server: RehearsalServer, home: Path) -> None:
        pending = server.faults.add("pending-forever")
        server.faults.add("scoring-fails")
        run_client(server, home, "submit", SLUG, "-f", csv_in(home), "-m", "x")
        ref = server.submissions[0].ref
        for _ in range(3):
            assert rpc(server, "GetSubmission", {"ref": ref})[1].get("status", "PENDING") == "PENDING"
        server.faults.clear()
        assert pending.left is None
        assert rpc(server, "GetSubmission", {"ref": ref})[1]["status"] == "ERROR"


def listed_names(server: RehearsalServer, home: Path) -> list[str]:
    shown = run_client(server, home, "submissions", SLUG, "--format", "json")
    return (
        [] if "No submissions found" in shown.out else [row["description"] for row in json.loads(shown.out)]
    )


class TestNobodyElseIsContacted:
    def test_the_whole_round_reaches_loopback_only(self, server: RehearsalServer, home: Path) -> None:
        rounds = (
            ("download", SLUG, "-p", "got"),
            ("submit", SLUG, "-f", csv_in(home), "-m", "x"),
            ("submissions", SLUG),
        )
        for words in rounds:
            done = run_client(server, home, *words)
            assert done.code == 0, done.err
            assert done.hosts == ("127.0.0.1",)

    def test_the_guard_notices_a_client_that_goes_outside(self, server: RehearsalServer, home: Path) -> None:
        """Without redirection and proxy the client heads for Kaggle; the guard stops it at the look-up."""
        names = ("KAGGLE_API_ENVIRONMENT", *PROXIES)
        done = run_client(server, home, "files", SLUG, **dict.fromkeys(names, ""))
        assert done.code == 1
        assert done.hosts == ("api.kaggle.com",)
        assert server.log == []

    def test_a_client_that_was_not_redirected_is_stopped_by_the_proxy(
        self, server: RehearsalServer, home: Path
    ) -> None:
        done = run_client(server, home, "files", SLUG, KAGGLE_API_ENVIRONMENT="")
        assert done.code == 1
        assert done.hosts == ("127.0.0.1",)
        assert {(record.method, record.host, record.status) for record in server.log} == {
            ("CONNECT", "api.kaggle.com", 403)
        }

    def test_it_forwards_no_plain_http_either(self, server: RehearsalServer) -> None:
        answer = raw(server, b"GET http://www.kaggle.com/ HTTP/1.1\r\nHost: www.kaggle.com\r\n\r\n")
        assert b" 403 " in answer.splitlines()[0]

    def test_exports_hide_the_real_account(self, server: RehearsalServer, tmp_path: Path) -> None:
        text = server.exports(tmp_path / "a home")
        assert f"export http_proxy={server.url}\n" in text
        assert f"export HOME='{tmp_path / 'a home'}'\n" in text
        assert "export no_proxy=''\n" in text
        assert "unset KAGGLE_USERNAME KAGGLE_KEY" in text


class TestHttp:
    def test_ranges_and_validators(self, server: RehearsalServer) -> None:
        link, data = archive_link(server), server.served.archive.read_bytes()
        status, headers, body = get(server, link)
        assert (status, body == data, headers["Accept-Ranges"]) == (200, True, "bytes")
        assert headers["Content-Length"] == str(len(data))
        tag = headers["ETag"]
        status, headers, body = get(server, link, Range="bytes=100-199", If_Range=tag)
        assert (status, body) == (206, data[100:200])
        assert headers["Content-Range"] == f"bytes 100-199/{len(data)}"
        assert get(server, link, Range="bytes=-7", If_Range=headers["Last-Modified"])[2] == data[-7:]
        assert get(server, link, Range="bytes=100-199", If_Range='"other"')[0] == 200
        status, headers, _ = get(server, link, Range=f"bytes={len(data)}-")
        assert (status, headers["Content-Range"]) == (416, f"bytes */{len(data)}")

    def test_links_are_signed(self, server: RehearsalServer) -> None:
        link = archive_link(server)
        assert get(server, link)[0] == 200
        assert get(server, link.replace("Expires=", "Expires=9"))[0] == 403
        assert get(server, link.partition("?")[0])[0] == 403
        assert get(server, link.replace("/archive/", "/else/"))[0] == 404

    def test_older_credentials_work(self, server: RehearsalServer) -> None:
        pair = base64.b64encode(f"anyone:{server.token}".encode()).decode()
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=10)
        path = "/api/v1/competitions.CompetitionApiService/ListDataFiles"
        connection.request(
            "POST", path, json.dumps({"competitionName": SLUG}), {"Authorization": f"Basic {pair}"}
        )
        assert connection.getresponse().status == 200
        connection.close()

    @pytest.mark.parametrize(
        ("head", "status"),
        [
            (f"POST /api/v1/x HTTP/1.1\r\nContent-Length: {wire.JSON_LIMIT + 1}", 413),
            (f"PUT /uploads/x HTTP/1.1\r\nContent-Length: {wire.UPLOAD_LIMIT + 1}", 413),
            ("POST /api/v1/x HTTP/1.1\r\nContent-Length: -1", 400),
            ("PUT /uploads/x HTTP/1.1\r\nTransfer-Encoding: chunked", 400),
            ("PUT /uploads/x HTTP/1.1\r\nContent-Length: 0", 404),
            ("DELETE /uploads/x HTTP/1.1", 501),
            ("GET / HTTP/1.1", 501),
            ("NONSENSE", 400),
        ],
    )
    def test_bad_requests(self, server: RehearsalServer, head: str, status: int) -> None:
        host = "" if head == "NONSENSE" else "\r\nHost: 127.0.0.1"
        answer = raw(server, f"{head}{host}\r\n\r\n".encode())
        # What is not HTTP at all gets an answer in HTTP/0.9: a page without a status line.
        told = f"Error code: {status}" if head == "NONSENSE" else f"HTTP/1.1 {status} "
        assert told.encode() in answer
        assert server.log[-1].status == status

    def test_bad_calls(self, server: RehearsalServer) -> None:
        assert rpc(server, "ListDataFiles", {"competitionName": SLUG, "pageToken": "?"})[0] == 400
        assert rpc(server, "ListDataFiles", {"competitionName": SLUG, "pageSize": -1})[0] == 400
        assert rpc(server, "ListSubmissions", {"competitionName": SLUG, "group": "NO_SUCH"})[0] == 400
        assert (
            rpc(server, "ListSubmissions", {"competitionName": SLUG, "group": "SUBMISSION_GROUP_SELECTED"})[0]
            == 501
        )
        assert rpc(server, "CreateSubmission", {"competitionName": SLUG, "blobFileTokens": "none"})[0] == 400
        assert rpc(server, "GetSubmission", {"ref": 5})[0] == 404
        outside = {"competitionName": SLUG, "fileName": "../solution.csv"}
        assert rpc(server, "DownloadDataFile", outside)[0] == 404
        assert rpc(server, "ListDataFiles", [1])[0] == 400  # type: ignore[arg-type]

    def test_status_and_slow_strike_where_they_are_told(self, server: RehearsalServer) -> None:
        server.faults.add("status", call="archive", status=502, json=False)
        server.faults.add("slow", call="archive", seconds=0.3)
        link, began = archive_link(server), time.monotonic()
        assert get(server, link)[0] == 502
        assert time.monotonic() - began > 0.3
        assert server.log[-1].faults == ["status", "slow"]
        assert get(server, link)[0] == 200

    def test_client_that_leaves_makes_no_noise(
        self, server: RehearsalServer, capfd: pytest.CaptureFixture[str]
    ) -> None:
        server.faults.add("stall", call="archive", after=1000)
        link = archive_link(server)
        for _ in range(2):  # once in the stall, once in the midst of a full transfer
            with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as connection:
                connection.sendall(f"GET {link} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                connection.recv(100)
        server.close()
        assert server.errors == []
        assert capfd.readouterr() == ("", "")

    def test_a_stall_ends_with_the_server(self, served: ServedCompetition, tmp_path: Path) -> None:
        server = RehearsalServer(served, tmp_path).start()
        server.faults.add("stall", call="ListDataFiles")
        with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2]))) as connection:
            body = json.dumps({"competitionName": SLUG})
            path = "/api/v1/competitions.CompetitionApiService/ListDataFiles"
            connection.sendall(
                f"POST {path} HTTP/1.1\r\nHost: localhost\r\n"
                f"Authorization: Bearer {server.token}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
            )
            connection.settimeout(0.4)
            with pytest.raises(TimeoutError):
                connection.recv(1)
            began = time.monotonic()
            server.close()
            assert time.monotonic() - began < 20

    def test_a_defect_reaches_whoever_closes(
        self, served: ServedCompetition, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(calls, "paginate", lambda *_: 1 // 0)
        server = RehearsalServer(served, tmp_path).start()
        status, answer = rpc(server, "ListDataFiles", {"competitionName": SLUG})
        assert (status, "ZeroDivisionError" in answer["message"]) == (500, True)
        with pytest.raises(ZeroDivisionError):
            server.close()
        server.close()

    def test_taken_port_is_said(
        self, server: RehearsalServer, served: ServedCompetition, tmp_path: Path
    ) -> None:
        port = int(server.url.rpartition(":")[2])
        with pytest.raises(NerveError, match=f"Port {port}"):
            RehearsalServer(served, tmp_path / "other", port=port).start()


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, None),
        ("bytes=0-", (0, 10)),
        ("bytes=3-5", (3, 6)),
        ("bytes=3-99", (3, 10)),
        ("bytes=-4", (6, 10)),
        ("bytes=-40", (0, 10)),
        ("bytes=5-3", None),
        ("bytes=-", None),
        ("bytes=0-1,3-4", None),
        ("lines=1-2", None),
        ("bytes=x-2", None),
    ],
)
def test_read_range_of_ten_bytes(header: str | None, expected: tuple[int, int] | None) -> None:
    assert wire.read_range(header, 10) == expected


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=10-12"])
def test_range_past_the_end(header: str) -> None:
    with pytest.raises(wire.RefusedError) as refusal:
        wire.read_range(header, 10)
    assert refusal.value.status == 416


class TestFaults:
    def test_parse(self) -> None:
        cut = faults.parse("cut:times=2,after=1000")
        assert (cut.name, cut.left, cut["after"], cut.calls) == (
            "cut",
            2,
            1000,
            ("archive", "file", "output"),
        )
        assert faults.parse("rules").left is None
        assert faults.parse("status:times=always,call=ListSubmissions,json=0,status=429").options == {
            "status": 429,
            "json": False,
            "message": "The rehearsal was told to answer so.",
        }

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("cutt", "did you mean 'cut'"),
            ("cut:after", "option=value"),
            ("cut:after=many", "is not a int"),
            ("cut:at=5", "no option 'at'"),
            ("cut:name=x", "no option 'name'"),
            ("cut:times=0", "from 1 on"),
            ("cut:call=upload", "cannot strike 'upload'"),
        ],
    )
    def test_parse_says_what_is_wrong(self, text: str, said: str) -> None:
        with pytest.raises(NerveError, match=said):
            faults.parse(text)

    def test_each_has_one_line(self) -> None:
        assert all(meaning and "\n" not in meaning for meaning in faults.FAULTS.values())

    def test_struck_faults_are_used_up(self) -> None:
        held = faults.Faults()
        held.put(faults.parse("cut:times=2,after=10"))
        assert held.trigger("cut", "upload") is None
        assert held.trigger("cut", "archive", lambda fault: fault["after"] < 5) is None
        assert [held.trigger("cut", "archive") is None for _ in range(3)] == [False, False, True]
        assert held.pending == []


class TestPack:
    def test_members_are_kaggles_layout(self, served: ServedCompetition) -> None:
        with zipfile.ZipFile(served.archive) as archive:
            assert archive.testzip() is None
            assert [(info.filename, info.file_size) for info in archive.infolist()] == [
                (member.name, member.size) for member in served.members
            ]
        names = [member.name for member in served.members]
        assert names[:3] == ["test/1.tif", "test/2.tif", "test/3.tif"]
        assert names[10:12] == ["train/1_1.tif", "train/1_1_mask.tif"]
        assert names[-2:] == ["sample_submission.csv", "train_masks.csv"]
        assert served.archive.stat().st_size > 2.5 * MIB

    def test_same_bytes_each_time_and_used_again(
        self, source: tuple[Path, pd.DataFrame], served: ServedCompetition, tmp_path: Path
    ) -> None:
        (source[0] / ".DS_Store").write_text("not the competition's")
        other = pack(*source, tmp_path)
        assert other.digest == served.digest
        made = other.archive.stat().st_mtime_ns
        assert pack(*source, tmp_path) == other
        assert other.archive.stat().st_mtime_ns == made
        (tmp_path / "complete.json").unlink()
        with pytest.raises(NerveError, match="no complete"):
            open_packed(tmp_path)
        pack(*source, tmp_path)
        assert other.archive.stat().st_mtime_ns > made

    def test_solution_survives(self, source: tuple[Path, pd.DataFrame], served: ServedCompetition) -> None:
        pd.testing.assert_frame_equal(served.read_solution(), source[1], check_dtype=False)

    def test_what_is_missing_is_named(self, source: tuple[Path, pd.DataFrame], tmp_path: Path) -> None:
        with pytest.raises(NerveError, match="holds no frames"):
            pack(tmp_path, source[1], tmp_path / "out")
        with pytest.raises(NerveError, match="are not those of"):
            pack(source[0], source[1].iloc[1:], tmp_path / "out")
        with pytest.raises(NerveError, match="none as Private"):
            pack(source[0], source[1].assign(Usage="Public"), tmp_path / "out")
        with pytest.raises(NerveError, match="frame 1 of the solution"):
            pack(source[0], source[1].assign(pixels="0 5"), tmp_path / "out")

    def test_usage_is_split_where_the_solution_has_none(
        self, source: tuple[Path, pd.DataFrame], tmp_path: Path
    ) -> None:
        made = pack(source[0], source[1][["img", "pixels"]], tmp_path).read_solution()
        assert list(made["Usage"]) == list(split_usage(TEST_IMGS))


def test_split_usage() -> None:
    usage = split_usage(TEST_IMGS, seed=3)
    assert list(usage).count("Public") == 2
    backwards = split_usage(TEST_IMGS[::-1], seed=3)
    assert list(backwards[::-1]) == list(usage)
    assert any(list(split_usage(TEST_IMGS, seed=seed)) != list(usage) for seed in range(5))
    assert sorted(split_usage([5, 6])) == ["Private", "Public"]
    with pytest.raises(NerveError):
        split_usage([5, 5])
