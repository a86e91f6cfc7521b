"""File names in other encodings, and consoles that cannot print them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from rehearsal_support import TEST_IMGS, write_submission

from kaggle_nerve.competition import facts
from kaggle_nerve.rehearsal.server import RehearsalServer

LATIN = os.fsdecode(b"sc\xe4n.csv")


def start(folder: Path, encoding: str, *words: str) -> subprocess.CompletedProcess[bytes]:
    """The command as a program of its own, with a console of this encoding."""
    variables = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONPATH": str(Path(__file__).parents[1])}
    return subprocess.run(
        [sys.executable, "-m", "kaggle_nerve", *words],
        cwd=folder,
        env=variables,
        capture_output=True,
        timeout=60,
    )


@pytest.fixture
def latin(tmp_path: Path) -> Path:
    """A submission whose name is Latin-1; the test skips by name where the disk refuses it."""
    try:
        return write_submission(tmp_path / LATIN)
    except OSError as fault:
        pytest.skip(f"this disk takes no name of other bytes than UTF-8: {fault}")


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("utf-8:strict", b"sc\\udce4n.csv"),
        ("ascii:strict", b"sc?n.csv"),
        ("utf-8:surrogateescape", b"sc\xe4n.csv"),
    ],
)
def test_a_console_that_cannot_print_it(latin: Path, encoding: str, shown: bytes) -> None:
    done = start(latin.parent, encoding, "submissions", "merge", LATIN, LATIN, "--out", f"merged-{LATIN}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith(b"merged-" + shown + b": 10 rows")
    assert b"Traceback" not in done.stderr


def test_a_ledger_that_cannot_hold_it(
    latin: Path, server: RehearsalServer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in server.environment(home).items():
        monkeypatch.setenv(name, value)
    rows = "".join(f"{img},1 1\n" for img in TEST_IMGS)
    (latin.parent / facts.SAMPLE_CSV).write_text(f"img,pixels\n{rows}")
    done = start(latin.parent, "utf-8:strict", "submit", "--file", LATIN, "--data", ".")
    assert (done.returncode, done.stderr.splitlines()[-1].decode()) == (
        1,
        "Error: The name 'sc\\udce4n.csv' is not UTF-8, and not everything here can work with it: rename that file or "
        "folder, and run the same command again.",
    )
    assert not any(record.call == "CreateSubmission" for record in server.log)
