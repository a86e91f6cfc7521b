"""Keras that cannot be imported, and a user's keras.json: a sentence from every verb, and `doctor` answers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest
from cli_support import command

from kaggle_nerve.models import registry
from kaggle_nerve.settings import load_preset, save_settings

WITHOUT_JAX = "raise ModuleNotFoundError(\"No module named 'jax'\", name='jax')\n"
CHOICE = "set KERAS_BACKEND to tensorflow or jax, and run the same command again."
CASES = {
    "no jax": ("jax", None, "The backend jax of KERAS_BACKEND cannot be imported (ModuleNotFoundError: No module named "
               f"'jax'): run `pip install jax`, or {CHOICE}"),
    "a typo": ("tensorfow", None, f"The backend 'tensorfow' of KERAS_BACKEND cannot be used: {CHOICE}"),
    "theano": ("", '{"backend": "theano"}', f"The backend 'theano' of {{path}} cannot be used: {CHOICE}"),
    "not an object": ("", "[]", "Keras cannot be imported (AttributeError: 'list' object has no attribute 'get'): "
                      "correct or delete {path} if it exists, or install Keras and its backend anew, and run the same "
                      "command again."),
}  # fmt: skip


def start(
    folder: Path, backend: str, configuration: str | None, *words: str
) -> subprocess.CompletedProcess[str]:
    """The command as a program of its own, with a home where jax is not installed."""
    (folder / "shim").mkdir(exist_ok=True)
    (folder / "shim" / "jax.py").write_text(WITHOUT_JAX)
    if configuration is not None:
        (folder / ".keras").mkdir(exist_ok=True)
        (folder / ".keras" / "keras.json").write_text(configuration)
    path = os.pathsep.join([str(folder / "shim"), str(Path(__file__).parents[1])])
    return subprocess.run(
        [sys.executable, "-m", "kaggle_nerve", *words],
        cwd=folder,
        env={**os.environ, "HOME": str(folder), "KERAS_BACKEND": backend, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize("case", CASES)
def test_keras_that_cannot_be_imported(tmp_path: Path, case: str) -> None:
    backend, configuration, told = CASES[case]
    told = told.format(path=tmp_path / ".keras" / "keras.json")
    (tmp_path / "data" / "train").mkdir(parents=True)
    done = start(tmp_path, backend, configuration, "train-folds", "--preset", "tiny", "--data", "data")
    assert (done.returncode, done.stderr) == (1, f"Error: {told}\n")
    assert not (tmp_path / "runs").exists()

    done = start(tmp_path, backend, configuration, "doctor", "--json")
    answer = json.loads(done.stdout)
    assert done.returncode == 0
    assert told in answer["advice"]
    assert {"backend", "devices", "processors", "Kaggle credentials", "data", "free disk"} <= set(
        answer["found"]
    )
    assert answer["found"]["backend"] == "unknown, see below"


@pytest.mark.parametrize(
    "words",
    [("presets", "tiny"), ("predict", "--run", "x", "--data", "data", "--runs", "data"), ("rehearse",)],
    ids=lambda words: words[0],
)
def test_every_verb_that_needs_keras(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "data" / "train").mkdir(parents=True)
    save_settings(load_preset("tiny"), tmp_path / "data" / "x" / "settings.toml")
    done = start(tmp_path, "tensorfow", None, *words)
    assert (done.returncode, done.stderr) == (1, f"Error: {CASES['a typo'][2]}\n")
    assert list(tmp_path.glob("r*")) == []


@pytest.mark.long
@pytest.mark.parametrize("configuration", ['{"image_data_format": "channels_first"}', "{broken"])
def test_a_users_configuration_changes_nothing(tmp_path: Path, configuration: str) -> None:
    done = start(tmp_path, "", configuration, "presets", "tiny")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == command(tmp_path, "presets", "tiny").stdout


def test_every_network_has_its_channels_last(monkeypatch: pytest.MonkeyPatch) -> None:
    keras.config.set_image_data_format("channels_first")
    try:
        for name in ("tiny", "attention-segnet", "unet-attention"):
            model = registry.build(load_preset(name))
            formats = {getattr(layer, "data_format", "channels_last") for layer in model._flatten_layers()}
            assert formats == {"channels_last"}, name
        assert keras.config.image_data_format() == "channels_first"
    finally:
        keras.config.set_image_data_format("channels_last")


def test_doctor_names_a_token_in_the_place_of_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_API_ENVIRONMENT"):
        monkeypatch.delenv(name)
    folder = tmp_path / ".kaggle"
    folder.mkdir()
    (folder / "kaggle.json").write_text('{"username": "me", "key": "KGAT_0123456789"}')
    (folder / "kaggle.json").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    told = (
        f"The key of {folder}/kaggle.json is an access token, not the key of a kaggle.json: set KAGGLE_API_TOKEN to "
        "it, or save it alone as ~/.kaggle/access_token."
    )
    assert told in json.loads(command(tmp_path, "doctor", "--json").stdout)["advice"]
    assert command(tmp_path, "kernels", "status", "me/mine", code=1).stderr == f"Error: {told}\n"
