"""Folds in processes of their own: the same results, and what happens when one, or all, come to grief."""

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import is_gone, wait_until
from support import write_competition
from training_support import Told, history, many_epochs, settings

from kaggle_nerve.errors import NerveError
from kaggle_nerve.prediction.stored import open_oof
from kaggle_nerve.progress import Bar, Reporter
from kaggle_nerve.runs import open_run
from kaggle_nerve.settings.schema import ALL
from kaggle_nerve.storage import read_completion
from kaggle_nerve.training import parallel, worker_process
from kaggle_nerve.training.run_folds import FoldsError, time_portions, train_folds
from kaggle_nerve.training.worker import PipeReporter, Replay


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_competition(root, subjects=4, frames=8, test=1)
    return root


@pytest.fixture(scope="module")
def pair(data, tmp_path_factory):
    """A run whose two folds were trained side by side, and what was told meanwhile."""
    told = Told()
    run, results = train_folds(
        data, tmp_path_factory.mktemp("runs"), "pair", settings(), jobs=2, reporter=told
    )
    assert [(result.fold, result.finished) for result in results] == [(0, True), (1, True)]
    return run, results, told


def workers(parent: int) -> dict[int, int]:
    """Worker processes of ``parent`` that are alive: their ids by the fold whose log they write."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            state, mother = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            log = (folder / "fd" / "2").readlink()
        except OSError:
            continue
        if b"kaggle_nerve.training.worker" in words and state != "Z" and int(mother) == parent:
            found[int(log.parent.name.removeprefix("fold-"))] = int(folder.name)
    return found


def epochs(runs_dir: Path, fold: int, run: str = "run") -> int:
    """Whole epochs in the checkpoint of ``fold``."""
    state = runs_dir / run / f"fold-{fold}" / "checkpoint" / "state.json"
    return json.loads(state.read_text())["epoch"] if state.is_file() else 0


def test_folds_side_by_side_are_those_that_one_process_trains(data, pair, tmp_path):
    run, results, _ = pair
    alone, expected = train_folds(data, tmp_path, "alone", settings(), jobs=1)
    assert run.folds_csv.read_bytes() == alone.folds_csv.read_bytes()
    for mine, theirs in zip(results, expected, strict=True):
        assert (mine.fold, mine.epochs) == (theirs.fold, theirs.epochs)
        rows, others = history(run.fold(mine.fold).folder), history(alone.fold(mine.fold).folder)
        # The same frames and seeds; sums in another number of threads differ in their last digits.
        assert [float(row["loss"]) for row in rows] == pytest.approx(
            [float(row["loss"]) for row in others], rel=0.01
        )
    assert len(open_oof(run).table) == len(open_oof(alone).table) == 4 * 8


def test_each_fold_keeps_what_it_ran_on(pair):
    run, _, _ = pair
    for fold in (0, 1):
        found = json.loads((run.fold(fold).folder / "environment.json").read_text())
        assert found["jobs"] == 2
        assert found["precision"] == "float32"
        assert found["deterministic"] is False
        assert found["seconds"] > 0
        assert found["devices"]
        assert found["versions"]["keras"]


def test_one_reporter_is_told_of_every_fold(pair):
    _, _, told = pair
    assert "2 folds are trained side by side." in told.lines
    assert set(told.bars) >= {"Fold 0", "Fold 1", "Fold 0 out-of-fold", "Fold 1 out-of-fold"}
    for fold in (0, 1):
        assert any(line.startswith(f"Fold {fold}: ") and "ms a step" in line for line in told.lines)


STANDS_IN = """
import json, os, sys
def send(**message):
    print(json.dumps(message), flush=True)
order = json.loads(sys.stdin.buffer.readline())
if order["fold"] == 1:
    send(event="crashed", text="OSError: no room\\nto work in.")
    sys.exit(1)
if order["fold"] == 3:
    send(event="failed", text="its data is not there.")
    sys.exit(1)
if order["fold"] == 2:
    send(event="say", text=f"pid {os.getpid()}")
    sys.stdin.buffer.readline()
