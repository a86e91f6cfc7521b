"""Full disks, and drives that lack locks, maps or fsync, or fail: no death, no traceback, no wait without a word."""

import errno
import mmap
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from cli_support import command
from disk_support import refuse, small_disk
from support import write_competition
from training_support import FAST, Told

from kaggle_nerve import arrays, locks
from kaggle_nerve.arrays import GrowingArrays, open_array
from kaggle_nerve.disk import disk_sentence
from kaggle_nerve.errors import NerveError
from kaggle_nerve.locks import hold_lock, wait_for_lock
from kaggle_nerve.storage import write_text
from kaggle_nerve.training import run_folds

fcntl = pytest.importorskip("fcntl")

LACKS = [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL]
"""What file systems answer to a call that they do not have."""


class NoMaps(mmap.mmap):
    """Maps where the file system has none."""

    private = False

    def __new__(cls, descriptor: int, length: int, access: int = 0, **options):
        if descriptor == -1 or (cls.private and access == mmap.ACCESS_COPY):
            return super().__new__(cls, descriptor, length, access=access, **options)
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))


class PrivateMaps(NoMaps):
    """Maps where the file system has private ones only."""

    private = True


TRAIN = ["train-folds", "--preset", "tiny", "--run", "run", "--fold", "0"]
for change in (*FAST, "training.epochs=1"):
    TRAIN += ["--set", change]


