"""Which weights a fold ends with, whatever happens on the way."""

import json

import keras
import numpy as np
import pytest
from support import write_competition
from training_support import batches_of, fold_job, history, settings

from kaggle_nerve.models import registry
from kaggle_nerve.storage import read_completion
from kaggle_nerve.training import averaging, checkpoint, optimisers
from kaggle_nerve.training.checkpoint import Checkpoint, State
from kaggle_nerve.training.fold import train_fold
from kaggle_nerve.training.steps import HostSteps

WAYS = {
    "best": ("training.average=best",),
    "ema": ("training.average=ema", "training.ema_decay=0.7"),
    "swa": ("training.average=swa", "training.swa_share=0.6"),
    "top": ("training.average=top", "training.top=2"),
    "snapshots": ("training.average=snapshots", "optimiser.schedule=cyclic", "optimiser.cycles=2"),
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_competition(root, subjects=4, frames=8)
    return root


def state_of(*dices, kept=()) -> State:
    rows = [{"epoch": number, "dice": dice} for number, dice in enumerate(dices, 1)]
    scored = [row for row in rows if row["dice"] is not None]
    best = max(scored, key=lambda row: row["dice"])["epoch"] if scored else 0
    return State(epoch=len(rows), history=rows, best_epoch=best, kept=list(kept))


def test_which_epochs_are_kept():
    state = state_of(0.3, 0.7, None, 0.6, 0.5, kept=[2])
    assert averaging.epochs_to_keep(state, settings(*WAYS["best"]), False) == [2]
    assert averaging.epochs_to_keep(state, settings(*WAYS["top"]), False) == [2, 4]
    assert averaging.epochs_to_keep(state, settings(*WAYS["snapshots"]), False) == [2]
    assert averaging.epochs_to_keep(state, settings(*WAYS["snapshots"]), True) == [2, 5]
    assert averaging.epochs_to_keep(state, settings(*WAYS["ema"]), True) == []
    assert averaging.epochs_to_keep(state_of(None), settings(*WAYS["best"]), False) == []


def test_of_equal_scores_the_one_with_better_masks_is_kept():
    """All three drop every mask, as an early epoch may; the third draws the best ones."""
    state = state_of(0.6, 0.6, 0.6)
    for row, present in zip(state.history, (float("nan"), 0.03, 0.34), strict=True):
        row["present_dice"] = present
    assert averaging.epochs_to_keep(state, settings(*WAYS["top"], "training.top=1"), False) == [3]


def test_the_running_mean_by_hand():
    values = (
        [np.array([0.0, 6.0], np.float32)],
        [np.array([3.0, 0.0], np.float32)],
        [np.array([6.0, 0.0], np.float32)],
    )
    mean = None
    for count, weights in enumerate(values):
        mean = averaging.running_mean(mean, count, weights)
    np.testing.assert_allclose(mean[0], [3.0, 2.0])
    assert mean[0].dtype == np.float32
    np.testing.assert_array_equal(values[0][0], [0.0, 6.0])


def test_the_last_share_of_the_run_joins_the_mean():
    chosen = settings(*WAYS["swa"])
    joins = [averaging.joins_mean(State(progress=progress), chosen) for progress in (0.25, 0.39, 0.4, 1.0)]
    assert joins == [False, False, True, True]
    assert not averaging.joins_mean(State(progress=1.0), settings())


def network(*changes: str) -> keras.Model:
    keras.utils.set_random_seed(3)
    return registry.build(settings(*changes))


def test_an_ensemble_is_the_mean_of_its_members_and_loads_as_one_file(tmp_path):
    model = network()
    base = model.get_weights()
    random = np.random.default_rng(0)
    frames = random.uniform(0, 255, (2, 45, 62, 1)).astype(np.float32)
    members, expected = [], []
    for _ in range(3):
        model.set_weights([value * random.uniform(0.7, 1.3, value.shape) for value in base])
        members.append(model.get_weights())
        expected.append({name: np.array(values) for name, values in model.predict_on_batch(frames).items()})
    averaging.ensemble(model, members).save(tmp_path / "model.keras")
    found = keras.saving.load_model(tmp_path / "model.keras", compile=False).predict_on_batch(frames)
    assert found.keys() == {"mask", "presence"}
    for name, values in found.items():
        np.testing.assert_allclose(values, np.mean([one[name] for one in expected], axis=0), atol=1e-5)
        assert np.ptp([one[name] for one in expected], axis=0).max() > 1e-4


def test_an_ensemble_of_one_is_that_one():
    model = network()
    weights = [value + 1 for value in model.get_weights()]
    assert averaging.ensemble(model, [weights]) is model
    for mine, theirs in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def trained_a_little(data, tmp_path, *changes: str):
    """A compiled network after 3 steps, its batches and its weights after each step."""
    job = fold_job(data, tmp_path, settings(*changes))
    batches = batches_of(job, 16)
    model = optimisers.build_compiled(job.settings)
    seen = []

    def after(count: int) -> bool:
        seen.append([np.array(keras.ops.convert_to_numpy(value)) for value in model.trainable_variables])
        return False

    HostSteps(model, batches).run(3, next_rate=lambda: 0.01, after_steps=after)
    return job, model, batches, seen


def test_an_epoch_is_scored_with_the_exponential_mean_and_goes_on_with_the_raw_weights(data, tmp_path):
    job, model, _, seen = trained_a_little(data, tmp_path, *WAYS["ema"])
    with averaging.scoring_weights(model, job.settings):
        for place, variable in enumerate(model.trainable_variables):
            expected = 0.7 * (0.7 * seen[0][place] + 0.3 * seen[1][place]) + 0.3 * seen[2][place]
            np.testing.assert_allclose(keras.ops.convert_to_numpy(variable), expected, rtol=1e-4, atol=1e-6)
    for variable, raw in zip(model.trainable_variables, seen[2], strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), raw)


