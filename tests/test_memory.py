"""Too little memory: whatever it looks like, a sentence with what to make smaller, and the other folds go on."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_support import command
from support import write_competition
from training_support import FAST, settings

from kaggle_nerve.prediction import forward
from kaggle_nerve.training import fold, worker_process
from kaggle_nerve.training.run_folds import FoldsError, train_folds

WORDS = ["train-folds", "--preset", "tiny", "--data", "data", "--run", "run"]
for change in (*FAST, "folds=5"):
    WORDS += ["--set", change]

SMALLER = (
    "at training.batch=4 and size=[45,62]; train it as another run with --set training.batch=2, a smaller size or a "
    "smaller model.width"
)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """A folder with data."""
    folder = tmp_path_factory.mktemp("data")
    write_competition(folder / "data", subjects=5, frames=2, test=1)
    return folder


DYING = """
import json, os, signal, sys
fold = json.loads(sys.stdin.buffer.readline())["fold"]
if fold == 0:
    os.kill(os.getpid(), signal.SIGSEGV)
if fold == 1:
    print("terminate called after throwing an instance of 'std::bad_alloc'", file=sys.stderr)
    os.abort()
if fold == 2:
    print(json.dumps({"event": "crashed", "text": "ResourceExhaustedError: Graph execution error:"}), flush=True)
    sys.exit(1)
if fold == 3:
    os.kill(os.getpid(), signal.SIGTERM)
print(json.dumps({"event": "result"}), flush=True)
"""
"""A worker that dies in four ways, and ends well for fold 4."""


def test_folds_trained_one_by_one_that_die_are_told_and_the_others_have_their_turn(
    data, tmp_path, monkeypatch
):
    monkeypatch.setattr(worker_process, "COMMAND", [sys.executable, "-c", DYING])
    done = command(data, *WORDS, "--runs", tmp_path, code=1)
    logs = [tmp_path / "run" / f"fold-{number}" / "worker.log" for number in range(5)]
    assert done.stderr.partition("Error: ")[2].splitlines() == [
        f"Fold 0 crashed (SIGSEGV), most likely for lack of memory, {SMALLER}; its log: {logs[0]}",
        f"Fold 1 ran out of memory {SMALLER}.",
        f"Fold 2 ran out of memory {SMALLER}.",
        f"Fold 3 ended with SIGTERM; its log: {logs[3]}",
        "Finished folds are kept; the same command tries the others again.",
    ]
    assert done.stdout.startswith("Fold 4 ")
    done = command(data, *WORDS, "--runs", tmp_path, "--fold", "0", code=1)
    assert done.stderr.splitlines()[-1].startswith(
        "Error: Fold 0 crashed (SIGSEGV), most likely for lack of memory"
    )


FULL = """
import errno, sys
from kaggle_nerve.training import worker
def train(*_):
    raise OSError(errno.ENOSPC, "No space left on device", "a.keras")
worker._train = train
sys.exit(worker.main())
"""


def test_a_worker_whose_disk_is_full_says_so(data, tmp_path, monkeypatch):
    monkeypatch.setattr(worker_process, "COMMAND", [sys.executable, "-c", FULL])
    done = command(data, *WORDS, "--runs", tmp_path, code=1)
    assert done.stderr.partition("Error: ")[2].splitlines()[0] == (
        "Fold 0: The disk is full while writing a.keras; free some space and run the same command again."
    )


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}))
from kaggle_nerve.training.worker import main
sys.exit(main())
"""


@pytest.mark.long
@pytest.mark.one_backend
@pytest.mark.parametrize("onednn", ["0", "1"])
def test_a_network_that_is_too_large_for_the_memory_ends_with_one_sentence(
    data, tmp_path, monkeypatch, onednn
):
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", onednn)
    monkeypatch.setattr(worker_process, "COMMAND", [sys.executable, "-c", LIMITED.format(limit=6 << 30)])
    large = ["size=[420,580]", "training.batch=64", "model.width=1024", "model.depth=3"]
    words = [word for change in large for word in ("--set", change)]
    done = command(data, *WORDS, *words, "--runs", tmp_path, "--fold", "0", code=1)
    told = done.stderr.splitlines()[-1]
    assert told.startswith("Error: Fold 0 ")
    assert "memory" in told
    assert (
        "at training.batch=64 and size=[420,580]; train it as another run with --set training.batch=32, "
        in told
    )