@pytest.fixture(scope="module", autouse=True)
def _in_this_process():
    """Train in this process: a test's shims do not reach a worker's."""
    plain = run_folds.train_folds
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_folds, "train_folds", lambda *words, isolate, **options: plain(*words, **options))
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with data and a run of one finished fold."""
    folder = tmp_path_factory.mktemp("trained")
    write_competition(folder / "data", subjects=4, frames=4, test=2)
    command(folder, *TRAIN, "--data", "data")
    return folder


@pytest.fixture
def folder(trained, tmp_path) -> Path:
    """A copy of `trained`."""
    shutil.copytree(trained, tmp_path / "here")
    return tmp_path / "here"


def sentence(folder: Path, *words: str | Path) -> str:
    """The one line that a command says when it ends with 1."""
    return command(folder, *words, "--data", "data", code=1).stderr.splitlines()[-1]


def test_a_cache_that_does_not_fit_is_refused_with_sizes_before_anything_is_made(
    folder, tmp_path, monkeypatch
):
    with small_disk(tmp_path / "disk", 1 << 20, monkeypatch) as disk:
        monkeypatch.setenv("KAGGLE_NERVE_CACHE", str(disk / "c"))
        told = sentence(folder, *TRAIN[:3], "--run", "big", "--set", "size=[210,290]")
        cache = next((disk / "c").iterdir())
        assert told == (
            f"Error: {cache} needs 1.9 MB for frames at 210x290, and its disk has 1.0 MB free: free 900.2 kB, or set "
            "KAGGLE_NERVE_CACHE to a folder on another disk."
        )
        assert [path.name for path in cache.iterdir()] == [".lock"]
        assert not (folder / "runs" / "big").exists()


def test_predictions_that_do_not_fit_are_refused_and_what_is_there_is_kept(folder, tmp_path, monkeypatch):
    before = {path: path.read_bytes() for path in (folder / "runs").rglob("*") if path.is_file()}
    command(folder, "predict", "--run", "run", "--data", "data")  # the cache of the test frames
    shutil.rmtree(folder / "runs" / "run" / "test")
    with small_disk(tmp_path / "disk", 1 << 20, monkeypatch) as disk:
        shutil.copytree(folder / "runs", disk / "runs")
        if disk.is_mount():
            (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - (8 << 10)))
        for verb in ("predict", "submit"):
            told = sentence(folder, verb, "--run", "run", "--runs", disk / "runs")
            assert told.startswith(f"Error: {disk}/runs/run/test needs 1")
            assert " kB for the predictions of the test frames, and its disk" in told
        for path, content in before.items():
            assert (disk / path.relative_to(folder)).read_bytes() == content
        (disk / "filler").unlink(missing_ok=True)
        monkeypatch.undo()
        command(folder, "predict", "--run", "run", "--runs", disk / "runs", "--data", "data")


def test_a_training_whose_results_do_not_fit_is_refused_before_its_first_step(folder, monkeypatch):
    usage = shutil.disk_usage(folder)._replace(free=10_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    told = sentence(folder, *TRAIN[:4], "other", *TRAIN[5:])
    assert told == (
        "Error: runs/other needs 44.6 kB for the predictions of 1 folds, and its disk has 10.0 kB free: free 34.6 kB."
    )
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=50_000))
    told = sentence(folder, *TRAIN[:4], "other", *TRAIN[5:])
    assert told.startswith("Error: runs/other/fold-0 needs ")
    assert " kB for the checkpoints and predictions of fold 0, and its disk has 50.0 kB free: free " in told


def test_a_disk_that_fills_in_training_is_told_with_the_file(folder, monkeypatch):
    plain, calls = os.fsync, []

    def fail_in_the_first_epoch(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 8:
            refuse(errno.ENOSPC)()
        plain(descriptor)

    monkeypatch.setattr(os, "fsync", fail_in_the_first_epoch)
    told = sentence(folder, *TRAIN[:4], "other", *TRAIN[5:])
    file = told.removeprefix("Error: The disk is full while writing ").partition(";")[0]
    assert (
        told
        == f"Error: The disk is full while writing {file}; free some space and run the same command again."
    )
    assert Path(file).parts[:4] == ("runs", "other", "fold-0", "checkpoint")
    assert not (folder / file).exists()


DRIVE = "see that it is connected and sound, and run the same command again: what is finished is kept."
FULL = "The disk is full while writing runs/{}; free some space and run the same command again."
REFUSED = {
    errno.ENOSPC: FULL,
    errno.EDQUOT: FULL,
    errno.EIO: f"The drive of runs/{{}} fails (Input/output error); {DRIVE}",
    errno.ESTALE: f"The drive of runs/{{}} fails (Stale file handle); {DRIVE}",
    errno.EROFS: "runs/{}: Read-only file system; check the path and its rights.",
}


@pytest.mark.parametrize("code", REFUSED, ids=errno.errorcode.get)
def test_what_a_drive_refuses_is_told_with_the_file(folder, monkeypatch, code):
    monkeypatch.setattr(os, "fsync", refuse(code))
    told = sentence(folder, *TRAIN[:4], "other", *TRAIN[5:])
    assert told == f"Error: {REFUSED[code]}".format("other/settings.toml")


@pytest.mark.long
def test_a_drive_without_fsync_maps_and_locks_trains_and_predicts_as_any_other(trained, folder, monkeypatch):
    monkeypatch.setattr(mmap, "mmap", NoMaps)
    monkeypatch.setattr(os, "fsync", refuse(errno.EINVAL))
    monkeypatch.setattr(os, "posix_fallocate", refuse(errno.EOPNOTSUPP))
    monkeypatch.setattr(fcntl, "flock", refuse(errno.ENOLCK))
    shutil.rmtree(folder / "data" / ".cache")
    shutil.rmtree(folder / "runs")
    command(folder, *TRAIN, "--data", "data")
    command(folder, "submit", "--run", "run", "--data", "data", "--dry-run")
    table = "runs/run/fold-0/oof.csv"
    assert np.genfromtxt(folder / table, delimiter=",")[1:, 3] == pytest.approx(
        np.genfromtxt(trained / table, delimiter=",")[1:, 3], abs=1e-3
    )
    assert not list(folder.rglob("*.soft"))


@pytest.mark.parametrize("code", [*LACKS, errno.EIO], ids=errno.errorcode.get)
def test_a_soft_lock_excludes_and_is_told_with_its_file_and_owner(tmp_path, monkeypatch, code):
    monkeypatch.setattr(fcntl, "flock", refuse(code))
    with hold_lock(tmp_path / ".lock", "Another process works.", 0):
        with pytest.raises(NerveError) as caught, hold_lock(tmp_path / ".lock", "Another process works.", 0):
            pass
        assert str(caught.value).startswith("Another process works. If that is ")
        assert f"which no longer runs, delete {tmp_path / '.lock.soft'} and run the same" in str(caught.value)
    assert not list(tmp_path.iterdir())
    with hold_lock(tmp_path / ".lock", "", 0):
        pass


def test_a_soft_lock_of_another_machine_is_told_at_once_and_waited_for_in_the_cache_for_a_while(
    folder, monkeypatch
):
    monkeypatch.setattr(fcntl, "flock", refuse(errno.ENOLCK))
    left = folder / "runs" / "other" / "fold-0" / ".lock.soft"
    write_text(left, "4711\nanother-host\n")
    started = time.monotonic()
    told = sentence(folder, *TRAIN[:4], "other", *TRAIN[5:])
    assert time.monotonic() - started < 20
    assert told == (
        "Error: Another process trains fold 0 of run other; wait for it, or name another --fold. If that is process "
        "4711 on another-host which no longer runs, delete runs/other/fold-0/.lock.soft and run the same command again."
    )
    left.unlink()
    cache = next((folder / "data" / ".cache").iterdir())
    write_text(cache / ".lock.soft", "4711\nanother-host\n")
    monkeypatch.setattr(locks, "NOTICE_SECONDS", 0.1)
    monkeypatch.setattr(locks, "SOFT_PATIENCE", 0.1)
    done = command(folder, *TRAIN, "--data", "data", code=1)
    hint = f"If that is process 4711 on another-host which no longer runs, delete {cache / '.lock.soft'} and"
    hint = hint.replace(f"{folder}/", "")
    assert (
        f"Waiting for another process, which builds {hint.partition('delete ')[2].rpartition('/')[0]}. {hint}"
        in done.stderr
    )
    assert done.stderr.splitlines()[-1].startswith("Error: Another process builds data/.cache/")
    (cache / ".lock.soft").unlink()
    command(folder, *TRAIN, "--data", "data")


def test_a_process_that_waits_for_a_lock_says_so_and_then_gets_it(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "NOTICE_SECONDS", 0.1)
    holder = (
        "import sys, time; from pathlib import Path; from kaggle_nerve.locks import hold_lock\n"
        "with hold_lock(Path(sys.argv[1]), ''): print(flush=True); time.sleep(0.8)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(tmp_path / "lock")], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        process.stdout.readline()
        told = Told()
        with wait_for_lock(tmp_path / "lock", "builds a cache", told):
            pass
    assert told.lines == ["Waiting for another process, which builds a cache."]


@pytest.mark.parametrize("lacks", [refuse(errno.EOPNOTSUPP), refuse(errno.EINVAL), None])
def test_where_blocks_cannot_be_reserved_the_free_space_is_compared(tmp_path, monkeypatch, lacks):
    if lacks:
        monkeypatch.setattr(os, "posix_fallocate", lacks)
    else:
        monkeypatch.delattr(os, "posix_fallocate")
    shapes = {"first": ((5, 20_000), np.uint8), "second": ((5,), np.float32)}
    growing = GrowingArrays(tmp_path / "a", shapes, "key")
    growing.write(0, {"first": np.full((5, 20_000), 3), "second": np.arange(5)})
    growing.note(5)
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(
        NerveError, match=r"/b needs 100.0 kB for arrays, .* has 100 bytes free: free 99.9 kB\.$"
    ):
        GrowingArrays(tmp_path / "b", shapes, "key")
    assert not list((tmp_path / "b").iterdir())
    GrowingArrays(tmp_path / "a", shapes, "key").finish()  # its blocks are its own already
    assert np.load(tmp_path / "a" / "second.npy").tolist() == [0, 1, 2, 3, 4]


def test_a_quota_is_told_where_the_disk_itself_has_room(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "reserve_blocks", refuse(errno.EDQUOT))
    with pytest.raises(
        NerveError, match="needs 5 bytes for arrays, and its disk, or your quota there, does not have"
    ):
        GrowingArrays(tmp_path, {"a": ((5,), np.uint8)}, "key")


@pytest.mark.parametrize("private", [True, False])
def test_an_array_is_read_without_shared_maps(tmp_path, monkeypatch, private):
    np.save(tmp_path / "a.npy", np.arange(6).reshape(2, 3))
    monkeypatch.setattr(mmap, "mmap", PrivateMaps if private else NoMaps)
    array = open_array(tmp_path / "a.npy")
    assert array.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert not array.flags.writeable
    assert isinstance(array, np.memmap) == private


def test_a_damaged_cache_is_named(folder):
    frames = next((folder / "data" / ".cache").glob("*/frames.npy"))
    os.truncate(frames, 500)
    told = sentence(folder, "predict", "--run", "run@flips")
    assert told.startswith(f"Error: {frames.parent.relative_to(folder)} is damaged (")
    assert told.endswith("; delete it and run the same command again.")


def test_a_copy_that_fills_the_disk_names_its_target_and_other_faults_are_no_disks():
    full = OSError(errno.ENOSPC, "No space left on device", "from", None, "to")
    assert (
        disk_sentence(full)
        == "The disk is full while writing to; free some space and run the same command again."
    )
    many = OSError(errno.EMFILE, "Too many open files")
    assert (
        disk_sentence(many)
        == "Too many open files; allow more with `ulimit -n 4096` and run the same command again."
    )
    assert disk_sentence(OSError(errno.EPIPE, "Broken pipe")) is None
    assert disk_sentence(OSError("of a library's own")) is None
    assert disk_sentence(TimeoutError()) is None
