"""The command `search` with real networks: killed, shared by workers, on SQLite and on PostgreSQL."""

import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_support import command
from processes import wait_until
from search_support import FakeTrainer, study
from support import write_competition
from training_support import FAST, Told, settings

from kaggle_nerve import search
from kaggle_nerve.data.cache import training_source
from kaggle_nerve.data.frames import locate
from kaggle_nerve.errors import NerveError
from kaggle_nerve.runs import open_run
from kaggle_nerve.search import claims
from kaggle_nerve.search.run import run_search
from kaggle_nerve.search.space import parse_space
from kaggle_nerve.search.storage import parse_place
from kaggle_nerve.search.study import Search, Study, open_study
from kaggle_nerve.search.trial import Trainer
from kaggle_nerve.search.worker import Worker
from kaggle_nerve.settings import load_preset
from kaggle_nerve.storage import read_json
from kaggle_nerve.training.run_folds import train_folds

SPACE = "optimiser.learning_rate = {low = 1e-3, high = 3e-2, log = true}\ntraining.batch = [4, 8]\n"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_competition(root, subjects=4, frames=8, test=1)
    return root


def test_trials_are_runs_and_the_preset_file_trains(data, tmp_path):
    """In this process: one hold-out of two subjects, two epochs."""
    folder = tmp_path / "runs" / "search-tiny"
    preset = settings("training.epochs=2")
    source = training_source(locate(data))
    searched = Search(
        folder.parent,
        folder.name,
        preset,
        "2/2",
        parse_space(SPACE, "mine.toml"),
        "kept_present_dice",
        "median",
        source,
    )
    trainer = Trainer(data, train_folds, Told(), lambda: False, isolate=False)
    outcome, _ = run_search(searched, parse_place("sqlite", folder), 2, trainer)
    assert outcome is not None
    best = open_run(folder, f"trial-{outcome.best.number:04d}")
    assert best.fold(0).facts()
    stored = read_json(best.decision_file)["figures"]
    assert outcome.best.value == round(stored["kept_present_dice"], 6)
    again = open_run(folder, "again")
    assert again.settings.seed == preset.seed + 1
    assert outcome.again["dice"] == round(read_json(again.decision_file)["figures"]["dice"], 6)
    reported = open_study(searched, parse_place("sqlite", folder), 1).trials()
    assert [sorted(trial.intermediate_values) for trial in reported] == [[1, 2], [1, 2]]
    rows = best.fold(0).history.read_text().splitlines()
    column = rows[0].split(",").index("present_dice")
    scores = [float(row.split(",")[column]) for row in rows[1:]]
    assert list(reported[outcome.best.number].intermediate_values.values()) == [scores[0], max(scores)]
    trained, results = train_folds(data, tmp_path / "runs", "best", load_preset(str(folder / "best.toml")))
    assert [result.finished for result in results] == [True, True]  # the preset's own folds
    assert trained.settings.optimiser.learning_rate == outcome.best.values["optimiser.learning_rate"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--preset", "tiny", "--space", "none.toml"), "none.toml cannot be read (No such file or directory)"),
        (("--preset", "tiny", "--space", "bad.toml"), "bad.toml: there is no key 'training.bach' (did you mean"),
        (("--preset", "tiny", "--set", "training.start=small"), "training.start = 'small' is a run, whose folds held"),
        (("--preset", "tiny", "--storage", "mysql://h/d"), "--storage must be sqlite, journal, or postgresql://"),
        (("--preset", "tiny", "--name", "a b"), "--name 'a b' must be a plain name of letters, digits"),
        (("--preset", "tiny", "--name", "../s"), "--name '../s' must be a plain name of letters, digits"),
        (("--preset", "tin",), "No preset is called 'tin' (did you mean 'tiny'?)"),
        (("--preset", "tiny", "--data", "nowhere"), "There is no data directory nowhere; run `kaggle-nerve fetch`"),
    ],
)  # fmt: skip
def test_what_cannot_be_searched_is_one_sentence(data, tmp_path, words, sentence):
    (tmp_path / "bad.toml").write_text("training.bach = [8, 16]")
    done = command(tmp_path, "search", "--data", data, *words, code=1)
    assert sentence in done.stderr
    assert not (tmp_path / "runs").exists()


def test_without_optuna_a_sentence_says_how_to_install_it(data, tmp_path, monkeypatch):
    monkeypatch.setattr(search, "find_spec", lambda name: None)
    done = command(tmp_path, "search", "--preset", "tiny", "--data", data, code=1)
    assert done.stderr == (
        "Error: This needs the package optuna, which is not installed: run `pip install 'kaggle-nerve[search]'`, and "
        "the same command again.\n"
    )


