"""Folds on real Ray clusters of this machine: nodes with addresses, folders and caches of their own."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from cluster_support import cluster
from processes import wait_until
from support import write_competition
from training_support import FAST, history

from kaggle_nerve.cluster.mirror import visible_files
from kaggle_nerve.prediction.stored import open_oof
from kaggle_nerve.runs import open_run
from kaggle_nerve.settings import load_preset
from kaggle_nerve.storage import read_completion

CHANGES = [word for change in FAST for word in ("--set", change)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_competition(root, subjects=4, frames=8, test=3)
    return root


@pytest.fixture
def nodes():
    with cluster() as members:
        yield members


@pytest.fixture(scope="module")
def pair():
    """A cluster of two nodes with a core each."""
    with cluster() as members:
        members.start("head", "--num-cpus=1")
        members.start("second", "--num-cpus=1")
        yield members


def train(folder: Path, data: Path | str, address: str, *words: str, **options) -> subprocess.Popen[str]:
    """Start ``train-folds`` on the cluster at ``address``, in ``folder``; its standard error goes to log.txt."""
    command = [sys.executable, "-m", "kaggle_nerve", "train-folds", "--preset", "tiny", *CHANGES]
    with (folder / "log.txt").open("w") as log:
        return subprocess.Popen(
            [*command, "--data", str(data), "--run", "run", "--cluster", address, *words],
            cwd=folder,
            env={**os.environ, "RAY_AUTH_MODE": "disabled", **options.pop("variables", {})},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
            **options,
        )


def finish(process: subprocess.Popen[str], folder: Path, code: int = 0) -> str:
    """Wait for `train`; return what it printed on standard output."""
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == code, (folder / "log.txt").read_text()
    return printed


def refusal(folder: Path, address: str, *words: str, **options) -> str:
    """The sentence with which `train` ends, before it makes a run."""
    write_competition(folder / "data", subjects=2, frames=2, test=1)
    finish(train(folder, "data", address, *words, **options), folder, code=1)
    assert not (folder / "runs").exists()
    lines = (folder / "log.txt").read_text().splitlines()
    assert "Traceback" not in "".join(lines)
    return lines[-1]


def layout(folder: Path) -> set[str]:
    """The files of a run; those of TensorBoard without the time and host in their names."""
    names = {path.relative_to(folder).as_posix() for path in visible_files(folder)}
    return {re.sub(r"tfevents\..*", "tfevents", name) for name in names}


def epoch(folder: Path, fold: int) -> int:
    """The last epoch in the checkpoint of a fold, which may change meanwhile."""
    try:
        return json.loads(
            (folder / "runs" / "run" / f"fold-{fold}" / "checkpoint" / "state.json").read_text()
        )["epoch"]
    except OSError:
        return 0


def test_nodes_that_share_no_folder_leave_what_one_machine_leaves(data, pair, tmp_path):
    # By this path only the driver sees the data, so each node is sent a copy.
    descriptor = os.open(data, os.O_RDONLY)
    hidden = f"/proc/self/fd/{descriptor}"
    variables = {"KAGGLE_NERVE_CACHE": str(tmp_path / "cache")}
    process = train(tmp_path, hidden, pair.address, "--json", pass_fds=[descriptor], variables=variables)
    os.close(descriptor)
    results = json.loads(finish(process, tmp_path))  # nothing else is on standard output
    lines = (tmp_path / "log.txt").read_text().splitlines()
    for ip in ("127.0.0.2", "127.0.0.3"):
        assert any(re.fullmatch(rf"Fold \d is on node {ip}\.", line) for line in lines)
        assert any(
            re.fullmatch(rf"Fold \d: node {ip} gets a copy of the data, .* MB\.", line) for line in lines
        )
    for name in ("head", "second"):
        copies = list((pair.folder / name / "cache").glob("data-*"))
        assert [read_completion(copy) is not None for copy in copies] == [True]
    assert [(fold["fold"], fold["finished"], fold["epochs"]) for fold in results["folds"]] == [
        (0, True, 4),
        (1, True, 4),
    ]
    assert not list(pair.folder.glob("*/kaggle-nerve-fold-*"))

    command = [
        sys.executable,
        "-m",
        "kaggle_nerve",
        "train-folds",
        "--preset",
        "tiny",
        *CHANGES,
        "--run",
        "local",
    ]
    subprocess.run(
        [*command, "--jobs", "2", "--data", str(data)], cwd=tmp_path, check=True, capture_output=True
    )
    remote, local = (open_run(tmp_path / "runs", name) for name in ("run", "local"))
    assert layout(remote.folder) == layout(local.folder)
    assert remote.folds_csv.read_bytes() == local.folds_csv.read_bytes()
    assert remote.session()["source"] == local.session()["source"]
    assert remote.session()["devices"] == ["127.0.0.2 (1 core)", "127.0.0.3 (1 core)"]
    assert len(open_oof(remote).table) == 4 * 8
    for number in (0, 1):
        # The same frames and seeds; sums in another number of threads differ in their last digits.
        losses = [[float(row["loss"]) for row in history(run.fold(number).folder)] for run in (remote, local)]
        assert losses[0] == pytest.approx(losses[1], rel=0.01)
        assert remote.fold(number).result().finished


@pytest.mark.long
def test_a_fold_whose_node_is_killed_goes_on_elsewhere_after_its_last_epoch(data, nodes, tmp_path):
    nodes.start("head", "--num-cpus=1")
    second = nodes.start("second", "--num-cpus=1")
    words = ("--set", "training.epochs=40", "--set", "training.collapse_epochs=10000")
    process = train(tmp_path, data, nodes.address, *words)
    log = tmp_path / "log.txt"

    def fold_there() -> int | None:
        match = re.search(rf"^Fold (\d) is on node {second}\.", log.read_text(), re.MULTILINE)
        return int(match[1]) if match else None

    def is_under_way() -> bool:
        assert process.poll() is None, log.read_text()
        return fold_there() is not None and epoch(tmp_path, fold_there()) >= 3

    wait_until(is_under_way, log.read_text, seconds=240)
    moved = fold_there()
    nodes.kill("second")
    finish(process, tmp_path)
    lines = log.read_text().splitlines()
    lost = [
        line
        for line in lines
        if line.startswith(f"Fold {moved} lost node {second}, and goes on after epoch ")
    ]
    kept = int(re.search(r"epoch (\d+)", lost[0])[1])
    assert len(lost) == 1
    assert kept >= 3
    assert any(line.startswith(f"Fold {moved}, going on after epoch {kept}: ") for line in lines)
    assert "raylet" not in log.read_text()
    run = open_run(tmp_path / "runs", "run")
    for number in (0, 1):
        rows = history(run.fold(number).folder)
        assert [int(row["epoch"]) for row in rows] == [*range(1, 41)]
        # Nothing was trained twice from the start: the moved fold's learning rates are the other one's.
        assert [row["learning_rate"] for row in rows] == [
            row["learning_rate"] for row in history(run.fold(0).folder)
        ]


@pytest.mark.long
def test_ctrl_c_finishes_the_epochs_and_the_same_command_goes_on(data, pair, tmp_path):
    process = train(tmp_path, data, pair.client, "--set", "training.epochs=40", "--folds", "3")
    log = tmp_path / "log.txt"

    def is_under_way() -> bool:
        assert process.poll() is None, log.read_text()
        return sum(epoch(tmp_path, fold) >= 2 for fold in range(3)) == 2

    wait_until(is_under_way, log.read_text, seconds=240)
    os.killpg(process.pid, signal.SIGINT)
    finish(process, tmp_path, code=130)
    epochs = [epoch(tmp_path, fold) for fold in range(3)]
    assert sorted(epochs)[0] == 0  # the third fold was waiting
    # A time budget holds, too: the whole is done, with fewer epochs than planned.
    finish(
        train(
            tmp_path,
            data,
            pair.client,
            *("--set", "training.epochs=40", "--folds", "3"),
            "--time-budget",
            "60s",
        ),
        tmp_path,
    )
    run = open_run(tmp_path / "runs", "run")
    assert all(fold.facts() for fold in run.begun_folds())
    for fold, before in enumerate(epochs):
        rows = history(run.fold(fold).folder)
        assert [int(row["epoch"]) for row in rows] == [*range(1, len(rows) + 1)]
        assert len(rows) > before


@pytest.mark.large
def test_five_folds_of_tiny_on_the_phantom_are_within_noise_of_one_machines(pair, tmp_path):
    from kaggle_nerve import pipeline
    from kaggle_nerve.phantom.writer import write_competition as write_phantom
    from kaggle_nerve.training.run_folds import train_folds

    write_phantom(tmp_path / "data", subjects=12, frames=40, test_subjects=1)
    command = [
        "train-folds",
        "--preset",
        "tiny",
        "--folds",
        "5",
        "--data",
        "data",
        "--set",
        "training.epochs=4",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "kaggle_nerve", *command, "--run", "remote", "--cluster", pair.address],
        cwd=tmp_path,
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for ip in ("127.0.0.2", "127.0.0.3"):
        assert f"is on node {ip}." in done.stderr
    chosen = load_preset("tiny", ("folds=5", "training.epochs=4"))
    local, _ = train_folds(tmp_path / "data", tmp_path / "runs", "local", chosen, jobs=2)
    remote = open_run(tmp_path / "runs", "remote")
    assert layout(remote.folder) == layout(local.folder)
    figures = [pipeline.learn_decision([run], tmp_path / "data").figures for run in (remote, local)]
    assert figures[0].low < figures[1].dice < figures[0].high
    assert figures[0].frames == figures[1].frames
    best = [[fold.require_facts().best_dice for fold in run.finished_folds()] for run in (remote, local)]
    assert best[0] == pytest.approx(best[1], abs=0.05)


@pytest.mark.long
def test_a_node_with_another_version_is_named(nodes, tmp_path):
    package = tmp_path / "other" / "kaggle_nerve"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text('__version__ = "0.0.1"\n')
    nodes.start("head", "--num-cpus=1", PYTHONPATH=str(package.parent))
    sentence = refusal(tmp_path, nodes.address)
    assert re.fullmatch(
        r"Error: Node 127\.0\.0\.2 has kaggle-nerve 0\.0\.1, and this machine \S+: install the same on both\.",
        sentence,
    )


@pytest.mark.long
def test_a_node_without_the_package_is_named(nodes, tmp_path):
    # Another environment that sees the same packages, but not the editable one.
    venv.create(tmp_path / "venv")
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (site / "others.pth").write_text(str(Path(pytest.__file__).parents[1]))
    nodes.start("head", "--num-cpus=1", python=str(tmp_path / "venv" / "bin" / "python"), PYTHONPATH="")
    sentence = refusal(tmp_path, nodes.address)
    assert sentence.startswith(
        "Error: Node 127.0.0.2 cannot import kaggle_nerve (ModuleNotFoundError: No module named 'kaggle_nerve'): "
    )


@pytest.mark.long
def test_gpus_that_are_not_there_are_named(nodes, tmp_path):
    nodes.start("head", "--num-cpus=1", "--num-gpus=1")
    assert refusal(tmp_path, nodes.address).startswith(
        "Error: Ray gives node 127.0.0.2 1 GPU, but tensorflow sees none there: install it for GPUs, and their"
    )
    assert refusal(tmp_path, nodes.address, "--gpus-per-fold", "2").startswith(
        "Error: Ray gives node 127.0.0.2"
    )


@pytest.mark.long
def test_a_cluster_that_asks_for_a_token_says_so(nodes, tmp_path):
    variables = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 64}
    nodes.start("head", "--num-cpus=1", **variables)
    assert "asks for a token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN" in refusal(tmp_path, nodes.address)
    assert refusal(tmp_path, nodes.address, "--gpus-per-fold", "1", variables=variables).startswith(
        "Error: No node of the cluster has 1 GPU and 1 core for a fold (127.0.0.2: 1 core, 0 GPUs): choose"
    )


@pytest.mark.long
def test_what_answers_and_is_no_cluster_is_said(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        assert refusal(tmp_path, address).startswith(
            f"Error: What answers at --cluster {address} is not the head of a Ray cluster of this version: name the"
        )
