"""What a cluster needs besides Ray: copies of folders, the data's way, shares of nodes, orders, addresses."""

import dataclasses
import json
import os
import shutil
import socket
import sys
import threading
from pathlib import Path

import pytest
from support import write_competition
from training_support import settings

from kaggle_nerve import __version__, runs
from kaggle_nerve.cluster import connection, data, mirror, node, nodes
from kaggle_nerve.cluster.mirror import Change, Mirror, Update
from kaggle_nerve.cluster.nodes import Node, Share, choose_share
from kaggle_nerve.cluster.order import files_of, fixed_files_of
from kaggle_nerve.data.cache import training_source
from kaggle_nerve.data.frames import locate
from kaggle_nerve.errors import NerveError
from kaggle_nerve.runs import Run
from kaggle_nerve.storage import atomic_path, digest_bytes, mark_complete, write_json, write_text


def content(folder: Path) -> dict[str, bytes]:
    """The visible files of a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in mirror.visible_files(folder)}


@pytest.fixture
def pair(tmp_path):
    """A folder, a mirror of it, and the folder to copy it to."""
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    write_text(source / "history.csv", "epoch\n")
    write_text(target / "history.csv", "epoch\n")
    return source, Mirror(source), target


def save_epoch(folder: Path, epoch: int) -> None:
    """Write what `Checkpoint.save` writes, in its order."""
    with atomic_path(folder / "checkpoint" / f"epoch-{epoch:05d}.keras") as path:
        path.write_bytes(bytes([epoch]) * 100)
    write_json(folder / "checkpoint" / "state.json", {"epoch": epoch})
    for old in (folder / "checkpoint").glob("epoch-*"):
        if old.name != f"epoch-{epoch:05d}.keras":
            old.unlink()


def test_a_mirror_brings_changed_files_pointers_last_and_removes_old_ones(pair):
    source, copy, target = pair
    assert copy.update() == Update([], [])  # what was there before is known
    save_epoch(source, 1)
    (source / ".lock").touch()
    update = copy.update()
    assert [change.path for change in update.changes] == [
        "checkpoint/epoch-00001.keras",
        "checkpoint/state.json",
    ]
    mirror.apply(update, target)
    save_epoch(source, 2)
    mark_complete(source, {"epochs": 2})
    update = copy.update()
    assert [change.path for change in update.changes] == [
        "checkpoint/epoch-00002.keras",
        "checkpoint/state.json",
        "complete.json",
    ]
    assert update.removed == ["checkpoint/epoch-00001.keras"]
    mirror.apply(update, target)
    assert content(target) == content(source)
    for path in (source / "checkpoint").iterdir():
        path.unlink()
    (source / "checkpoint").rmdir()
    mirror.apply(copy.update(), target)
    assert sorted(path.name for path in target.iterdir()) == ["complete.json", "history.csv"]


def test_a_log_is_brought_by_its_new_end_and_other_files_as_a_whole(pair):
    source, copy, target = pair
    log, events = source / "worker.log", source / "tensorboard" / "events.out.tfevents.1.vm"
    events.parent.mkdir()
    log.write_bytes(b"one\n")
    events.write_bytes(b"\0" * 10)
    mirror.apply(copy.update(), target)
    with log.open("ab") as file:
        file.write(b"two\n")
    with events.open("ab") as file:
        file.write(b"\1" * 3)
    # The same file with more in it, as a file system may present one that was replaced.
    with (source / "history.csv").open("r+") as file:
        file.write("another\n")
    update = copy.update()
    assert {change.path: (change.offset, change.data) for change in update.changes} == {
        "worker.log": (4, b"two\n"),
        "tensorboard/events.out.tfevents.1.vm": (10, b"\1" * 3),
        "history.csv": (0, b"another\n"),
    }
    mirror.apply(update, target)
    mirror.apply(update, target)  # once more: nothing is doubled
    assert content(target) == content(source)
    log.write_bytes(b"new\n")  # a worker begins its log anew
    assert copy.update().changes == [Change("worker.log", 0, b"new\n")]


def test_a_checkpoint_that_changes_while_it_is_read_is_read_again(pair, monkeypatch):
    source, copy, target = pair
    save_epoch(source, 1)
    read, left = Path.read_bytes, [2]

    def read_and_save(path: Path) -> bytes:
        """Save an epoch after the first look at the pointer, and another one after the second."""
        value = read(path)
        if path.name == "state.json" and left[0]:
            left[0] -= 1
            save_epoch(source, 4 - left[0])
        return value

    monkeypatch.setattr(Path, "read_bytes", read_and_save)
    mirror.apply(copy.update(), target)
    monkeypatch.undo()
    assert json.loads((target / "checkpoint" / "state.json").read_text()) == {"epoch": 4}
    assert content(target) == content(source)


def test_a_folder_that_vanishes_while_it_is_looked_at_is_no_fault(pair, monkeypatch):
    source, copy, _ = pair
    save_epoch(source, 1)
    listed, removed = mirror.visible_files, []

    def list_and_remove(folder: Path) -> list[Path]:
        files = listed(folder)
        if not removed:
            removed.append(shutil.rmtree(source / "checkpoint"))
        return files

    monkeypatch.setattr(mirror, "visible_files", list_and_remove)
    assert copy.update() == Update([], [])


def test_what_a_kill_left_of_a_file_is_removed(pair):
    _, _, target = pair
    save_epoch(target, 1)
    for name in (".x1.epoch-00002.keras", ".lock"):
        (target / "checkpoint" / name).touch()
    mirror.remove_temporary(target)
    assert sorted(path.name for path in (target / "checkpoint").iterdir()) == [
        ".lock",
        "epoch-00001.keras",
        "state.json",
    ]


def test_every_copy_of_a_busy_folder_is_a_checkpoint_that_can_be_read(pair):
    source, copy, target = pair
    save_epoch(source, 1)
    writer = threading.Thread(target=lambda: [save_epoch(source, 1 + number % 90) for number in range(400)])
    writer.start()
    copies = 0
    while writer.is_alive():
        mirror.apply(copy.update(), target)
        if (target / "checkpoint").is_dir():
            copies += 1
            epoch = json.loads((target / "checkpoint" / "state.json").read_text())["epoch"]
            assert (target / "checkpoint" / f"epoch-{epoch:05d}.keras").read_bytes() == bytes([epoch]) * 100
    assert copies


@pytest.fixture
def competition(tmp_path):
    write_competition(tmp_path / "data", subjects=2, frames=3, test=1)
    return tmp_path / "data"


def test_data_that_a_node_sees_are_recognised_by_their_source(competition, tmp_path):
    source = training_source(locate(competition))
    assert data.sees(competition, source)
    assert not data.sees(competition, "another")
    assert not data.sees(tmp_path / "nowhere", source)


def test_data_arrive_whole_once_and_are_the_same_data(competition, tmp_path, monkeypatch):
    monkeypatch.setattr(data, "PART", 200_000)
    monkeypatch.setenv("KAGGLE_NERVE_CACHE", str(tmp_path / "cache"))
    stored = []
    shipment = data.Shipment(competition, lambda part: stored.append(part) or len(stored) - 1)
    manifest = shipment.manifest()
    assert [file.name for file in manifest.files] == [
        "train_masks.csv",
        *(f"train/{subject}_{img}.tif" for subject in (1, 2) for img in (1, 2, 3)),
    ]
    assert not data.has_copy(manifest.digest)
    assert shipment.parts() == shipment.parts() == [*range(len(stored))]
    assert len(stored) > 1
    data.receive(manifest, iter(stored))
    copy = data.copy_folder(manifest.digest)
    assert data.has_copy(manifest.digest)
    assert copy.parent == tmp_path / "cache"
    # The same source, and the same times: on this machine the caches are the same, too.
    assert training_source(locate(copy)) == training_source(locate(competition))
    frame, other = copy / "train" / "2_3.tif", competition / "train" / "2_3.tif"
    assert frame.read_bytes() == other.read_bytes()
    assert frame.stat().st_mtime_ns == other.stat().st_mtime_ns
    data.receive(manifest, iter([]))  # nothing is fetched again


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda parts: [[(parts[0][0][0], b"x"), *parts[0][1:]]],
            "train_masks.csv was changed while it was sent; run",
        ),
        (lambda parts: [parts[0][:-1]], "train/2_3.tif was not sent; run the same command again."),
    ],
)
def test_data_that_arrive_damaged_are_not_used(competition, tmp_path, monkeypatch, change, sentence):
    monkeypatch.setenv("KAGGLE_NERVE_CACHE", str(tmp_path / "cache"))
    shipment = data.Shipment(competition, lambda part: part)
    manifest = shipment.manifest()
    with pytest.raises(NerveError, match=sentence):
        data.receive(manifest, iter(change(shipment.parts())))
    assert not data.has_copy(manifest.digest)
    data.receive(manifest, iter(shipment.parts()))
    assert data.has_copy(manifest.digest)


def cluster_of(*sizes: tuple[float, float]) -> list[Node]:
    """Nodes of so many (cores, GPUs)."""
    return [Node(f"{number:x}", f"10.0.0.{number}", *size) for number, size in enumerate(sizes, 1)]


@pytest.mark.parametrize(
    ("sizes", "folds", "choice", "share", "room"),
    [
        # One GPU a fold where there are some; the node without one gets none.
        ([(16, 4), (8, 0)], 6, {}, Share(4, 1.0), 4),
        ([(16, 4), (4, 4)], 6, {}, Share(1, 1.0), 8),
        ([(16, 1)], 6, {"gpus_per_fold": 0.3}, Share(4, 0.3), 3),
        ([(32, 4)], 6, {"gpus_per_fold": 2}, Share(16, 2), 2),
        ([(32, 2)], 6, {"gpus_per_fold": 0.2}, Share(3, 0.2), 10),
        ([(32, 2)], 6, {"gpus_per_fold": 0.1}, Share(1, 0.1), 20),
        # Cores only: an even part of them.
        ([(16, 0), (8, 0)], 5, {}, Share(4, 0.0), 6),
        ([(2, 0)], 6, {}, Share(1, 0.0), 2),
        ([(16, 0)], 1, {}, Share(16, 0.0), 1),
        ([(16, 2)], 2, {"gpus_per_fold": 0}, Share(8, 0), 2),
        ([(16, 0), (6, 0)], 3, {"cpus_per_fold": 5}, Share(5, 0.0), 4),
    ],
)
def test_a_fold_gets_a_gpu_or_an_even_part_of_the_cores(sizes, folds, choice, share, room):
    members = cluster_of(*sizes)
    assert choose_share(members, folds, **choice) == share
    assert sum(map(share.fits, members)) == room


@pytest.mark.parametrize(
    ("sizes", "choice", "what"),
    [
        ([(16, 0)], {"gpus_per_fold": 1.0}, "1 GPU and 1 core "),
        ([(4, 1), (4, 1)], {"gpus_per_fold": 2.0}, "2 GPUs and 8 cores "),
        ([(4, 0)], {"cpus_per_fold": 8}, "8 cores "),
    ],
)
def test_a_share_that_no_node_has_is_refused(sizes, choice, what):
    with pytest.raises(NerveError, match=f"^No node of the cluster has {what}for a fold .10.0.0.1: "):
        choose_share(cluster_of(*sizes), 5, **choice)


SAME = {"kaggle_nerve": __version__, "keras": "3.15.1", "backends": ["tensorflow"]}


@pytest.mark.parametrize(
    ("versions", "sentence"),
    [
        (SAME, ""),
        (
            {"fault": "ModuleNotFoundError: No module named 'kaggle_nerve'"},
            "cannot import kaggle_nerve (ModuleNot",
        ),
        (
            {**SAME, "kaggle_nerve": "0.0.1"},
            f"has kaggle-nerve 0.0.1, and this machine {__version__}: install",
        ),
        ({**SAME, "keras": "3.13.0"}, "has Keras 3.13.0, and this machine 3.15.1: install the same on both."),
        (
            {**SAME, "backends": ["jax"]},
            "lacks the backend tensorflow: run `pip install tensorflow` there, or",
        ),
    ],
)
def test_a_node_that_would_train_otherwise_is_described(versions, sentence):
    fault = nodes._version_fault(versions, "tensorflow", "3.15.1")
    assert fault.startswith(sentence)
    assert bool(fault) == bool(sentence)


def test_a_node_gets_its_folds_files_and_those_that_the_settings_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    start = runs.create(tmp_path / "runs", "start", settings(), {}, "source")
    start.folds_csv.write_text("subject,fold\n1,1\n")
    for number in (0, 1):
        write_json(start.fold(number).folder / "complete.json", {})
        start.fold(number).model.write_bytes(b"model")
    Path("doubted.csv").write_text("x")
    chosen = settings("training.start=start", "training.noise=weight", "training.noise_table=doubted.csv")
    run = runs.create(tmp_path / "runs", "run", chosen, {}, "source")
    write_json(run.fold(0).folder / "complete.json", {"epochs": 3})
    run.fold(0).model.write_bytes(b"large")
    save_epoch(run.fold(1).folder, 3)
    run.fold(1).log.write_text("earlier")
    (run.fold(1).folder / ".lock").touch()
    assert sorted(files_of(run.fold(1))) == [
        "runs/run/environment.json",
        "runs/run/fold-0/complete.json",
        "runs/run/fold-1/checkpoint/epoch-00003.keras",
        "runs/run/fold-1/checkpoint/state.json",
        "runs/run/settings.toml",
        "runs/start/fold-1/complete.json",
        "runs/start/fold-1/model.keras",
        "runs/start/folds.csv",
        "runs/start/settings.toml",
        "work/doubted.csv",
    ]
    Path("start").mkdir()  # another folder of the run's name
    assert "runs/start/fold-1/model.keras" in files_of(run.fold(1))
    assert fixed_files_of(run.fold(1)) == {}
    absolute = tmp_path / "doubted.csv"

    def fixed(*changes: str) -> dict[str, str]:
        return fixed_files_of(Run(tmp_path / "runs" / "other", settings(*changes)).fold(0))

    assert fixed("training.noise=weight", f"training.noise_table={absolute}") == {
        str(absolute): digest_bytes(b"x")
    }
    node._require_files({str(absolute): digest_bytes(b"x")})
    with pytest.raises(
        NerveError, match=r"doubted.csv is missing or another file on that machine: name it by"
    ):
        node._require_files({str(absolute): digest_bytes(b"y")})
    above = f"../{tmp_path.name}/doubted.csv"
    for change in (f"training.start={tmp_path / 'runs' / 'start'}", f"training.start={above}"):
        with pytest.raises(
            NerveError, match="cannot be sent to a cluster: name it by a path below the current folder"
        ):
            fixed(change)
    # A fold that has begun needs no start.
    begun = Run(tmp_path / "runs" / "run", settings(f"training.start={tmp_path / 'runs' / 'start'}")).fold(1)
    assert fixed_files_of(begun) == {}


def test_a_run_to_start_from_is_sent_by_its_path_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    start = runs.create(tmp_path / "other", "start", settings(), {}, "source")
    write_json(start.fold(0).folder / "complete.json", {})
    run = runs.create(tmp_path / "runs", "run", settings("training.start=other/start"), {}, "source")
    assert "work/other/start/fold-0/complete.json" in files_of(run.fold(0))


@pytest.mark.parametrize("address", ["nonsense", "ray://", "host:port", "http://host:1", "a b:1"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(
        NerveError, match=r"is not an address of a cluster: write auto, local, ray://host:10001 or"
    ):
        connection._require_answer(address)


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nothing_answers_is_said_at_once(scheme):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"{scheme}127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(
            NerveError, match=f"^Nothing answers at --cluster {address} .*start its head with"
        ):
            connection._require_answer(address)


def test_versions_of_ray_that_differ_and_tokens_are_explained():
    fault = RuntimeError("Version mismatch: The cluster was started with:\n Ray: 1.0\n Python: 3.9")
    assert connection._explain("auto", fault).startswith(
        "The cluster at auto and this machine have different versions (Version mismatch: The cluster was started with: "
        "Ray: 1.0 Python: 3.9): install"
    )
    token = RuntimeError("RPC error: InvalidAuthToken: Authentication token is missing")
    assert "asks for a token: set RAY_AUTH_MODE=token" in connection._explain("host:1", token)
    assert "start one with `ray start --head`" in connection._explain("auto", ConnectionError("none"))


def test_without_ray_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(NerveError, match=r"run `pip install 'kaggle-nerve\[cluster\]'`"):
        connection.load_ray()


def test_scratch_folders_of_processes_that_were_killed_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    mine, orphan = (tmp_path / f"{node.SCRATCH}{pid}-abc" for pid in (os.getpid(), 2**22 + 1))
    mine.mkdir()
    (orphan / "runs").mkdir(parents=True)
    node._remove_orphans()
    assert [path.name for path in tmp_path.iterdir()] == [mine.name]


def test_a_manifest_is_that_of_its_names_and_contents():
    file = data.File("train/1_1.tif", 3, 5, "abc")
    manifest = data.Manifest([file])
    assert manifest.size == 3
    assert data.Manifest([dataclasses.replace(file, time=6)]).digest == manifest.digest
    assert data.Manifest([dataclasses.replace(file, name="train/1_2.tif")]).digest != manifest.digest