send(event="result")
"""
"""A worker's process without training: fold 1 crashes, fold 2 works until it is told to stop, fold 3 fails with a
sentence, others end at once."""


@pytest.fixture
def stand_ins(pair, tmp_path, monkeypatch):
    """Workers of `STANDS_IN`, a run of theirs, and the process ids that fold 2 has told."""
    monkeypatch.setattr(worker_process, "COMMAND", [sys.executable, "-c", STANDS_IN])
    shutil.copytree(pair[0].folder, tmp_path / "run")
    told = Told()

    def pids() -> list[int]:
        return [int(line.rpartition(" ")[2]) for line in told.lines if line.startswith("Fold 2: pid ")]

    return open_run(tmp_path, "run"), told, pids


def test_processes_that_are_killed_crash_or_fail_leave_the_others_alone(stand_ins):
    run, told, pids = stand_ins
    killed = []

    def kill_fold_2() -> bool:
        if pids() and not killed:
            killed.extend(pids())
            os.kill(killed[0], signal.SIGKILL)
        return False

    pool = parallel.ParallelTraining(
        parallel.ThisMachine(), Path("data"), 3, deadline=None, reporter=told, stop=kill_fold_2
    )
    failures = pool.train([run.fold(number) for number in (0, 1, 2, 3, ALL)], [1.0] * 5)
    assert {number: str(fault) for number, fault in failures.items()} == {
        1: f"Fold 1 failed (OSError: no room); its log: {run.fold(1).log}",
        2: "Fold 2 was killed (SIGKILL), most likely for lack of memory, at training.batch=4 and size=[45,62]; train "
        "it with fewer --jobs, or as another run with --set training.batch=2, a smaller size or a smaller model.width; "
        f"its log: {run.fold(2).log}",
        3: "its data is not there.",
    }
    assert set(map(str, (failures[1], failures[2]))) | {"Fold 3: its data is not there."} <= set(told.lines)


def test_a_stop_reaches_the_processes_at_work_and_no_other_begins(stand_ins):
    run, told, pids = stand_ins
    pool = parallel.ParallelTraining(
        parallel.ThisMachine(), Path("data"), 1, deadline=None, reporter=told, stop=lambda: bool(pids())
    )
    assert pool.train([run.fold(number) for number in (2, 1)], [1.0] * 2) == {}
    assert all(map(is_gone, pids()))


ORPHAN = """
import os, sys, threading, time
from kaggle_nerve.training.worker import _listen
threading.Thread(target=_listen, args=(os.fdopen(0, "rb", buffering=0), threading.Event())).start()
time.sleep(60)
"""


def test_a_worker_whose_parent_is_gone_ends_itself():
    assert subprocess.run([sys.executable, "-c", ORPHAN], input=b"stop\n", timeout=30).returncode == 1


@pytest.mark.long
def test_a_killed_fold_and_a_crashed_one_leave_the_third_alone_and_are_trained_later(data, tmp_path):
    chosen = settings("folds=3", *many_epochs(20))
    hindrance = tmp_path / "run" / "fold-1" / "oof.npy"
    hindrance.mkdir(parents=True)
    killed = []

    def kill_fold_2() -> bool:
        if not killed and epochs(tmp_path, 2) >= 2:
            killed.append(workers(os.getpid())[2])
            os.kill(killed[0], signal.SIGKILL)
        return False

    with pytest.raises(FoldsError) as caught:
        train_folds(data, tmp_path, "run", chosen, jobs=3, stop=kill_fold_2)
    kept = epochs(tmp_path, 2)
    assert [result.fold for result in caught.value.results] == [0]
    assert read_completion(tmp_path / "run" / "fold-0")
    crashed, ended = str(caught.value).splitlines()
    assert re.fullmatch(r"Fold 1: .*oof\.npy: Is a directory; check the path and its rights\.", crashed)
    assert ended.startswith(
        "Fold 2 was killed (SIGKILL), most likely for lack of memory, at training.batch=4 and "
    )
    log = tmp_path / "run" / "fold-1" / "worker.log"
    assert "Traceback" in log.read_text()

    hindrance.rmdir()
    told = Told()
    run, results = train_folds(data, tmp_path, "run", chosen, jobs=1, reporter=told)
    assert "1 of 3 folds are finished already." in told.lines
    assert any(line.startswith(f"Fold 2, going on after epoch {kept}") for line in told.lines)
    assert [result.finished for result in results] == [True, True, True]
    assert [row["epoch"] for row in history(run.fold(2).folder)] == [str(number) for number in range(1, 21)]


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_fault_of_one_fold_does_not_keep_the_others_from_their_turn(data, pair, tmp_path, jobs):
    # The run to start from has fold 1 only, so fold 0, the first one, cannot start.
    shutil.copytree(pair[0].folder, tmp_path / "half", ignore=shutil.ignore_patterns("fold-0"))
    chosen = settings("training.start=half", "training.epochs=1")
    with pytest.raises(FoldsError, match=r"^Fold 0: training\.start=half has no finished fold 0") as caught:
        train_folds(data, tmp_path, "run", chosen, jobs=jobs)
    assert [(result.fold, result.finished) for result in caught.value.results] == [(1, True)]
    assert list(caught.value.failures) == [0]


def test_the_fault_of_the_only_fold_asked_for_is_raised_as_it_is(data, pair, tmp_path):
    chosen = settings(f"training.start={pair[0].folder}", "folds=4", "training.epochs=1")
    with pytest.raises(NerveError, match="has seen some of those held out here"):
        train_folds(data, tmp_path, "run", chosen, fold=0, jobs=2)


def test_a_start_that_is_not_there_makes_no_run_and_a_run_goes_on_without_it(data, pair, tmp_path):
    chosen = settings(f"training.start={tmp_path / 'gone'}", "training.epochs=1")
    with pytest.raises(NerveError, match=r"^training\.start=.*gone is neither"):
        train_folds(data, tmp_path, "run", chosen)
    assert list(tmp_path.iterdir()) == []
    shutil.copytree(pair[0].folder, tmp_path / "gone")
    train_folds(data, tmp_path, "run", chosen, fold=0)
    shutil.rmtree(tmp_path / "gone")
    _, results = train_folds(data, tmp_path, "run", chosen, fold=0)
    assert results[0].finished


def test_what_is_raised_here_ends_the_processes(data, tmp_path):
    started = []

    def interrupted() -> bool:
        started.extend(workers(os.getpid()))
        if started:
            raise KeyboardInterrupt
        return False

    with pytest.raises(KeyboardInterrupt):
        train_folds(data, tmp_path, "run", settings(), jobs=2, stop=interrupted)
    assert started
    assert workers(os.getpid()) == {}


LONG = """
import sys
from pathlib import Path
from kaggle_nerve.cli.backend import load_keras
from kaggle_nerve.cli.terminal import GentleInterrupt, TerminalReporter
load_keras()
sys.path.insert(0, sys.argv[3])
from training_support import many_epochs, settings
from kaggle_nerve.training.run_folds import train_folds
with GentleInterrupt() as interrupt:
    _, results = train_folds(Path(sys.argv[1]), Path(sys.argv[2]), "run", settings(*many_epochs(5000)), jobs=2,
                             reporter=TerminalReporter(), stop=interrupt.stop)
