"""Sending a submission exactly once, whatever the client says and whenever it is killed."""

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from kaggle_support import (
    Notes,
    assert_only_loopback,
    calls,
    client_of,
    everything_under,
    guarded,
    kill,
    start_python,
)
from processes import wait_until
from rehearsal_support import MASKS, make_competition, rectangle, write_submission

from kaggle_nerve import storage
from kaggle_nerve.competition import facts
from kaggle_nerve.errors import NerveError
from kaggle_nerve.kaggle_api.client import Client
from kaggle_nerve.rehearsal.competitions.served import ServedCompetition, pack
from kaggle_nerve.rehearsal.server import RehearsalServer
from kaggle_nerve.submissions import upload as submit
from kaggle_nerve.submissions.ledger import Ledger, Origin, refresh
from kaggle_nerve.submissions.upload import SubmissionError, upload

PLANTED = "KGAT_planted0123456789abcdef"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("source")


@pytest.fixture(scope="module")
def served(source: Path, tmp_path_factory: pytest.TempPathFactory) -> ServedCompetition:
    return pack(*make_competition(source), tmp_path_factory.mktemp("packed"))


@pytest.fixture
def server(served: ServedCompetition, tmp_path: Path) -> Iterator[RehearsalServer]:
    with RehearsalServer(served, tmp_path / "state", token=PLANTED, pending_polls=0) as running:
        yield running


@pytest.fixture
def client(server: RehearsalServer, tmp_path: Path) -> Client:
    return client_of(server, tmp_path / "home")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "submissions" / "ledger.csv")


@pytest.fixture
def file(ledger: Ledger) -> Path:
    """A valid submission; its private score is (7 + 2/3) / 8: frame 5 has half of its rectangle."""
    ledger.path.parent.mkdir()
    return write_submission(ledger.path.parent / "one.csv", {**MASKS, 5: rectangle(100, 200, 60, 25)})