def test_nothing_else_imports_optuna():
    """Neither the package, nor the command line, nor training, nor the report."""
    code = (
        "import sys; import kaggle_nerve.cli, kaggle_nerve.pipeline, kaggle_nerve.report.page, kaggle_nerve.session; "
        "import kaggle_nerve.search.space, kaggle_nerve.training.run_folds; "
        "print(*{'optuna', 'sqlalchemy', 'psycopg', 'ray'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment()
    )
    assert done.stdout.split() == []


def environment() -> dict[str, str]:
    """This process's, with the package of this checkout."""
    return {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}


class Session:
    """A search in its folder, started as a program of its own as often as wanted."""

    def __init__(self, folder: Path, data: Path, trials: int, *words: str):
        (folder / "space.toml").write_text(SPACE)
        changes = [f"--set={change}" for change in (*FAST, "training.epochs=2")]
        self.folder, self.search = folder, folder / "runs" / "s"
        self.trials = trials
        self.words = ["search", "--preset=tiny", *changes, "--folds=2/2", "--space=space.toml", "--name=s"]
        self.words += [f"--data={data}", f"--trials={trials}", "--pruner=none", *words]

    def start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "kaggle_nerve", *self.words]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=self.folder, env=environment(), stdout=pipe, stderr=subprocess.STDOUT, text=True
        )

    def kill_in(self, trial: int) -> None:
        """Start it, and kill -9 it while it trains a trial."""
        process = self.start()
        history = self.search / f"trial-{trial:04d}" / "fold-0" / "history.csv"
        wait_until(
            lambda: history.is_file() or process.poll() is not None, "the trial never began", seconds=240
        )
        assert process.poll() is None, process.communicate()[0]
        process.send_signal(signal.SIGKILL)
        process.wait()

    def finish(self, workers: int = 1) -> list[str]:
        """Start so many workers at once; return what each printed once they have ended without fault."""
        processes = [self.start() for _ in range(workers)]
        outputs = [process.communicate(timeout=400)[0] for process in processes]
        for process, output in zip(processes, outputs, strict=True):
            assert process.returncode == 0, output
        return outputs

    def study(self, storage: str = "sqlite") -> Study:
        """The study as it is in the storage."""
        record = read_json(self.search / "search.json")
        preset = load_preset("tiny", (*FAST, "training.epochs=2"))
        space = parse_space(SPACE, "space.toml")
        searched = Search(self.search.parent, "s", preset, "2/2", space, "dice", "none", record["source"])
        return open_study(searched, parse_place(storage, self.search), 1)

    def require_finished(self, storage: str = "sqlite") -> None:
        done = claims.counted(self.study(storage).trials())
        assert [trial.state.name for trial in done] == ["COMPLETE"] * self.trials
        assert len({str(trial.params) for trial in done}) == self.trials
        assert (self.search / "best.toml").is_file()
        assert (self.search / "report.html").is_file()


@pytest.mark.long
def test_a_search_killed_twice_ends_with_all_its_trials(data, tmp_path):
    session = Session(tmp_path, data, 8)
    session.kill_in(2)
    session.kill_in(5)
    [output] = session.finish()
    session.require_finished()
    assert len(session.study().trials()) == 10  # two were continued
    assert len(re.findall(r"^Trial \d+ was interrupted and goes on", output, re.MULTILINE)) == 1
    assert "8 of 8 trials are finished" in output
    assert "8 trials: 8 finished; ranked by mean Dice." in output
    assert re.search(
        r"^Best of 8 trials by mean Dice: 0\.\d{4} \(trial \d+\); trained again with another seed",
        output,
        re.MULTILINE,
    )
    # Nothing is left to train; what is printed comes from the storage.
    shown = json.loads(command(tmp_path, *session.words, "--json").stdout)
    assert len(shown["trials"]) == 8
    assert shown["again"]["low"] <= shown["again"]["dice"] <= shown["again"]["high"]
    trained = command(tmp_path, "train-folds", "--preset", "runs/s/best.toml", "--data", data).stdout
    assert "Run best is in runs/best" in trained


