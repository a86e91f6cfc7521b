"""The ledger: whole or absent, open to people, and never overwritten where it cannot be read."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from filelock import FileLock

from kaggle_nerve.cli import cli
from kaggle_nerve.errors import NerveError
from kaggle_nerve.kaggle_api.records import RemoteSubmission
from kaggle_nerve.submissions import ledger as ledgers
from kaggle_nerve.submissions import upload as submitting
from kaggle_nerve.submissions.ledger import COLUMNS, Entry, Ledger, find, settle
from kaggle_nerve.submissions.origin import record_origin

LONG_AGO = "2020-01-01T00:00:00+00:00"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger(tmp_path / "submissions" / "ledger.csv")


def entry(tag: str, **changes) -> Entry:
    return replace(Entry(timestamp=LONG_AGO, file="a.csv", sha256="ab", tag=tag, status="sending"), **changes)


def remote(tag: str, **changes) -> RemoteSubmission:
    shown = RemoteSubmission("7", "a.csv", "", f"hello [{tag}]", "complete", "0.5", "0.25")
    return replace(shown, **changes)


def test_columns_are_the_agreed_ones() -> None:
    assert ",".join(COLUMNS) == (
        "timestamp,file,sha256,run,settings_hash,oof,oof_low,oof_high,ref,status,public,private,message,tag,where"
    )


def test_rows_come_back(ledger: Ledger) -> None:
    assert ledger.rows() == []
    rows = [
        entry("t1", oof=0.71234, public=0.1, message='say "ü", twice\nor more', where="kaggle"),
        entry("t2", private=0.0, ref="8"),
    ]
    for row in rows:
        ledger.add(row)
    assert ledger.rows() == rows
    assert ledger.rows()[0].as_dict()["oof"] == 0.71234
    ledger.put(replace(rows[0], status="complete"), entry("t3"))
    assert [row.status for row in ledger.rows()] == ["complete", "sending"]


def test_rows_without_tag_are_told_apart(ledger: Ledger) -> None:
    ledger.add(entry("", ref="7"))
    ledger.add(entry("", ref="8"))
    ledger.put(entry("", ref="8", status="complete"))
    assert [row.status for row in ledger.rows()] == ["sending", "complete"]


def test_columns_of_others_and_older_ledgers_are_kept(ledger: Ledger) -> None:
    ledger.path.parent.mkdir()
    ledger.path.write_bytes("\ufeffsha256,my note,status,tag\r\nab,keep me,pending,t1\r\n".encode())
    ledger.put(replace(ledger.rows()[0], status="complete"))
    (row,) = ledger.rows()
    assert (row.status, row.extra, row.public) == ("complete", {"my note": "keep me"}, None)
    assert ledger.path.read_text().splitlines()[0] == ",".join([*COLUMNS, "my note"])


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"a,b\n1,2\n", "does not begin with the columns timestamp,"),
        (b"sha256,status,tag\nab,pending\n", r"line 2, has 2 fields in place of 3"),
        (b"sha256,status,tag,public\nab,pending,t,high\n", r"line 2, has 'high' as public"),
        (b"sha256,status,tag,public\nab,pending,t,nan\n", r"line 2, has 'nan' as public"),
        (b'sha256,status,tag\nab,"pend\n', r"line 2, is not CSV"),
        (b"sha256,status,tag\nab,pend\xff,t\n", "is not UTF-8 text"),
        (b"sha256,status,tag\nab,pend\0,t\n", "does not begin"),
    ],
)
def test_a_damaged_ledger_is_named_and_left_alone(ledger: Ledger, content: bytes, told: str) -> None:
    ledger.path.parent.mkdir()
    ledger.path.write_bytes(content)
    for act in (ledger.rows, lambda: ledger.add(entry("t")), lambda: ledger.put(entry("t"))):
        with pytest.raises(NerveError, match=f"{ledger.path},? .*{told}.*move it away"):
            act()
    assert ledger.path.read_bytes() == content


def test_many_processes_lose_no_row(ledger: Ledger) -> None:
    code = (
        "import sys; from pathlib import Path; from kaggle_nerve.submissions.ledger import Entry, Ledger\n"
        "for number in range(20): Ledger(Path(sys.argv[1])).add(Entry(sha256='s', tag=f'{sys.argv[2]}-{number}'))"
    )
    workers = [
        subprocess.Popen([sys.executable, "-c", code, str(ledger.path), str(number)]) for number in range(3)
    ]
    assert [worker.wait(60) for worker in workers] == [0, 0, 0]
    assert {row.tag for row in ledger.rows()} == {f"{a}-{b}" for a in range(3) for b in range(20)}


def test_a_locked_ledger_is_said(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "PATIENCE", 0.1)
    ledger.path.parent.mkdir()
    with FileLock(ledger.path.with_name(".ledger.lock")), pytest.raises(NerveError, match="holds"):
        ledger.add(entry("t"))


def listed(ledger: Ledger, *words: str) -> tuple[int, str]:
    told = CliRunner().invoke(cli, ["submissions", "list", "--submissions", str(ledger.path.parent), *words])
    return told.exit_code, told.output


def test_a_plot_stands_beside_the_table(ledger: Ledger) -> None:
    plot = ledger.path.with_name("made") / "scores.png"
    for extra in ({}, {"public": 0.5}, {"oof": 0.7}):  # nothing, no estimate, no score
        if extra:
            ledger.add(entry(f"t{extra}", run="bare", **extra))
        code, told = listed(ledger, "--plot", str(plot))
        assert code == 1
        assert "so there is nothing to plot; `kaggle-nerve submissions refresh`" in told
        assert told.startswith("when " if extra else "Nothing was submitted yet.")
        assert not plot.exists()
    ledger.add(entry("t", run="tiny", oof=0.7, oof_low=0.6, oof_high=0.75, public=0.68, private=0.71))
    ledger.add(entry("u", run="tiny", oof=0.7, public=0.69))
    code, told = listed(ledger, "--plot", str(plot))
    assert code == 0
    assert told.startswith("when ")
    assert f"{plot} shows 2 of 4 submissions" in told
    assert plot.read_bytes().startswith(b"\x89PNG")
    plot.unlink()
    assert listed(ledger, "--plot", str(plot), "--json")[1].startswith("[")
    assert plot.is_file()


def test_a_plot_is_a_png(ledger: Ledger) -> None:
    code, told = listed(ledger, "--plot", "scores.txt")
    assert (code, "--plot scores.txt must end in .png" in told) == (2, True)


def test_a_file_that_was_made_here_is_uploaded_with_its_origin(ledger: Ledger, monkeypatch) -> None:
    folder = ledger.path.parent
    folder.mkdir()
    made, other = folder / "made.csv", folder / "other.csv"
    made.write_text("img,pixels\n1,\n")
    other.write_text("img,pixels\n1,1 1\n")
    (folder / "sample_submission.csv").write_text("img,pixels\n1,1 1\n")
    origin = ledgers.Origin("small", "5e77", 0.71, 0.69, 0.73)
    record_origin(made, origin, folder)
    record_origin(other, replace(origin, run="tiny"), folder)
    other.write_text("img,pixels\n1,2 1\n")  # changed since, so it is no longer what was made
    sent = []
    monkeypatch.setattr(
        submitting, "upload", lambda csv, message, client, **rest: sent.append((message, rest["origin"]))
    )
    for file in (made, other):
        words = ["submit", "--file", str(file), "--data", str(folder), "--submissions", str(folder)]
        assert CliRunner().invoke(cli, words).exit_code == 0
    assert sent == [("small, out-of-fold 0.7100", origin), ("other.csv", None)]


class TestSettling:
    def test_scores_are_taken(self) -> None:
        (row,) = settle([entry("t1")], [remote("t2"), remote("t1")])
        assert (row.ref, row.status, row.public, row.private) == ("7", "complete", 0.5, 0.25)
        assert settle([row], [remote("t1")]) == []

    def test_no_score_is_none(self) -> None:
        (row,) = settle([entry("t1")], [remote("t1", status="pending", public="", private="")])
        assert (row.status, row.public, row.private) == ("pending", None, None)

    def test_a_score_outlasts_another_look(self) -> None:
        assert settle([entry("t1", status="complete", public=0.5)], [remote("t1", status="pending")]) == []

    def test_old_ones_that_are_not_listed_are_lost(self) -> None:
        fresh = entry("t2", timestamp=ledgers.datetime.now(ledgers.UTC).isoformat())
        done = entry("t3", status="complete")
        assert settle([entry("t1"), fresh, done], []) == [entry("t1", status="lost")]

    def test_lost_ones_that_show_up_are_found(self) -> None:
        (row,) = settle([entry("t1", status="lost")], [remote("t1")])
        assert row.status == "complete"

    def test_a_row_without_tag_goes_by_number(self) -> None:
        assert find(entry("", ref="7"), [remote("x")]) == remote("x")
        assert find(entry("t1", ref="7"), [remote("x")]) is None
        assert find(entry("", ref=""), [remote("x", ref="")]) is None

    def test_an_unreadable_timestamp_is_old(self) -> None:
        assert settle([entry("t1", timestamp="?")], [])[0].status == "lost"
        assert settle([entry("t1", timestamp="2020-01-01")], [])[0].status == "lost"