class XlaRuntimeError(RuntimeError):
    """As JAX raises."""


class ResourceExhaustedError(Exception):
    """As TensorFlow raises."""


FAULTS = [
    MemoryError(),
    MemoryError("std::bad_alloc"),
    OSError(12, "Cannot allocate memory"),
    ResourceExhaustedError("OOM when allocating tensor with shape[64,1024,420,580]"),
    XlaRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes."),
    RuntimeError("CUDA_ERROR_OUT_OF_MEMORY: out of memory"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=repr)
def test_memory_that_ends_within_a_fold_is_a_sentence_for_programs_too(data, tmp_path, monkeypatch, fault):
    def train(job):
        if job.fold.number == 0:
            raise fault

    monkeypatch.setattr(fold, "_train", train)
    with pytest.raises(FoldsError) as caught:
        train_folds(data / "data", tmp_path, "run", settings())
    assert str(caught.value) == f"Fold 0 ran out of memory {SMALLER}."
    assert [result.fold for result in caught.value.results] == [1]


def test_other_faults_are_no_lack_of_memory(data, tmp_path, monkeypatch):
    def train(job):
        raise ValueError("shapes do not match")

    monkeypatch.setattr(fold, "_train", train)
    with pytest.raises(ValueError, match="shapes do not match"):
        train_folds(data / "data", tmp_path, "run", settings())


class Small:
    """A model with memory for ``room`` frames."""

    def __init__(self, room: int):
        self.room, self.sizes = room, []

    def predict_on_batch(self, chunk: np.ndarray) -> dict[str, np.ndarray]:
        self.sizes.append(len(chunk))
        if len(chunk) > self.room:
            raise MemoryError
        return {"mask": chunk / 255}


def test_prediction_halves_its_batch_until_memory_suffices_and_remembers(monkeypatch):
    frames = np.random.default_rng(0).integers(0, 255, (11, 3, 4), np.uint8)
    large, small = Small(8), Small(2)
    outputs = [forward.probabilities(model, frames, batch=8, tta="none") for model in (large, small)]
    for one, other in zip(*outputs, strict=True):
        assert np.array_equal(one.masks, other.masks)
    assert large.sizes == [8, 8]
    assert small.sizes == [8, 4, *[2] * 6]
    with pytest.raises(MemoryError):
        next(forward.probabilities(Small(0), frames, batch=8, tta="none"))


def test_a_command_without_enough_memory_says_so(data, monkeypatch):
    def exhausted(*_, **__):
        raise ResourceExhaustedError("OOM when allocating tensor")

    monkeypatch.setattr("kaggle_nerve.runs.open_run", exhausted)
    done = command(data, "predict", "--run", "run", "--data", "data", code=1)
    assert done.stderr.splitlines()[-1] == (
        "Error: The machine's memory, or its accelerator's, does not suffice for this command: end other programs that "
        "use it, or run the same command on a machine with more; what is finished is kept."
    )


DIES = """
import os, sys
from kaggle_nerve.cli import main, submit
number = int(sys.argv[1])
submit.validate.callback = lambda **options: os.kill(os.getpid(), number)
sys.argv = ["kaggle-nerve", "validate", "x.csv"]
main()
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_command_that_dies_by_a_signal_has_a_word_after_all(tmp_path, number):
    (tmp_path / "x.csv").touch()
    done = subprocess.run(
        [sys.executable, "-c", DIES, str(int(number))], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == -number
    assert done.stderr == (
        "Error: kaggle-nerve validate was ended by a signal; if you did not end it: The machine's memory, or its "
        "accelerator's, does not suffice for this command: end other programs that use it, or run the same command on "
        "a machine with more; what is finished is kept.\n"
    )


def test_a_command_that_ends_by_itself_has_no_such_word(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "kaggle_nerve", "validate", "x"], capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "signal" not in done.stderr
