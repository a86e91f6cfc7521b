"""Several trials at once: threads of one command, and their folds on a Ray cluster."""

import json
import os
import re
import subprocess
import sys
import threading
from dataclasses import dataclass, field

import pytest
from cli_support import command
from search_support import FakeTrainer, search, settings
from support import write_competition
from training_support import FAST, Told

from kaggle_nerve.errors import NerveError
from kaggle_nerve.runs import Run
from kaggle_nerve.search import claims
from kaggle_nerve.search.run import run_search
from kaggle_nerve.search.storage import parse_place
from kaggle_nerve.search.study import open_study
from kaggle_nerve.search.trial import Trainer
from kaggle_nerve.training.parallel import MachinesLostError
from kaggle_nerve.training.run_folds import FoldsError


@dataclass(frozen=True)
class Crowd(Trainer):
    """Trains nothing, and waits until ``size`` trials are trained at the same time, the first time."""

    meeting: threading.Barrier = field(default_factory=lambda: threading.Barrier(3))
    trained: list = field(default_factory=list)

    def train_run(self, runs_dir, name, settings, stop):
        self.trained.append((name, self.is_shared))
        if len(self.trained) <= self.meeting.parties:
            self.meeting.wait(60)
        return FakeTrainer().train_run(runs_dir, name, settings, stop)

    def figures(self, run):
        return FakeTrainer().figures(run)

    def origin(self):
        return ""


def crowd(**options) -> Crowd:
    return Crowd(None, None, Told(), lambda: False, **options)


def test_trials_at_once_are_as_many_as_wanted(tmp_path):
    trainer = crowd()
    place = parse_place("sqlite", tmp_path / "s")
    outcome, elsewhere = run_search(search(tmp_path / "s"), place, 8, trainer, at_once=3)
    assert elsewhere == 0
    assert sorted(row.number for row in outcome.rows) == [*range(8)]
    assert sorted(trainer.trained) == [
        ("again", False),
        *((f"trial-{number:04d}", True) for number in range(8)),
    ]
    done = claims.counted(open_study(search(tmp_path / "s"), place, 1).trials())
    assert [trial.state.name for trial in done] == ["COMPLETE"] * 8


def test_one_thread_that_fails_ends_the_others_and_the_search_goes_on(tmp_path, monkeypatch):
    trainer = crowd()
    place = parse_place("sqlite", tmp_path / "s")

    def fail(self, runs_dir, name, settings, stop):
        self.trained.append((name, self.is_shared))
        if len(self.trained) <= 3:
            self.meeting.wait(60)
        raise NerveError("Fold 0: no room.")

    with monkeypatch.context() as patches:
        patches.setattr(Crowd, "train_run", fail)
        with pytest.raises(
            NerveError, match=r"^3 trials failed one after the other, the last one with: Fold 0: no room"
        ):
            run_search(search(tmp_path / "s"), place, 30, trainer, at_once=3)
    outcome, _ = run_search(search(tmp_path / "s"), place, 12, crowd(), at_once=3)
    assert len(outcome.rows) == 12


def test_a_cluster_that_goes_fails_no_trial(tmp_path, monkeypatch):
    place, run = parse_place("sqlite", tmp_path / "s"), Run(tmp_path / "s" / "trial-0000", settings())

    def lose(self, runs_dir, name, settings, stop):
        raise FoldsError(run, [], {0: MachinesLostError("the connection to the cluster is lost.")})

    with monkeypatch.context() as patches:
        patches.setattr(Crowd, "train_run", lose)
        with pytest.raises(MachinesLostError, match="the connection to the cluster is lost"):
            run_search(search(tmp_path / "s"), place, 2, crowd())
    outcome, _ = run_search(search(tmp_path / "s"), place, 2, FakeTrainer())
    assert [row.state for row in outcome.rows] == ["finished", "finished"]
    assert len(open_study(search(tmp_path / "s"), place, 1).trials()) == 3  # the first one was continued


def test_what_divides_a_cluster_needs_one(tmp_path):
    for words in (
        ("search", "--at-once", "2"),
        ("search", "--gpus-per-fold", "1"),
        ("train-folds", "--cpus-per-fold", "1"),
    ):
        done = command(tmp_path, *words, "--preset", "tiny", code=2)
        assert f"{words[1]} divides a cluster; use it with --cluster." in done.stderr


@pytest.mark.long
def test_a_search_on_a_cluster_trains_trials_at_once(tmp_path):
    write_competition(tmp_path / "data", subjects=4, frames=8, test=1)
    (tmp_path / "space.toml").write_text("optimiser.learning_rate = {low = 1e-3, high = 3e-2, log = true}\n")
    changes = [f"--set={change}" for change in (*FAST, "training.epochs=2")]
    words = [
        "search",
        "--preset=tiny",
        *changes,
        "--folds=2/2",
        "--data=data",
        "--space=space.toml",
        "--name=s",
    ]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "kaggle_nerve",
            *words,
            "--trials=3",
            "--cluster=local",
            "--at-once=2",
            "--json",
        ],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout)
    assert sorted((trial["number"], trial["state"]) for trial in outcome["trials"]) == [
        (0, "finished"),
        (1, "finished"),
        (2, "finished"),
    ]
    for name in ("trial-0000", "trial-0001"):
        assert re.search(rf"^{name}, Fold 0 is on node ", done.stderr, re.MULTILINE)
    # The second began before the first had ended.
    lines = done.stderr.splitlines()
    begun = [
        next(n for n, line in enumerate(lines) if line.startswith(f"trial-000{trial}, Fold 0 is"))
        for trial in (0, 1)
    ]
    ended = [
        next(n for n, line in enumerate(lines) if line.startswith(f"Trial {trial}: 0.")) for trial in (0, 1)
    ]
    assert max(begun) < min(ended)
    assert (tmp_path / "runs" / "s" / "best.toml").is_file()
