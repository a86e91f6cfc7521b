"""Weights to start from: what matches is taken, what would leak is refused."""

import keras
import numpy as np
import pytest
from support import write_competition
from training_support import Told, fold_job, settings

from kaggle_nerve.data import folds as folding
from kaggle_nerve.errors import NerveError
from kaggle_nerve.models import registry
from kaggle_nerve.training import initial_weights
from kaggle_nerve.training.epochs import Epochs
from kaggle_nerve.training.fold import train_fold


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_competition(root, subjects=4, frames=8)
    return root


def network(seed: int, *changes: str) -> keras.Model:
    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    return registry.build(settings(*changes))


def test_a_file_s_weights_replace_all_of_the_network_s(tmp_path):
    source = network(1)
    source.save(tmp_path / "model.keras")
    source.save_weights(tmp_path / "model.weights.h5")
    for name in ("model.keras", "model.weights.h5"):
        model = network(2)
        match = initial_weights.load_initial(model, tmp_path / name)
        assert match.is_exact
        assert match.loaded == len(model.weights)
        for mine, theirs in zip(model.get_weights(), source.get_weights(), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_layers_are_matched_by_name_and_shape_not_by_place(tmp_path):
    # One level more: the file's second convolution is another layer of the larger network.
    source = network(1, "model.depth=1", "model.presence=false")
    source.save(tmp_path / "small.keras")
    model = network(2)
    before = {variable.path: np.array(keras.ops.convert_to_numpy(variable)) for variable in model.weights}
    theirs = {variable.path: np.array(keras.ops.convert_to_numpy(variable)) for variable in source.weights}
    match = initial_weights.load_initial(model, tmp_path / "small.keras")
    same = {path for path in theirs if path in before and theirs[path].shape == before[path].shape}
    assert (match.loaded, match.total) == (len(same), len(before))
    assert 0 < match.loaded < match.total
    for variable in model.weights:
        expected = theirs if variable.path in same else before
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(variable), expected[variable.path], err_msg=variable.path
        )


def test_another_working_size_keeps_every_weight(tmp_path):
    network(1, "size=[24, 32]").save(tmp_path / "model.keras")
    model = network(2)
    match = initial_weights.load_initial(model, tmp_path / "model.keras")
    assert match.loaded == match.total == len(model.weights)


def test_a_file_without_a_matching_weight_is_refused(tmp_path):
    frames = keras.Input((8, 12, 1))
    keras.Model(frames, keras.layers.Conv2D(1, 3, name="other")(frames)).save(tmp_path / "other.keras")
    with pytest.raises(NerveError, match="no weights for this network"):
        initial_weights.load_initial(network(2), tmp_path / "other.keras")
    (tmp_path / "text.keras").write_text("no model")
    with pytest.raises(NerveError, match="no Keras model file"):
        initial_weights.load_initial(network(2), tmp_path / "text.keras")


@pytest.fixture(scope="module")
def first(data, tmp_path_factory):
    runs_dir = tmp_path_factory.mktemp("runs")
    job = fold_job(data, runs_dir, settings("training.epochs=1"), "first")
    train_fold(job)
    return job.fold.run


def begun_with(job, monkeypatch) -> list[np.ndarray]:
    """The weights that the fold's training begins with."""
    seen = []

    monkeypatch.setattr(Epochs, "run", lambda epochs: seen.append(epochs.model.get_weights()))
    train_fold(job)
    return seen[0]


def test_a_fold_starts_from_the_same_fold_of_a_run(data, first, monkeypatch):
    told = Told()
    chosen = settings("training.start=first", "size=[30, 40]")
    job = fold_job(data, first.folder.parent, chosen, "second", reporter=told)
    weights = begun_with(job, monkeypatch)
    source = keras.saving.load_model(first.fold(0).model, compile=False)
    for mine, theirs in zip(weights, source.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert told.lines == ["Starting from fold 0 of run first."]


def test_a_file_is_the_user_s_responsibility_and_a_part_is_told(data, tmp_path, monkeypatch):
    network(1, "model.presence=false").save(tmp_path / "model.keras")
    told = Told()
    job = fold_job(data, tmp_path, settings(f"training.start={tmp_path / 'model.keras'}"), reporter=told)
    begun_with(job, monkeypatch)
    assert "never saw this fold's held-out subjects" in told.lines[0]
    total = len(network(1).weights)
    assert f"Only {total - 2} of the network's {total} arrays" in told.lines[0]


def test_pretrained_weights_are_not_read_where_others_take_their_place(data, first, monkeypatch):
    asked = []
    real = registry.build

    def noted(chosen, precision):
        asked.append(chosen.model.weights)
        return real(chosen, precision)

    monkeypatch.setattr(registry, "build", noted)
    chosen = settings(f"training.start={first.folder}")
    object.__setattr__(chosen.model, "weights", "imagenet")
    begun_with(fold_job(data, first.folder.parent, chosen, "third"), monkeypatch)
    assert asked == ["none"]


def test_a_run_that_has_seen_held_out_subjects_is_refused(data, first):
    job = fold_job(data, first.folder.parent, settings("training.start=first"), "leaky")
    folds = folding.load(job.fold.run.folds_csv)
    folds["fold"] = 1 - folds.fold
    folding.save(folds, job.fold.run.folds_csv)
    with pytest.raises(NerveError, match="has seen some of those held out"):
        train_fold(job)


def test_what_is_not_there_is_named(data, first, tmp_path):
    job = fold_job(data, tmp_path, settings("training.start=nowhere"))
    with pytest.raises(NerveError, match="neither a model file nor a run"):
        train_fold(job)
    with pytest.raises(NerveError, match="no finished fold 1"):
        initial_weights.find_weights(str(first.folder), job.fold.run.fold(1))