def test_the_mean_of_the_top_epochs_gets_statistics_of_its_own(data, tmp_path):
    job, model, batches, _ = trained_a_little(data, tmp_path, *WAYS["top"])
    store = Checkpoint(job.fold.folder)
    weights = model.get_weights()
    for epoch, factor in ((1, 0.9), (2, 1.1)):
        model.set_weights([value * factor for value in weights])
        store.save(model, State(epoch=epoch, kept=[1, 2][:epoch]))
    moving = {id(value) for value in model.non_trainable_variables}
    model.set_weights([np.full_like(value, 7) for value in weights])
    final = averaging.final_model(model, State(epoch=2, kept=[1, 2]), store, job.settings, batches)
    for variable, value in zip(final.weights, weights, strict=True):
        now = keras.ops.convert_to_numpy(variable)
        if id(variable) in moving:
            assert not np.allclose(now, value, rtol=1e-3, atol=0), variable.path
        else:
            np.testing.assert_allclose(now, value, rtol=1e-5, atol=1e-7, err_msg=variable.path)


class Killed(BaseException):
    """Stands for kill -9: nothing in the trainer catches it."""


def weights_of(folder) -> list[np.ndarray]:
    return keras.saving.load_model(folder / "model.keras", compile=False).get_weights()


@pytest.mark.long
# The first has most to keep in its checkpoint: a mean of its own.
@pytest.mark.parametrize(
    "way", ["swa", *(pytest.param(way, marks=pytest.mark.long) for way in WAYS if way != "swa")]
)
def test_a_fold_killed_before_its_pointer_was_replaced_ends_as_an_undisturbed_one(
    data, tmp_path, monkeypatch, way
):
    chosen = settings(*WAYS[way], "optimiser.learning_rate=0.003")
    whole = train_fold(fold_job(data, tmp_path, chosen, "whole"))
    real, left = checkpoint.write_json, {3}

    def killed_once(path, value):
        # The files of the epoch are there, the pointer still names the epoch before.
        if value["epoch"] in left:
            left.remove(value["epoch"])
            raise Killed
        real(path, value)

    monkeypatch.setattr(checkpoint, "write_json", killed_once)
    with pytest.raises(Killed):
        train_fold(fold_job(data, tmp_path, chosen))
    mine = train_fold(fold_job(data, tmp_path, chosen))
    assert (mine.finished, mine.epochs, mine.average) == (True, 4, way)
    one, two = tmp_path / "run" / "fold-0", tmp_path / "whole" / "fold-0"
    for value, expected in zip(weights_of(one), weights_of(two), strict=True):
        np.testing.assert_allclose(value, expected, atol=5e-3)
    assert not (one / "checkpoint").exists()
    done = read_completion(one)
    rows = {int(row["epoch"]): float(row["dice"]) for row in history(one) if row["dice"]}
    assert done["best_dice"] == pytest.approx(max(rows.values()), abs=1e-5)
    assert done["average"] == way
    assert mine.dice == done["dice"] == pytest.approx(whole.dice, abs=0.05)
    assert {"pixel_dice", "iou", "pixel_accuracy"} <= done.keys()
    assert (done["dice"] == done["best_dice"]) or way != "best"


@pytest.mark.long
def test_a_kill_after_the_last_epoch_does_not_train_again(data, tmp_path, monkeypatch):
    chosen = settings(*WAYS["snapshots"])
    monkeypatch.setattr("kaggle_nerve.runs.run.mark_complete", lambda *_: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        train_fold(fold_job(data, tmp_path, chosen))
    pointer = tmp_path / "run/fold-0/checkpoint/state.json"
    assert json.loads(pointer.read_text())["kept"] == [2, 4]
    before = (tmp_path / "run/fold-0/history.csv").read_bytes()
    monkeypatch.undo()
    assert train_fold(fold_job(data, tmp_path, chosen)).epochs == 4
    assert (tmp_path / "run/fold-0/history.csv").read_bytes() == before