for result in results:
    print(result.fold, result.finished, result.epochs)
"""


def started(data: Path, runs_dir: Path, log: Path) -> tuple[subprocess.Popen, list[int]]:
    """A process that trains two folds, once each has an epoch more; and the ids of its workers.

    ``log`` takes its standard error: a pipe that nobody reads would stop it when full.
    """
    before = {fold: epochs(runs_dir, fold) for fold in (0, 1)}
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", LONG, str(data), str(runs_dir), str(Path(__file__).parent)],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )

    def ready() -> bool:
        assert process.poll() is None, log.read_text()
        return all(epochs(runs_dir, fold) > before[fold] for fold in (0, 1))

    wait_until(ready, log.read_text, seconds=240)
    # A look at /proc while processes come and go may miss one, so there may be a second look.
    children: dict[int, int] = {}
    wait_until(lambda: children.update(workers(process.pid)) or set(children) == {0, 1}, log.read_text)
    return process, list(children.values())


@pytest.mark.long
def test_ctrl_c_ends_every_fold_after_its_epoch_and_kill_9_leaves_no_process_behind(data, tmp_path):
    log = tmp_path / "log.txt"
    process, children = started(data, tmp_path, log)
    # A terminal sends Ctrl-C to the whole group.
    os.killpg(process.pid, signal.SIGINT)
    told, _ = process.communicate(timeout=120)
    progress = log.read_text()
    assert process.returncode == 0, progress
    assert all(map(is_gone, children))
    assert [line.split()[:2] for line in told.splitlines()] == [["0", "False"], ["1", "False"]]
    for fold, line in enumerate(told.splitlines()):
        assert int(line.split()[2]) == epochs(tmp_path, fold) >= 1
        # One view of both: each line says whose it is.
        assert f"\nFold {fold}: " in progress
    begins = ("Caching ", "Run ", "Fold ", "2 folds ", "Finishing ")
    assert [line for line in progress.splitlines() if line and not line.startswith(begins)] == []

    process, children = started(data, tmp_path, log)
    process.kill()
    process.communicate()
    wait_until(lambda: all(map(is_gone, children)), log.read_text, seconds=60)


class Listed(Reporter):
    """Keeps every call of itself and of its bars, in order."""

    def __init__(self):
        self.calls = []

    def say(self, text):
        self.calls.append(text)

    def bar(self, label, total, unit="frame"):
        self.calls.append((label, total, unit))
        return ListedBar(label, self.calls)


class ListedBar(Bar):
    def __init__(self, label, calls):
        self.label, self.calls = label, calls

    def update(self, steps=1):
        self.calls.append((self.label, steps))

    def note(self, text):
        self.calls.append((self.label, text))

    def expect(self, total):
        self.calls.append((self.label, f"of {total}"))

    def close(self):
        self.calls.append((self.label, "closed"))


def replayed(pipe: io.BytesIO) -> Listed:
    listed = Listed()
    replay = Replay(listed, "Fold 3")
    for line in pipe.getvalue().splitlines():
        replay.handle(json.loads(line))
    replay.close()
    return listed


def test_what_a_process_reports_arrives_with_its_label():
    pipe = io.BytesIO()
    reporter = PipeReporter(pipe)
    reporter.say("Fold 3: 5 ms a step")
    reporter.say("Starting from a file.")
    with reporter.bar("Fold 3", 10, "step") as bar:
        for _ in range(4):
            bar.update()
        bar.note("epoch 1")
        bar.expect(8)
        bar.update(4)
    assert replayed(pipe).calls == [
        "Fold 3: 5 ms a step",
        "Fold 3: Starting from a file.",
        ("Fold 3", 10, "step"),
        ("Fold 3", 4),  # four quick steps are one message
        ("Fold 3", "epoch 1"),
        ("Fold 3", "of 8"),
        ("Fold 3", 4),
        ("Fold 3", "closed"),
    ]


def test_bars_of_a_killed_process_are_closed():
    pipe = io.BytesIO()
    PipeReporter(pipe).bar("Fold 3", None)
    assert replayed(pipe).calls == [("Fold 3", None, "frame"), ("Fold 3", "closed")]


class Ended(parallel.Worker):
    """A worker with nothing left to do."""

    def stop(self):
        pass

    def kill(self):
        pass

    def exit_code(self):
        return 0


def test_a_time_budget_is_dealt_over_rounds(pair):
    dealt = {}

    class Immediate(parallel.ThisMachine):
        """A machine on which each fold ends as soon as it was started."""

        def start(self, fold, order, slot, events):
            worker = Ended(fold, order.jobs, slot)
            dealt[order.fold] = order.deadline - time.monotonic()
            events.put((worker, {"event": "result"}))
            events.put((worker, None))
            return worker

    pool = parallel.ParallelTraining(
        Immediate(), Path("data"), 2, deadline=time.monotonic() + 60, reporter=Told(), stop=lambda: False
    )
    folds = [pair[0].fold(number) for number in (1, 2, 3, 5, 6)]
    failures = pool.train(folds, time_portions(folds, 2, 7))
    # Three rounds of at most two folds; time that a round leaves is the next one's.
    assert dealt == pytest.approx({1: 20, 2: 20, 3: 30, 5: 30, 6: 60}, abs=1)
    assert failures == {}


@pytest.mark.parametrize(
    ("kept", "told"),
    [
        ("2468", "no frame of the training data has a mask"),
        ("1357", "every frame of the training data has a mask"),
    ],
)
def test_data_that_cannot_teach_is_warned_of_once(data, tmp_path, kept, told):
    root = tmp_path / "data"
    shutil.copytree(data, root, ignore=shutil.ignore_patterns(".cache"))
    head, *rows = (root / "train_masks.csv").read_text().splitlines()
    kept_rows = [row for row in rows if row.split(",")[1] in kept]
    (root / "train_masks.csv").write_text("\n".join([head, *kept_rows, ""]))
    for path in (root / "train").iterdir():
        if path.name.removesuffix(".tif").split("_")[1] not in kept:
            path.unlink()
    heard = Told()
    train_folds(root, tmp_path, "run", settings(), jobs=2, stop=lambda: True, reporter=heard)
    assert [line for line in heard.lines if told in line] == [
        line for line in heard.lines if "Warning" in line
    ]
    assert sum("Warning" in line for line in heard.lines) == 1


def test_after_a_stop_no_fold_is_begun(data, tmp_path):
    run, results = train_folds(data, tmp_path, "run", settings(), jobs=2, stop=lambda: True)
    assert [(result.fold, result.finished, result.epochs) for result in results] == [
        (0, False, 0),
        (1, False, 0),
    ]
    assert not run.fold(0).folder.exists()
