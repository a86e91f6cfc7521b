"""Trained networks open in other versions of Keras, and a damaged file is named in a sentence."""

import shutil
from pathlib import Path

import battery
import keras
import numpy as np
import pytest
from cli_support import command
from support import write_competition
from training_support import as_of_newer_keras, fold_job, overwrite, rewrite_model, settings

from kaggle_nerve.errors import NerveError
from kaggle_nerve.models import opening, registry, snapshots
from kaggle_nerve.models.model_file import read_model_file
from kaggle_nerve.models.opening import open_model
from kaggle_nerve.prediction.ensemble import load_fold
from kaggle_nerve.runs import Run, open_run
from kaggle_nerve.settings import Settings, apply_changes
from kaggle_nerve.storage import digest_file, mark_complete, read_completion
from kaggle_nerve.training.checkpoint import Checkpoint
from kaggle_nerve.training.run_folds import train_folds

CHANGES = ("training.epochs=2", "training.collapse_epochs=100")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_competition(root, subjects=4, frames=6, test=4)
    return root


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """Run "small": fold 0 is finished, fold 1 was stopped after its first epoch of two."""
    runs_dir = tmp_path_factory.mktemp("runs")
    train_folds(data, runs_dir, "small", settings(*CHANGES), fold=0)
    run, _ = train_folds(data, runs_dir, "small", settings(*CHANGES), fold=1, stop=lambda: True)
    return run


@pytest.fixture
def run(trained, tmp_path) -> Run:
    """A copy of the run, to be spoiled."""
    shutil.copytree(trained.folder, tmp_path / "runs" / "small")
    return open_run(tmp_path / "runs", "small")


def cli(run: Run, data: Path, *words: str | Path, code: int = 0) -> str:
    """Give a command about ``run`` beside its folder of runs; returns all that it printed."""
    where = "--data", data, "--runs", run.folder.parent
    return command(run.folder.parent.parent, *words, *where, code=code).output


def checkpoint(run: Run) -> Path:
    return run.fold(1).folder / "checkpoint" / "epoch-00001.keras"


def accept(run: Run) -> None:
    """Note the digest of the model file that lies there as the one that training left."""
    fold = run.fold(0)
    mark_complete(fold.folder, read_completion(fold.folder) | {"model": digest_file(fold.model)})


def train(run: Run, data: Path, *words: str, code: int = 0) -> str:
    """Go on with training the run."""
    changes = [word for key in (*FAST_WORDS, *CHANGES) for word in ("--set", key)]
    return cli(run, data, "train-folds", "--preset", "tiny", "--run", "small", *changes, *words, code=code)


FAST_WORDS = (
    "size=[45, 62]",
    "model.stem=1",
    "model.width=4",
    "model.depth=1",
    "training.batch=4",
    "optimiser.learning_rate=0.01",
    "folds=2",
)


@pytest.fixture
def built_only(monkeypatch):
    """No network is opened by Keras as a whole."""

    def whole(file):
        raise AssertionError(f"{file.path} was not built from its settings")

    monkeypatch.setattr(opening, "_open_whole", whole)


def random_frames(size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 255, (2, *size, 1)).astype(np.float32)


def assert_same_outputs(one: keras.Model, other: keras.Model) -> None:
    """Two networks predict the same, bit for bit."""
    frames = random_frames(one.input_shape[1:3])
    found, wanted = one.predict_on_batch(frames), other.predict_on_batch(frames)
    assert found.keys() == wanted.keys()
    for name, values in wanted.items():
        np.testing.assert_array_equal(found[name], values)


def test_a_run_of_a_newer_keras_predicts_the_same(run, data, built_only):
    cli(run, data, "predict", "--run", "small")
    wanted = run.test_array("probabilities").read_bytes()
    as_of_newer_keras(run.fold(0).model)
    accept(run)
    assert "Predicting with folds 0" in cli(run, data, "predict", "--run", "small")
    assert run.test_array("probabilities").read_bytes() == wanted