@pytest.mark.long
def test_ctrl_c_keeps_the_trial(data, tmp_path):
    session = Session(tmp_path, data, 2, "--set=training.epochs=20")
    process = session.start()
    history = session.search / "trial-0000" / "fold-0" / "history.csv"
    wait_until(lambda: history.is_file() or process.poll() is not None, "it never began", seconds=240)
    process.send_signal(signal.SIGINT)
    output = process.communicate(timeout=120)[0]
    assert process.returncode == 130, output
    assert output.splitlines()[-1] == "Stopped. Finished work is kept; the same command goes on from there."
    epochs = len(history.read_text().splitlines()) - 1
    assert 0 < epochs < 20
    [output] = session.finish()
    assert re.search(rf"^Fold 0, going on after epoch {epochs}: ", output, re.MULTILINE)


@pytest.mark.long
def test_two_workers_share_one_sqlite_file(data, tmp_path):
    session = Session(tmp_path, data, 6)
    outputs = session.finish(workers=2)
    session.require_finished()
    counts = [len(re.findall(r"^Trial \d+: 0\.", output, re.MULTILINE)) for output in outputs]
    assert sum(counts) == 6
    assert min(counts) > 0
    assert sum("Best of 6 trials" in output for output in outputs) == 1


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """The address of a PostgreSQL server of this test's own; skips by name where none is installed."""
    places = [str(folder) for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    path = os.pathsep.join([*places, os.environ.get("PATH", "")])
    initdb, server = (shutil.which(name, path=path) for name in ("initdb", "postgres"))
    if not initdb or not server:
        pytest.skip("no PostgreSQL server on this machine")
    names = {entry.pw_name for entry in pwd.getpwall()}
    # The server refuses to run as root.
    user = next(name for name in ("postgres", "nobody") if name in names) if os.geteuid() == 0 else None
    # Not in pytest's folder, which others cannot enter.
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    password = folder / "password"
    password.write_text(PASSWORD)
    if user:
        for path in (folder, password):
            shutil.chown(path, user)
    options = {"user": user, "cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    words = [
        initdb,
        "--pgdata=data",
        "--username=me",
        "--auth=scram-sha-256",
        f"--pwfile={password}",
        "--no-sync",
    ]
    subprocess.run(words, check=True, **options)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [server, "-D", "data", "-p", str(port), "-k", str(folder), "-c", "listen_addresses=127.0.0.1"]
    process = subprocess.Popen(words, **options)
    try:
        wait_until(lambda: answers(port), "the server does not answer", seconds=60)
        yield f"postgresql://me:{PASSWORD}@127.0.0.1:{port}/postgres"
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()
        shutil.rmtree(folder)


PASSWORD = "p-of-a-test"


def answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_a_wrong_password_or_database_is_one_sentence(postgres, tmp_path):
    def said(url: str) -> str:
        with pytest.raises(NerveError) as caught:
            parse_place(url, tmp_path).open()
        assert PASSWORD not in str(caught.value)
        assert str(caught.value).endswith(
            "): check that the server runs, and the address, user, password and database in --storage."
        )
        return str(caught.value)

    assert "wrong" not in said(postgres.replace(PASSWORD, "wrong-one"))
    assert "password authentication failed" in said(postgres.replace(PASSWORD, "other"))
    assert 'database "missing" does not exist' in said(postgres.removesuffix("/postgres") + "/missing")


@pytest.mark.long
def test_two_workers_share_a_postgresql_server(postgres, data, tmp_path):
    session = Session(tmp_path, data, 6, f"--storage={postgres}")
    outputs = session.finish(workers=2)
    session.require_finished(postgres)
    counts = [len(re.findall(r"^Trial \d+: 0\.", output, re.MULTILINE)) for output in outputs]
    assert (sum(counts), min(counts) > 0) == (6, True)
    assert not list(session.search.glob("trials.*"))
    for path in (
        *session.search.rglob("*.json"),
        *session.search.rglob("*.toml"),
        session.search / "report.html",
    ):
        assert PASSWORD not in path.read_text(encoding="utf-8")
    assert PASSWORD not in "".join(outputs)


def test_workers_without_a_common_folder_share_a_postgresql_server(postgres, tmp_path):
    """Two in threads, with runs folders of their own, as on two machines: never more trials than wanted."""
    folders = [tmp_path / name / "apart" for name in ("one", "two")]
    trainer = [FakeTrainer(), FakeTrainer()]
    workers = [Worker(study(folder, postgres), one) for folder, one in zip(folders, trainer, strict=True)]
    threads = [threading.Thread(target=worker.run, args=(8,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    done = claims.counted(study(folders[0], postgres).trials())
    assert [trial.state.name for trial in done] == ["COMPLETE"] * 8
    assert sorted(trainer[0].trained + trainer[1].trained) == sorted(map(claims.run_name, done))
    assert min(len(one.trained) for one in trainer) > 0
