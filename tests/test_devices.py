"""What computes: found without waking it, dealt to processes, and what precision suits it."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from kaggle_nerve import devices


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """Makes a machine: so many device files, and a Python that lists these devices."""

    def make(files: int, *listed: str, code: int = 0) -> Path:
        calls = tmp_path / "calls"
        python = tmp_path / "python"
        names = ", ".join(f'"{name}"' for name in listed)
        python.write_text(
            f"#!/bin/sh\necho x >> {calls}\necho a line of a driver\necho '[{names}]'\nexit {code}\n"
        )
        python.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(python))
        monkeypatch.setattr(devices, "_device_files", lambda: [Path(f"/dev/nvidia{n}") for n in range(files)])
        return calls

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    devices.visible_gpus.cache_clear()
    yield make
    devices.visible_gpus.cache_clear()


def test_without_a_driver_nobody_is_asked(machine):
    calls = machine(0, "gpu:0")
    assert devices.visible_gpus() == devices.multiple_gpus() == ()
    assert not calls.exists()


def test_gpus_are_those_that_the_backend_lists_and_it_is_asked_once(machine):
    calls = machine(2, "cpu:0", "gpu:0", "gpu:1")
    assert devices.visible_gpus() == devices.multiple_gpus() == ("gpu:0", "gpu:1")
    assert calls.read_text() == "x\n"


def test_one_gpu_is_not_several_and_costs_no_question(machine):
    calls = machine(1, "gpu:0")
    assert devices.multiple_gpus() == ()
    assert not calls.exists()
    assert devices.visible_gpus() == ("gpu:0",)


def test_a_backend_that_cannot_list_has_no_gpus(machine):
    machine(2, "gpu:0", "gpu:1", code=1)
    assert devices.visible_gpus() == ()


@pytest.mark.parametrize("hidden", ["", "-1", "-1,0,1"])
def test_hidden_gpus_are_not_asked_for(machine, monkeypatch, hidden):
    calls = machine(2, "gpu:0", "gpu:1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert devices.visible_gpus() == ()
    assert not calls.exists()


def test_each_process_gets_a_gpu_of_those_that_this_one_may_use(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert devices.environment_for(1, 2, gpus=2) == {"CUDA_VISIBLE_DEVICES": "1"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-ab12,-1,5")
    assert devices.environment_for(0, 2, gpus=2) == {"CUDA_VISIBLE_DEVICES": "3"}
    assert devices.environment_for(1, 2, gpus=2) == {"CUDA_VISIBLE_DEVICES": "GPU-ab12"}
    shared = devices.environment_for(2, 3, gpus=2)
    assert shared["CUDA_VISIBLE_DEVICES"] == "3"
    assert shared["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"


def test_processes_without_gpus_share_the_cores(monkeypatch):
    monkeypatch.setattr(devices, "cores", lambda: 7)
    assert set(devices.environment_for(0, 3, gpus=0).values()) == {"2"}
    assert set(devices.environment_for(0, 9, gpus=0).values()) == {"1"}
    assert devices.environment_for(0, 1, gpus=0) == {}


@pytest.mark.parametrize(
    ("kind", "capability", "precision"),
    [
        ("cpu", None, "float32"),
        ("gpu", (6, 1), "float32"),  # P100 has 6.0
        ("gpu", (7, 0), "mixed_float16"),
        ("gpu", (7, 5), "mixed_float16"),  # T4
        ("gpu", (8, 0), "mixed_bfloat16"),
        ("gpu", (12, 0), "mixed_bfloat16"),
        ("gpu", None, "float32"),
        ("tpu", None, "mixed_bfloat16"),
    ],
)
def test_precision_that_suits_a_device(kind, capability, precision):
    assert devices.precision_of(kind, capability) == precision


def test_this_machine():
    if all(name.startswith("cpu") for name in devices.names()):
        assert devices.preferred_precision() == "float32"
        assert devices.peak_memory() is None
    else:
        keras.ops.convert_to_numpy(keras.ops.ones(1000))
        assert devices.peak_memory() >= 4000


def test_flags_of_xla_are_added_once_and_to_those_that_are_there():
    first = devices.deterministic_environment({"XLA_FLAGS": "--mine=1"})
    assert first == {"XLA_FLAGS": f"--mine=1 {devices.DETERMINISTIC_XLA}"}
    assert devices.deterministic_environment(first) == first
    assert devices.deterministic_environment({}) == {"XLA_FLAGS": devices.DETERMINISTIC_XLA}


DETERMINISTIC = """
import os
from kaggle_nerve import devices
devices.make_deterministic()
if os.environ["KERAS_BACKEND"] == "jax":
    print(devices.DETERMINISTIC_XLA in os.environ["XLA_FLAGS"])
else:
    import tensorflow as tf
    try:
        tf.random.uniform([1])
    except RuntimeError as fault:  # what is deterministic does not draw without a seed
        print("determin" in str(fault))
"""


@pytest.mark.long
def test_the_backend_is_made_deterministic():
    environment = {**os.environ, "KERAS_BACKEND": keras.backend.backend()}
    told = subprocess.run(
        [sys.executable, "-c", DETERMINISTIC], env=environment, capture_output=True, text=True
    )
    assert told.stdout.strip() == "True", told.stderr


def test_memory_is_taken_as_needed_and_programs_are_kept_unless_the_user_says_otherwise(
    machine, monkeypatch, tmp_path
):
    names = [*devices.SHARED, devices.COMPILED, *devices.COMPILED_ALL]
    for name in names:
        # Set first, so that the test's end removes what is set here.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "true")
    machine(0)
    devices.prepare_environment()
    assert os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] == "true"
    assert os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] == "true"
    assert devices.COMPILED not in os.environ  # a processor compiles in seconds
    machine(1, "gpu:0")
    devices.prepare_environment()
    assert os.environ[devices.COMPILED] == str(tmp_path / "kaggle-nerve" / "compiled")