@pytest.mark.long
def test_a_fold_begun_with_a_newer_keras_goes_on_with_its_optimiser(run, data, built_only):
    before, _ = Checkpoint(run.fold(1).folder).restore(run.settings)
    as_of_newer_keras(checkpoint(run))
    after, state = Checkpoint(run.fold(1).folder).restore(run.settings)
    assert state.epoch == 1
    for one, other in zip(
        [*before.weights, *before.optimizer.variables],
        [*after.weights, *after.optimizer.variables],
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
    assert np.abs(after.optimizer.variables[2]).max() > 0
    assert "going on after epoch 1" in train(run, data)


@pytest.mark.parametrize(
    "changes",
    [
        (),
        ("model.encoder=efficientnet-lite0", "model.weights=imagenet", "model.frozen=2"),
        pytest.param(("model.encoder=convnext-tiny", "model.weights=none"), marks=pytest.mark.long),
        pytest.param(("model.architecture=segnet",), marks=pytest.mark.long),
        pytest.param(("model.architecture=unet++", "model.deep_supervision=true"), marks=pytest.mark.long),
        pytest.param(
            ("model.architecture=deeplabv3+", "model.encoder=efficientnetv2-b0", "model.weights=none"),
            marks=pytest.mark.long,
        ),
    ],
)
def test_what_was_built_before_makes_no_difference(tmp_path, built_only, changes):
    """Keras numbers layers without a name over all networks of a process; the file has other numbers."""
    chosen = apply_changes(Settings(), (*battery.SMALL, *changes))
    trained = registry.build(registry.without_pretrained(chosen))
    trained.set_weights([values + 0.01 for values in trained.get_weights()])
    trained.save(tmp_path / "model.keras")
    assert_same_outputs(open_model(read_model_file(tmp_path / "model.keras", ""), chosen), trained)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_snapshots_and_mixed_precision_open_by_their_settings(tmp_path, built_only, precision):
    chosen = settings("training.average=snapshots", "optimiser.schedule=cyclic")
    combined = snapshots.combine(registry.build(chosen, precision), 2)
    random = np.random.default_rng(0)
    combined.set_weights([random.normal(0.1, 0.2, values.shape) ** 2 for values in combined.get_weights()])
    combined.save(tmp_path / "model.keras")
    opened = open_model(read_model_file(tmp_path / "model.keras", ""), chosen)
    assert opened.get_layer("snapshot1").get_layer("down0a_conv").compute_dtype == precision.split("_")[-1]
    assert_same_outputs(opened, combined)


@pytest.mark.parametrize("change", ["model.width=6", "model.activation=elu"])
def test_a_network_other_than_the_settings_opens_as_it_is(run, change):
    """The second has the same names and shapes of weights."""
    other = registry.build(settings(change))
    other.save(run.fold(0).model)
    accept(run)
    assert_same_outputs(load_fold(run.fold(0)), other)


def test_what_this_keras_cannot_open_names_both_versions(run, data):
    registry.build(settings("model.width=6")).save(run.fold(0).model)
    as_of_newer_keras(run.fold(0).model)
    accept(run)
    said = cli(run, data, "predict", "--run", "small", code=1)
    assert f"{run.fold(0).model}, written by Keras 99.0.0, is not the network of its run's settings" in said
    assert f"Keras {keras.__version__} cannot open it: `pip install keras==99.0.0`" in said
    assert "delete" not in said


def test_what_its_own_keras_cannot_open_asks_for_another_kaggle_nerve(run):
    def rename(value):
        if value.get("class_name") == "FusedBatchNormalization":
            value["class_name"] = value["registered_name"] = "Unknown"

    rewrite_model(run.fold(0).model, rename, keras.__version__)
    accept(run)
    with pytest.raises(NerveError, match=r"cannot open it: use the kaggle-nerve that trained it\.$"):
        load_fold(run.fold(0))


MODEL_DAMAGED = (
    "model.keras is damaged or was replaced (its SHA-256 is not the one in complete.json beside it)"
)
REMEDY = "copy it again from where it was trained, or delete"


@pytest.mark.parametrize(
    "words", [("predict",), ("submit", "--dry-run"), ("predict", "--frame", "FRAME", "--out", "seen.png")]
)
def test_a_damaged_model_is_named(run, data, words):
    overwrite(run.fold(0).model)
    words = [str(data / "test" / "1.tif") if word == "FRAME" else word for word in words]
    said = cli(run, data, *words, "--run", "small", code=1)
    assert f"Error: {run.fold(0).folder}/{MODEL_DAMAGED}; {REMEDY} {run.fold(0).folder} and train" in said


def test_a_damaged_model_of_an_early_version_without_a_digest_is_named(run, data):
    facts = read_completion(run.fold(0).folder)
    del facts["model"]
    mark_complete(run.fold(0).folder, facts)
    overwrite(run.fold(0).model)
    said = cli(run, data, "predict", "--run", "small@none", code=1)
    assert "model.keras is damaged, or no Keras model file (Bad CRC-32 for file" in said
    assert f"; {REMEDY} {run.fold(0).folder} and train the fold again." in said


def test_a_report_says_that_a_model_is_damaged(run, data):
    overwrite(run.fold(0).model)
    cli(run, data, "report", "--run", "small")
    assert MODEL_DAMAGED in run.report_file.read_text()


def test_a_damaged_model_is_not_sent_to_kaggle(run):
    overwrite(run.fold(0).model)
    words = "kernels", "dataset", "--run", "small", "--runs", run.folder.parent
    assert MODEL_DAMAGED in command(run.folder.parent.parent, *words, code=1).output


@pytest.mark.long
def test_a_damaged_checkpoint_is_named(run, data):
    overwrite(checkpoint(run))
    said = train(run, data, "--fold", "1", code=1)
    folder = checkpoint(run).parent
    assert f"{checkpoint(run)} is damaged, or no Keras model file (Bad CRC-32 for file" in said
    assert f"; restore it from a copy, or delete {folder} to start the fold anew." in said
    checkpoint(run).unlink()
    assert f"{checkpoint(run)} is missing; restore it" in train(run, data, "--fold", "1", code=1)
    shutil.rmtree(folder)
    assert "Fold 1 finished" in train(run, data, "--fold", "1")


@pytest.mark.long
def test_damaged_weights_of_a_kept_epoch_and_a_damaged_state_are_named(run, data):
    store, kept = Checkpoint(run.fold(1).folder), checkpoint(run).with_name("weights-00001.npz")
    overwrite(kept)
    with pytest.raises(
        NerveError, match=r"weights-00001\.npz is damaged \(Bad .*; restore it from a copy, or"
    ):
        store.weights(1)
    for text in ("{", "[]", '{"epoch": "one"}', '{"later": 1}'):
        store.pointer.write_text(text)
        assert f"{store.pointer} is" in train(run, data, "--fold", "1", code=1)


@pytest.mark.parametrize("name", ["start.keras", "start.weights.h5"])
def test_a_damaged_file_to_start_from_is_named_before_a_run_is_made(run, data, name):
    start = run.folder.parent.parent / name
    model = registry.build(run.settings)
    model.save(start) if name.endswith(".keras") else model.save_weights(start)
    overwrite(start, model.get_layer("down0a_conv").get_weights()[0].tobytes())
    words = "train-folds", "--preset", "tiny", "--run", "next", "--start-from", start
    said = cli(run, data, *words, code=1)
    assert f"{start} is damaged, or no Keras model file (" in said
    assert "; name a whole .keras or .weights.h5 file." in said
    assert not (run.folder.parent / "next").exists()


@pytest.mark.long
def test_a_run_to_start_from_with_a_damaged_model_is_named(run, data):
    overwrite(run.fold(0).model)
    said = train(run, data, "--run", "next", "--start-from", "small", "--fold", "0", code=1)
    assert f"{run.fold(0).folder}/{MODEL_DAMAGED}; {REMEDY}" in said


def test_damaged_weights_of_the_warm_stage_are_named(data, tmp_path):
    from kaggle_nerve.training import fold as training

    job = fold_job(data, tmp_path, settings())
    warm = job.fold.folder / "warm"
    warm.mkdir(parents=True)
    weights = warm / "last.weights.h5"
    registry.build(job.settings).save_weights(weights)
    mark_complete(warm, {"epochs": 1, "weights": digest_file(weights)})
    training._check_warm_weights(warm)
    overwrite(weights)
    with pytest.raises(
        NerveError, match=r"last\.weights\.h5 is missing or damaged; delete .*warm to train that"
    ):
        training._check_warm_weights(warm)