@pytest.fixture(autouse=True)
def haste(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loopback server needs no patience."""
    monkeypatch.setattr(submit, "POLLS", (0.1,))
    monkeypatch.setattr(submit, "LOOKS", (0, 0.1, 0.1))


def send(file: Path, client: Client, ledger: Ledger, source: Path, **options) -> submit.Upload:
    return upload(file, "hello", client, sample=source / facts.SAMPLE_CSV, ledger=ledger, **options)


class TestAccepted:
    def test_score_and_ledger(
        self,
        server: RehearsalServer,
        served: ServedCompetition,
        file: Path,
        client: Client,
        ledger: Ledger,
        source: Path,
        tmp_path: Path,
    ) -> None:
        notes, origin = Notes(), Origin("small", "5e77", 0.71, 0.69, 0.73)
        made = send(file, client, ledger, source, origin=origin, reporter=notes)
        assert (made.sent, made.public, made.private) == (True, 1.0, 0.95833)
        assert made.sentence == "one.csv is submission 1000001, public score 1.00000, private 0.95833."
        (row,) = ledger.rows()
        assert (row.ref, row.status, row.public, row.private) == ("1000001", "complete", 1.0, 0.95833)
        assert (row.file, row.sha256, row.where) == ("one.csv", storage.digest_file(file), "rehearsal")
        assert (row.run, row.settings_hash, row.oof, row.oof_low, row.oof_high) == tuple(
            vars(origin).values()
        )
        assert server.submissions[0].description == f"hello [{row.tag}]"
        assert row.age < 60
        assert_only_loopback(tmp_path / "home")
        assert PLANTED not in notes.text
        assert PLANTED.encode() not in everything_under(ledger.path.parent)

    def test_the_same_file_is_not_sent_twice_unless_told(
        self, server: RehearsalServer, file: Path, client: Client, ledger: Ledger, source: Path
    ) -> None:
        first = send(file, client, ledger, source)
        copy = file.with_name("copy.csv")
        copy.write_bytes(file.read_bytes())
        second = send(copy, client, ledger, source)
        assert (second.sent, second.entry) == (False, first.entry)
        assert "was sent on" in second.sentence
        assert "--again" in second.sentence
        # Nor with another ledger: the tag in Kaggle's list begins with the file's digest.
        elsewhere = Ledger(ledger.path.with_name("other.csv"))
        third = send(copy, client, elsewhere, source)
        assert (third.sent, third.entry.ref, third.private) == (False, first.entry.ref, 0.95833)
        assert calls(server, "CreateSubmission") == [200]
        assert send(copy, client, ledger, source, again=True).sent
        assert calls(server, "CreateSubmission") == [200, 200]
        assert [row.ref for row in ledger.rows()] == ["1000001", "1000002"]

    def test_waits_while_pending_and_not_for_ever(
        self, served: ServedCompetition, file: Path, ledger: Ledger, source: Path, tmp_path: Path
    ) -> None:
        with RehearsalServer(served, tmp_path / "state", pending_polls=2) as server:
            client, notes = client_of(server, tmp_path / "home"), Notes()
            made = send(file, client, ledger, source, reporter=notes)
            assert (made.entry.status, made.private) == ("complete", 0.95833)
            assert notes.bars[-1][2].notes == ["pending", "complete"]
            server.faults.add("pending-forever")
            late = send(file, client, ledger, source, again=True, timeout=1)
            assert late.entry.status == ledger.rows()[-1].status == "pending"
            assert "`kaggle-nerve submissions refresh` gets the score later" in late.sentence
            server.faults.clear()
            assert refresh(client, ledger) == 1
            assert (ledger.rows()[-1].status, ledger.rows()[-1].private) == ("complete", 0.95833)
            assert refresh(client, ledger) == 0

    def test_the_answer_is_lost_on_the_way(
        self, server: RehearsalServer, file: Path, client: Client, ledger: Ledger, source: Path
    ) -> None:
        """And the list lags behind."""
        server.faults.add("upload-uncertain")
        server.faults.add("late-listing", times=1)
        made = send(file, client, ledger, source)
        assert (made.sent, made.private) == (True, 0.95833)
        assert len(calls(server, "CreateSubmission")) == len(server.submissions) == 1


class TestNotAccepted:
    @pytest.mark.parametrize("text", ["", "img,pixels\n1,5 0\n", "img,pixels\n1,\n"])
    def test_a_faulty_file_is_not_even_announced(
        self, server: RehearsalServer, file: Path, client: Client, ledger: Ledger, source: Path, text: str
    ) -> None:
        file.write_text(text)
        with pytest.raises(NerveError, match=r"one\.csv is not a valid submission"):
            send(file, client, ledger, source)
        assert server.log == []
        assert not ledger.path.exists()

    @pytest.mark.parametrize(
        ("fault", "told", "created"),
        [
            ("daily-limit", r"no more submissions from this account today .* after midnight UTC", [400]),
            ("rules", r"not accepted the competition's rules: open https://\S+/rules", []),
        ],
    )
    def test_refused(
        self,
        server: RehearsalServer,
        file: Path,
        client: Client,
        ledger: Ledger,
        source: Path,
        fault: str,
        told: str,
        created: list[int],
    ) -> None:
        server.faults.add(fault)
        with pytest.raises(SubmissionError, match=told) as seen:
            send(file, client, ledger, source)
        assert seen.value.entry.status == ledger.rows()[0].status == "refused"
        assert (calls(server, "CreateSubmission"), server.submissions) == (created, [])
        assert PLANTED not in str(seen.value)

    def test_a_refused_file_can_be_sent_later(
        self, server: RehearsalServer, file: Path, client: Client, ledger: Ledger, source: Path
    ) -> None:
        """The client itself ends with 0 here, in version 2.2.4."""
        server.faults.add("upload-fails")
        with pytest.raises(SubmissionError, match="storage did not take the file, so nothing was submitted"):
            send(file, client, ledger, source)
        assert send(file, client, ledger, source).sent
        assert [row.status for row in ledger.rows()] == ["refused", "complete"]
        assert len(server.submissions) == 1

    def test_no_login_no_upload(
        self, server: RehearsalServer, file: Path, client: Client, ledger: Ledger, source: Path
    ) -> None:
        server.faults.add("unauthorized")
        with pytest.raises(NerveError, match=r"does not accept the access token from KAGGLE_API_TOKEN"):
            send(file, client, ledger, source)
        assert calls(server, "StartSubmissionUpload") == []
        assert ledger.rows() == []

    def test_kaggle_cannot_score_it(
        self, server: RehearsalServer, file: Path, client: Client, ledger: Ledger, source: Path
    ) -> None:
        server.faults.add("scoring-fails")
        with pytest.raises(
            SubmissionError, match=r"could not score: the reason stands on https://\S+/submissions"
        ):
            send(file, client, ledger, source)
        assert ledger.rows()[0].status == "error"


class TestUnknown:
    def test_told_so_and_settled_by_refresh_or_by_the_next_submit(
        self, server: RehearsalServer, file: Path, client: Client, ledger: Ledger, source: Path
    ) -> None:
        """The connection drops after the submission is made, and the list does not show it for long."""
        server.faults.add("upload-uncertain")
        server.faults.add("late-listing", times=4)
        told = r"Nobody knows yet .* run `kaggle-nerve submissions refresh`"
        with pytest.raises(SubmissionError, match=told) as seen:
            send(file, client, ledger, source)
        assert seen.value.entry.status == ledger.rows()[0].status == "unknown"
        other = Ledger(ledger.path.with_name("other.csv"))
        other.path.write_bytes(ledger.path.read_bytes())
        notes = Notes()
        made = send(file, client, ledger, source, reporter=notes)
        assert (made.sent, made.entry.ref) == (False, "1000001")
        assert "An earlier upload of this file broke off" in notes.text
        assert len(calls(server, "CreateSubmission")) == 1
        assert refresh(client, other) == 1
        assert other.rows() == ledger.rows()

    def test_what_was_never_there_is_sent(
        self,
        server: RehearsalServer,
        file: Path,
        client: Client,
        ledger: Ledger,
        source: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(submit, "SETTLING", 1)
        server.faults.add("status", call="CreateSubmission", status=503, json=False)
        with pytest.raises(SubmissionError, match=r"Nobody knows yet .*503 Server Error"):
            send(file, client, ledger, source)
        assert send(file, client, ledger, source).sent
        assert [row.status for row in ledger.rows()] == ["lost", "complete"]
        assert len(server.submissions) == 1


SEND = """
from pathlib import Path
from kaggle_nerve.kaggle_api.client import Client
from kaggle_nerve.submissions.ledger import Ledger
from kaggle_nerve.submissions.upload import upload
upload(Path(args[0]), "hello", Client(args[1]), sample=Path(args[2]), ledger=Ledger(Path(args[3])))
"""


class TestKilled:
    def start(self, server: RehearsalServer, file: Path, ledger: Ledger, source: Path, home: Path):
        sample = source / facts.SAMPLE_CSV
        return start_python(SEND, file, guarded(server, home), sample, ledger.path)

    def test_between_submission_and_answer(
        self,
        server: RehearsalServer,
        file: Path,
        client: Client,
        ledger: Ledger,
        source: Path,
        tmp_path: Path,
    ) -> None:
        server.faults.add("stall", call="CreateSubmission")
        process = self.start(server, file, ledger, source, tmp_path / "home")
        wait_until(lambda: len(server.submissions) == 1, "nothing was submitted")
        with pytest.raises(NerveError, match="Another upload"):
            send(file, client, ledger, source)
        kill(process)
        assert [row.status for row in ledger.rows()] == ["sending"]
        made = send(file, client, ledger, source)
        assert (made.sent, made.entry.ref, made.private) == (False, "1000001", 0.95833)
        assert len(calls(server, "CreateSubmission")) == 1

    def test_before_the_submission(
        self,
        server: RehearsalServer,
        file: Path,
        client: Client,
        ledger: Ledger,
        source: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(submit, "SETTLING", 1)
        server.faults.add("stall", call="upload")
        process = self.start(server, file, ledger, source, tmp_path / "home")
        wait_until(lambda: len(calls(server, "upload")) == 1, "nothing was uploaded")
        kill(process)
        assert send(file, client, ledger, source).sent
        assert [row.status for row in ledger.rows()] == ["lost", "complete"]
        assert len(server.submissions) == 1


def test_message_is_one_line_and_holds_no_credential(
    server: RehearsalServer, file: Path, client: Client, ledger: Ledger, source: Path
) -> None:
    message = f"-m  first\ntry, with {PLANTED} " + "x" * 900
    upload(file, message, client, sample=source / facts.SAMPLE_CSV, ledger=ledger, wait=False)
    (row,) = ledger.rows()
    assert row.message.startswith("-m first try, with *** xxx")
    assert len(row.message) == submit.MESSAGE
    assert server.submissions[0].description == f"{row.message} [{row.tag}]"
    with ledger.path.open() as lines:
        assert len(list(csv.reader(lines))) == 2
    assert replace(row, status="x") != row
