"""The whole job by one command, through the real client and real HTTP on this machine."""

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cli_support import command
from click.testing import CliRunner
from filelock import FileLock
from support import write_competition

from kaggle_nerve.cli import cli
from kaggle_nerve.data.frames import locate, training_frames
from kaggle_nerve.data.verify import verify
from kaggle_nerve.errors import NerveError
from kaggle_nerve.rehearsal.competitions.holdout import hold_out
from kaggle_nerve.rehearsal.run import all_empty, rehearsal_folder

FAST = [
    "--set=size=[45, 62]",
    "--set=model.stem=1",
    "--set=model.width=4",
    "--set=model.depth=1",
    "--set=training.epochs=6",
    "--set=training.batch=4",
    "--set=optimiser.learning_rate=0.01",
    "--set=folds=2",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_competition(root, subjects=5, frames=12, test=2)
    return root


def test_the_whole_job(data, tmp_path):
    words = ["rehearse", "--data", str(data), "--held-out", "1", "--work", str(tmp_path), *FAST]
    started = [sys.executable, "-m", "kaggle_nerve", *words]
    done = subprocess.run(started, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    assert "SYNTHETIC" not in done.stdout
    assert "all-empty" in done.stdout
    (folder,) = tmp_path.glob("held-out-*")
    with (folder / "submissions" / "ledger.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert (row["where"], row["status"]) == ("rehearsal", "complete")
    # The server's scores are those of our own metric on the file that lies there.
    made = next((folder / "submissions").glob("*__tiny.csv"))
    scored = json.loads(command(tmp_path, "score", made, folder / "served/solution.csv", "--json").stdout)
    assert float(row["public"]) == pytest.approx(scored["public"], abs=1e-4)
    assert float(row["private"]) == pytest.approx(scored["private"], abs=1e-4)
    assert scored["frames"] == 12
    # Again: nothing is fetched or trained a second time, and the same figures come out.
    again = command(tmp_path, *words, "--json")
    assert "2 of 2 folds are finished already" in again.stderr
    assert json.loads(again.stdout)["private"] == pytest.approx(scored["private"], abs=1e-4)


def test_serve_prints_an_environment_that_the_client_works_in(data, tmp_path):
    words = ["rehearse", "--serve", "--data", str(data), "--work", str(tmp_path), "--fault", "rules"]
    server = subprocess.Popen(
        [sys.executable, "-m", "kaggle_nerve", *words], stdout=subprocess.PIPE, text=True
    )
    try:
        script = line = ""
        while not line.startswith("unset"):
            line = server.stdout.readline()
            assert line, "the server ended"
            script += line
        fetched = subprocess.run(
            ["bash", "-c", f"{script}\n{sys.executable} -m kaggle_nerve fetch --data {tmp_path / 'x'}"],
            capture_output=True,
            text=True,
            timeout=120,
        )
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(20)
    assert fetched.returncode == 1
    assert "has not accepted the competition's rules" in fetched.stderr


def test_the_faults_are_listed():
    assert "daily-limit" in command(Path(), "rehearse", "--list-faults").stdout


def test_an_unknown_fault_is_named(tmp_path):
    done = command(tmp_path, "rehearse", "--serve", "--fault", "cutt", "--work", tmp_path, code=1)
    assert "cut" in done.stderr


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--held-out", "3"], "--held-out is about subjects of --data"),
        (["--serve", "--json"], "no --json of them"),
    ],
)
def test_options_that_say_nothing_are_refused(tmp_path, words, told):
    done = CliRunner().invoke(cli, ["rehearse", "--work", str(tmp_path), *words])
    assert (done.exit_code, told in done.output) == (2, True)


def test_one_rehearsal_at_a_time_keeps_a_folder_s_submissions(data, tmp_path):
    words = ["rehearse", "--serve", "--data", str(data), "--work", str(tmp_path)]
    with FileLock(rehearsal_folder(tmp_path, data, None, 0) / ".lock"):
        done = CliRunner().invoke(cli, words)
    assert done.exit_code == 1
    assert "Another rehearsal runs in" in done.output


def test_held_out_subjects_become_a_test_set_that_does_not_tell_them(data, tmp_path):
    solution = hold_out(data, tmp_path / "out", 2, 0)
    frames = training_frames(locate(data))
    kept = training_frames(locate(tmp_path / "out"))
    assert kept.subject.nunique() == 3
    assert len(solution) == 24
    assert solution.img.tolist() == list(range(1, 25))
    assert not verify(tmp_path / "out").problems
    # Every test frame is a frame of a held-out subject, with that frame's mask; the order is shuffled.
    held = frames[~frames.subject.isin(kept.subject)]
    by_bytes = {path.read_bytes(): pixels for path, pixels in zip(held.path, held.pixels, strict=True)}
    given = [Path(tmp_path / "out" / "test" / f"{img}.tif").read_bytes() for img in solution.img]
    assert [by_bytes[content] for content in given] == solution.pixels.tolist()
    assert given != [path.read_bytes() for path in held.path]
    # Whose frames they were lies beside, for measuring, and is not among what is served.
    origin = pd.read_csv(tmp_path / "out" / "origin.csv")
    sources = [data / "train" / f"{row.subject}_{row.source_img}.tif" for row in origin.itertuples()]
    assert [path.read_bytes() for path in sources] == given
    assert hold_out(data, tmp_path / "out", 2, 0).equals(solution)


def test_holding_out_everyone_is_refused(data, tmp_path):
    with pytest.raises(NerveError, match="leave at least one"):
        hold_out(data, tmp_path / "out", 5, 0)


def test_the_all_empty_baseline_by_hand():
    solution = pd.DataFrame(
        {"img": [1, 2, 3, 4], "pixels": ["1 3", "", "", "5 2"], "Usage": np.repeat(["Public", "Private"], 2)}
    )
    score = all_empty(solution)
    assert (score.all, score.public, score.private) == (0.5, 0.5, 0.5)
