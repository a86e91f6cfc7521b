"""Training on real files: a fold from start to end, killed, interrupted, out of time, collapsed."""

import json
import subprocess
import sys
import time
import zipfile

import cv2
import keras
import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from processes import kill_when
from support import write_competition
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from training_support import Told, batches_of, fold_job, history, many_epochs, settings

from kaggle_nerve.data import folds as folding
from kaggle_nerve.decision.decision import load as load_decision
from kaggle_nerve.errors import NerveError
from kaggle_nerve.maps.fullsize import Truths, enlarge
from kaggle_nerve.pipeline import learn_decision, prepare
from kaggle_nerve.prediction.ensemble import predict_test
from kaggle_nerve.prediction.stored import ensemble_scale, open_oof, open_test
from kaggle_nerve.runs import open_run
from kaggle_nerve.storage import digest_file, mark_complete, read_completion
from kaggle_nerve.training import averaging, epochs, logs, validation
from kaggle_nerve.training import job as jobs
from kaggle_nerve.training.checkpoint import Checkpoint, State
from kaggle_nerve.training.epochs import Epochs
from kaggle_nerve.training.fold import train_fold
from kaggle_nerve.training.optimisers import build_compiled
from kaggle_nerve.training.run_folds import train_folds
from kaggle_nerve.training.schedule import learning_rate
from kaggle_nerve.training.steps import HostSteps, measure
from kaggle_nerve.training.validation import score_epoch


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_competition(root, subjects=4, frames=12, test=7)
    return root


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    runs_dir = tmp_path_factory.mktemp("runs")
    run, results = train_folds(data, runs_dir, "whole", settings("training.epochs=8"))
    assert all(result.finished for result in results)
    return run


def test_a_run_leaves_what_the_design_promises(trained):
    names = {path.name for path in trained.folder.iterdir()}
    assert names >= {"settings.toml", "environment.json", "folds.csv", "fold-0", "fold-1"}
    for fold in (0, 1):
        folder = trained.fold(fold).folder
        inside = {path.name for path in folder.iterdir()}
        assert inside - {".lock"} == {
            "environment.json",
            "model.keras",
            "history.csv",
            "oof.npy",
            "oof.csv",
            "complete.json",
            "tensorboard",
        }
        assert list((folder / "tensorboard").iterdir())
        assert len(history(trained.fold(fold).folder)) == read_completion(folder)["epochs"] == 8
    environment = json.loads((trained.folder / "environment.json").read_text())
    assert environment["backend"] == keras.backend.backend()


def test_the_board_shows_figures_and_held_out_frames_of_each_scored_epoch(trained):
    rows = history(trained.fold(0).folder)
    events = EventAccumulator(
        str(trained.fold(0).folder / "tensorboard"), size_guidance={"images": 0}
    ).Reload()
    assert [event.step for event in events.Scalars("loss")] == list(range(1, 9))
    np.testing.assert_allclose(
        [event.value for event in events.Scalars("loss")], [float(row["loss"]) for row in rows], rtol=1e-5
    )
    tags = events.Tags()["images"]
    table = pd.read_csv(trained.fold(0).folder / "oof.csv")
    assert {tag.removeprefix("held-out/") for tag in tags} <= set(
        table.subject.astype(str) + "_" + table.img.astype(str)
    )
    assert sorted(int(tag.split("_")[1]) % 2 for tag in tags) == [0, 0, 1, 1]  # odd ones have a mask
    scored = [int(row["epoch"]) for row in rows if row["dice"]]
    for tag in tags:
        images = events.Images(tag)
        assert [image.step for image in images] == scored
        last = images[-1]
        picture = cv2.imdecode(np.frombuffer(last.encoded_image_string, np.uint8), cv2.IMREAD_UNCHANGED)
        assert picture.shape == (last.height, last.width, 3)
        coloured = np.ptp(picture[:210].astype(int), axis=2).max() > 60
        assert coloured or int(tag.split("_")[1]) % 2 == 0


def test_frames_to_look_at_are_halved_and_spread():
    areas = np.array([5, 0, 5, 5, 0, 5, 0, 0, 5, 5, 0, 0])
    assert logs.pick_rows(areas) == [2, 4, 8, 10]
    assert logs.pick_rows(np.array([0, 0, 7, 0, 0, 0])) == [0, 2, 3, 5]
    assert logs.pick_rows(np.array([0, 3])) == [0, 1]
    assert logs.pick_rows(np.zeros(9)) == [1, 3, 5, 7]
    assert logs.pick_rows(np.zeros(0)) == []


def test_it_learns_discs(trained, data):
    # Bright discs on dark noise: whoever finds nothing scores 0.5, the share of empty frames.
    decision = learn_decision([trained], data)
    assert decision.figures.all_empty == 0.5
    assert decision.figures.in_sample > 0.8
    assert decision.figures.kept_present_dice > 0.7


def test_out_of_fold_is_out_of_fold(trained):
    found = open_oof(trained)
    folds = folding.load(trained.folds_csv).set_index("subject").fold
    assert (found.table.fold == folds.loc[found.table.subject].to_numpy()).all()
    assert found.table[["subject", "img"]].to_numpy().tolist() == sorted(
        [s, i] for s in range(1, 5) for i in range(1, 13)
    )
    # The map of each row is its own frame's: fold 0's array holds its subjects in order.
    table = pd.read_csv(trained.fold(0).folder / "oof.csv")
    maps = np.load(trained.fold(0).folder / "oof.npy")
    place = 3
    row = found.table.index[
        (found.table.subject == table.subject[place]) & (found.table.img == table.img[place])
    ][0]
    np.testing.assert_allclose(found.full(row), enlarge(maps[place]), atol=1e-6)


def test_finished_work_is_not_done_again(trained, data):
    told = Told()
    before = (trained.fold(0).model).stat().st_mtime_ns
    train_folds(data, trained.folder.parent, "whole", trained.settings, reporter=told)
    assert (
        "2 of 2 folds are finished already; --run NEW --start-from whole trains them further." in told.lines
    )
    assert told.bars == []
    assert (trained.fold(0).model).stat().st_mtime_ns == before


def test_a_second_process_does_not_train_the_same_fold(trained, data, tmp_path):
    folder = tmp_path / "run" / "fold-1"
    folder.mkdir(parents=True)
    with (
        FileLock(folder / ".lock", is_singleton=False),
        pytest.raises(NerveError, match="Another process trains fold 1"),
    ):
        train_folds(data, tmp_path, "run", trained.settings, fold=1)


def test_other_settings_or_data_under_the_same_name_are_refused(trained, data, tmp_path):
    with pytest.raises(NerveError, match=r"training\.epochs = 8, not 5"):
        train_folds(data, trained.folder.parent, "whole", settings("training.epochs=5"))
    write_competition(tmp_path, subjects=3, frames=4)
    with pytest.raises(NerveError, match="other training data"):
        train_folds(tmp_path, trained.folder.parent, "whole", trained.settings)


def test_a_fold_that_is_not_there_is_named(trained, data):
    with pytest.raises(NerveError, match="folds 0 to 1"):
        train_folds(data, trained.folder.parent, "whole", trained.settings, fold=2)


def test_the_ensemble_is_the_mean_of_its_folds_and_is_not_redone(trained, data):
    predict_test(trained, data)
    found = open_test(trained)
    assert found.table.img.tolist() == list(range(1, 8))
    frames = np.load(next(path for path in data.glob(".cache/*/frames.npy") if len(np.load(path)) == 7))
    views = []
    for fold in (0, 1):
        model = keras.saving.load_model(trained.fold(fold).model, compile=False)
        for chunk in (frames, frames[:, :, ::-1]):
            out = np.asarray(model(chunk[..., None].astype(np.float32))["mask"])[..., 0]
            views.append(out if chunk is frames else out[:, :, ::-1])
    mean = np.mean(views, axis=0)
    np.testing.assert_allclose(np.load(trained.test_folder / "probabilities.npy"), mean, atol=2e-3)
    # What is read back keeps their order at the scale of a single fold (tests/test_matching.py).
    matched = np.stack([found.parts[0][row] for row in range(len(found))])
    assert (np.diff(matched.ravel()[mean.ravel().argsort()]) > -0.02).all()
    singles = np.stack([np.mean(views[:2], axis=0), np.mean(views[2:], axis=0)])
    wanted = np.quantile(singles, [0.5, 0.9, 0.99])
    np.testing.assert_allclose(np.quantile(matched, [0.5, 0.9, 0.99]), wanted, atol=0.02)
    told = Told()
    predict_test(trained, data, reporter=told)
    assert told.bars == []
    predict_test(trained, data, reporter=told, force=True)
    assert told.bars == ["Predicting"]
    # A fold that was trained again has another model, so its part of the mean is of no use.
    facts = read_completion(trained.fold(0).folder)
    assert facts["model"] == digest_file(trained.fold(0).model)
    assert ensemble_scale(trained) is not None
    before = trained.fold(0).model.read_bytes()
    with zipfile.ZipFile(trained.fold(0).model, "a") as archive:
        archive.comment = b"trained again"
    mark_complete(trained.fold(0).folder, facts | {"model": digest_file(trained.fold(0).model)})
    try:
        assert ensemble_scale(trained) is None
        predict_test(trained, data, reporter=told)
    finally:
        trained.fold(0).model.write_bytes(before)
        mark_complete(trained.fold(0).folder, facts)
    assert told.bars == ["Predicting"] * 2
    predict_test(trained, data, reporter=told)
    assert told.bars == ["Predicting"] * 3


def test_prepare_makes_a_valid_file_of_all_test_frames(trained, data, tmp_path):
    prepared = prepare([trained], data, tmp_path / "out.csv")
    assert prepared.report.rows == 7
    assert not prepared.report.faults
    assert prepared.decision.as_dict() == load_decision(trained.decision_file).as_dict()


@pytest.mark.long
def test_an_interrupted_fold_goes_on_as_if_nothing_had_happened(data, tmp_path):
    asked = iter([False, True])
    _, results = train_folds(data, tmp_path, "run", settings(), fold=0, stop=lambda: next(asked))
    assert [(result.finished, result.epochs) for result in results] == [(False, 2)]
    assert not read_completion(tmp_path / "run" / "fold-0")
    run, results = train_folds(data, tmp_path, "run", settings(), fold=0)
    assert results[0].finished
    undisturbed, _ = train_folds(data, tmp_path, "other", settings(), fold=0)
    mine, theirs = history(run.fold(0).folder), history(undisturbed.fold(0).folder)
    assert [row["epoch"] for row in mine] == [row["epoch"] for row in theirs] == ["1", "2", "3", "4"]
    assert [row["learning_rate"] for row in mine] == [row["learning_rate"] for row in theirs]
    # The same frames, optimiser state and schedule; only sums in another order differ.
    assert float(mine[-1]["loss"]) == pytest.approx(float(theirs[-1]["loss"]), rel=0.02)


TRAIN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from training_support import many_epochs, settings
from kaggle_nerve.training.run_folds import train_folds
train_folds(Path(sys.argv[1]), Path(sys.argv[2]), "run", settings(*many_epochs(20)), fold=0)
"""


@pytest.mark.long
def test_kill_9_while_training_keeps_every_whole_epoch(data, tmp_path, request):
    state = tmp_path / "run" / "fold-0" / "checkpoint" / "state.json"
    words = [str(data), str(tmp_path), str(request.path.parent)]
    kill_when([TRAIN, *words], lambda: state.is_file() and json.loads(state.read_text())["epoch"] >= 2)
    kept = json.loads(state.read_text())["epoch"]
    told = Told()
    run, results = train_folds(data, tmp_path, "run", settings(*many_epochs(20)), fold=0, reporter=told)
    assert any(f"going on after epoch {kept}" in line for line in told.lines)
    assert results[0].finished
    assert [row["epoch"] for row in history(run.fold(0).folder)] == [str(epoch) for epoch in range(1, 21)]
    assert not (run.fold(0).folder / "checkpoint").exists()


PREDICT = """
import sys, time
from pathlib import Path
from kaggle_nerve.prediction import ensemble
from kaggle_nerve.runs import open_run
ensemble.CHUNK = 1
real = ensemble.probabilities
def slow(model, frames, **options):
    for number, output in enumerate(real(model, frames, **options)):
        if number == 2:
            time.sleep(60)  # it is killed here
        yield output
ensemble.probabilities = slow
run = open_run(Path(sys.argv[2]), sys.argv[3])
object.__setattr__(run.settings.prediction, "batch", 1)
ensemble.predict_test(run, Path(sys.argv[1]), force=True)
"""

WRITE = """
import sys, time
from pathlib import Path
from kaggle_nerve import storage
from kaggle_nerve.pipeline import prepare
from kaggle_nerve.runs import open_run
run = open_run(Path(sys.argv[2]), sys.argv[3])
storage.flush = lambda path: time.sleep(60)  # the file is written, its name is not given yet
prepare([run], Path(sys.argv[1]), Path(sys.argv[4]))
"""


@pytest.mark.long
def test_kill_9_while_predicting_ends_as_if_nothing_had_happened(trained, data):
    predict_test(trained, data, force=True)
    wanted, table = np.array(open_test(trained).parts[0]), pd.read_csv(trained.test_folder / "index.csv")
    words = [str(data), str(trained.folder.parent), trained.name]
    kill_when([PREDICT, *words], (trained.test_folder / "partial.json").is_file)
    assert read_completion(trained.test_folder) is None
    with pytest.raises(NerveError, match="has no test probabilities"):
        open_test(trained)
    predict_test(trained, data)
    # Other batches, other order of sums: equal but for the last digit of a float16.
    np.testing.assert_allclose(open_test(trained).parts[0], wanted, atol=1e-3)
    again = pd.read_csv(trained.test_folder / "index.csv")
    for name in ("presence", "agreement", "spread"):
        np.testing.assert_allclose(again[name], table[name], atol=1e-5)


@pytest.mark.long
def test_kill_9_while_writing_the_file_leaves_none_and_then_the_same(trained, data, tmp_path):
    wanted = prepare([trained], data, tmp_path / "wanted.csv").csv.read_bytes()
    out = tmp_path / "out"
    words = [str(data), str(trained.folder.parent), trained.name, str(out / "file.csv")]
    kill_when([WRITE, *words], lambda: any(path.stat().st_size for path in out.glob(".*file.csv")))
    assert not (out / "file.csv").exists()
    prepare([trained], data, out / "file.csv")
    assert (out / "file.csv").read_bytes() == wanted


@pytest.mark.long
def test_a_time_budget_ends_cleanly_with_the_schedule_at_its_end(data, tmp_path):
    # On a busy machine the shortest one may be over before the first step, which leaves the fold for the next one.
    for budget in (12, 24, 48):
        started = time.monotonic()
        changes = settings(*many_epochs(5000))
        run, results = train_folds(data, tmp_path, "run", changes, fold=0, time_budget=budget)
        assert time.monotonic() - started < budget + 48
        if results[0].finished:
            break
    assert results[0].finished
    rows = history(run.fold(0).folder)
    assert 1 <= len(rows) < 5000
    assert float(rows[-1]["learning_rate"]) < 0.2 * run.settings.optimiser.learning_rate
    assert read_completion(run.fold(0).folder)
    assert open_oof(open_run(tmp_path, "run"))


@pytest.mark.long
def test_a_checkpoint_that_takes_long_is_not_saved_after_every_epoch(data, tmp_path, monkeypatch):
    monkeypatch.setattr(epochs, "SHORT_SAVE", 0)
    monkeypatch.setattr(epochs, "WORTH", 1e9)
    saved, real = [], Checkpoint.save

    def save(self, model, state, mean=None):
        saved.append((state.epoch, list(state.kept)))
        real(self, model, state, mean)

    monkeypatch.setattr(Checkpoint, "save", save)
    asked = iter([False, False, False, True])
    cycles = ("training.average=snapshots", "optimiser.schedule=cyclic", "optimiser.cycles=10")
    chosen = settings(*many_epochs(20), *cycles)
    assert not train_fold(fold_job(data, tmp_path, chosen, stop=lambda: next(asked))).finished
    # Epoch 2 ends a cycle, whose weights must stay; after epoch 4 the user stops.
    assert [epoch for epoch, _ in saved] == [1, 2, 4]
    assert saved[1][1] == [2]
    _, state = Checkpoint(tmp_path / "run/fold-0").restore(chosen)
    assert [row["epoch"] for row in state.history] == [1, 2, 3, 4]


def test_patience_stops_early(data, tmp_path):
    changes = ("training.epochs=40", "training.patience=2", "optimiser.learning_rate=1e-8")
    run, results = train_folds(data, tmp_path, "run", settings(*changes), fold=0)
    assert results[0].finished
    assert results[0].epochs == results[0].best_epoch + 2 < 40
    assert len(history(run.fold(0).folder)) == results[0].epochs


def rows(*shares) -> list[dict]:
    """A history with the empty share of each epoch; None where it was not scored."""
    return [
        {"epoch": number, "loss": 1.0, **({} if share is None else {"empty_share": share, "full_share": 0.0})}
        for number, share in enumerate(shares, 1)
    ]


def test_collapse_is_counted_over_epochs_in_a_row():
    validation.check_collapse(rows(1, 0, 1), 2, 0.4)
    with pytest.raises(validation.CollapseError, match=r"empty for the last 2 epochs \(to epoch 4\)"):
        validation.check_collapse(rows(1, 0, 1, 1), 2, 0.4)
    full = [{"epoch": 1, "loss": 1.0, "empty_share": 0.0, "full_share": 1.0}]
    with pytest.raises(validation.CollapseError, match="half the frame"):
        validation.check_collapse(full, 1, 0.4)
    for loss in (float("nan"), None):
        with pytest.raises(validation.CollapseError, match="loss became"):
            validation.check_collapse([{"epoch": 1, "loss": loss}], 9, 0.4)


def test_epochs_without_a_score_count_as_those_around_them():
    validation.check_collapse(rows(None, 1, None), 2, 0.4)
    with pytest.raises(validation.CollapseError, match="empty for the last 3 epochs"):
        validation.check_collapse(rows(0, 1, None, 1), 3, 0.4)
    validation.check_collapse(rows(None, None), 1, 0.4)


def same_weights(one: keras.Model, other: keras.Model) -> bool:
    pairs = zip(one.get_weights(), other.get_weights(), strict=True)
    return all(np.array_equal(mine, theirs) for mine, theirs in pairs)


def test_each_step_has_its_own_learning_rate(data, tmp_path):
    job = fold_job(
        data, tmp_path, settings("optimiser.name=sgd", "optimiser.momentum=0", "optimiser.weight_decay=0")
    )
    batches = batches_of(job, 12)
    model = build_compiled(job.settings)
    path = "mask_logit/kernel"
    kernel = next(variable for variable in model.trainable_variables if variable.path == path)
    seen = []

    def after(count):
        seen.append(keras.ops.convert_to_numpy(kernel).copy())
        return False

    start = keras.ops.convert_to_numpy(kernel).copy()
    HostSteps(model, batches).run(3, next_rate=iter([0.0, 0.5, 0.0]).__next__, after_steps=after)
    # Plain gradient descent: a rate of 0 moves nothing, so only the second step may.
    np.testing.assert_array_equal(seen[0], start)
    assert np.abs(seen[1] - seen[0]).max() > 1e-4
    np.testing.assert_array_equal(seen[2], seen[1])
    assert float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)) == 0


def test_a_training_step_is_traced_once(data, tmp_path):
    job = fold_job(data, tmp_path, settings())
    batches = batches_of(job, 12)
    model = build_compiled(job.settings)
    real, traces = model.train_step, []

    def traced(*values):
        traces.append(values)
        return real(*values)

    model.train_step = traced
    HostSteps(model, batches).run(3, next_rate=lambda: 0.01, after_steps=lambda count: False)
    assert len(traces) == 1


def test_measuring_leaves_no_trace(data, tmp_path):
    job = fold_job(data, tmp_path, settings("training.average=ema", "model.dropout=0.5"))
    batches = batches_of(job, 16)
    model = build_compiled(job.settings)
    variables = [*model.variables, *model.optimizer.variables]
    before = [np.array(keras.ops.convert_to_numpy(variable)) for variable in variables]
    speed = measure(model, HostSteps(model, batches), job.frames.cache.frames[:3], job.settings)
    assert speed.finish > averaging.STATISTICS_BATCHES * speed.step
    assert len(variables) == len([*model.variables, *model.optimizer.variables])
    for variable, value in zip(variables, before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(variable), value, err_msg=variable.path)


def test_the_history_has_the_schedule_s_rates(trained):
    rates = [float(row["learning_rate"]) for row in history(trained.fold(0).folder)]
    steps = 24 // 4
    for epoch, rate in enumerate(rates, 1):
        progress = (epoch * steps - 1) / (8 * steps)  # at the start of the epoch's last step
        assert rate == pytest.approx(learning_rate(progress, trained.settings.optimiser), rel=1e-4)


def test_early_epochs_are_scored_every_other_time(trained):
    scored = [bool(row["dice"]) for row in history(trained.fold(0).folder)]
    assert scored == [False, True, False, True, True, True, True, True]


def test_weights_without_decay_stay_so_after_a_resume(data, tmp_path):
    job = fold_job(data, tmp_path, settings("optimiser.weight_decay=0.9"))
    model = build_compiled(job.settings)
    Checkpoint(job.fold.folder).save(model, State(epoch=1))
    restored, _ = Checkpoint(job.fold.folder).restore(job.settings)
    zeros = [keras.ops.zeros(variable.shape) for variable in restored.trainable_variables]
    before = {
        variable.path: np.array(keras.ops.convert_to_numpy(variable))
        for variable in restored.trainable_variables
    }
    restored.optimizer.learning_rate = 0.1
    restored.optimizer.apply(zeros, restored.trainable_variables)
    for variable in restored.trainable_variables:
        factor = 1 if variable.name in ("bias", "gamma", "beta") else 1 - 0.9 * 0.1
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(variable),
            before[variable.path] * factor,
            rtol=1e-5,
            err_msg=variable.path,
        )


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("adam", marks=pytest.mark.long),
        "adamw",  # everything that the other two have, and the weights without decay
        pytest.param("sgd", marks=pytest.mark.long),
    ],
)
def test_an_interrupted_fold_ends_with_the_same_weights(data, tmp_path, name):
    chosen = settings(
        f"optimiser.name={name}", "model.dropout=0.5", "training.average=ema", "training.epochs=2"
    )
    asked = iter([True])
    assert not train_fold(fold_job(data, tmp_path, chosen, stop=lambda: next(asked))).finished
    assert train_fold(fold_job(data, tmp_path, chosen)).finished
    train_fold(fold_job(data, tmp_path, chosen, "other"))
    models = [
        keras.saving.load_model(tmp_path / run / "fold-0" / "model.keras", compile=False)
        for run in ("run", "other")
    ]
    for mine, theirs in zip(models[0].get_weights(), models[1].get_weights(), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=2e-3)


DETERMINED = """
import sys
from pathlib import Path
import keras
sys.path.insert(0, sys.argv[3])
from training_support import fold_job, settings
from kaggle_nerve import devices
from kaggle_nerve.training.fold import train_fold
devices.make_deterministic()
changes = ("training.deterministic=true", "model.dropout=0.3", "training.epochs=2")
train_fold(fold_job(Path(sys.argv[1]), Path(sys.argv[2]), settings(*changes), sys.argv[4]))
"""


def without_times(row: dict) -> dict:
    return {name: value for name, value in row.items() if "seconds" not in name}


@pytest.mark.long
def test_a_deterministic_run_is_the_same_to_the_last_bit(data, tmp_path, request):
    for name in ("one", "two"):
        words = [str(data), str(tmp_path), str(request.path.parent), name]
        subprocess.run([sys.executable, "-c", DETERMINED, *words], check=True)
    one, two = tmp_path / "one" / "fold-0", tmp_path / "two" / "fold-0"
    assert (one / "oof.npy").read_bytes() == (two / "oof.npy").read_bytes()
    assert (one / "oof.csv").read_bytes() == (two / "oof.csv").read_bytes()
    for mine, theirs in zip(history(one), history(two), strict=True):
        assert without_times(mine) == without_times(theirs)
    assert same_weights(
        *(keras.saving.load_model(folder / "model.keras", compile=False) for folder in (one, two))
    )


@pytest.mark.parametrize(
    "precision",
    [pytest.param(name, marks=pytest.mark.long) for name in ("mixed_bfloat16", "mixed_float16")],
)
def test_mixed_precision_trains_resumes_and_loads_in_a_float32_session(data, tmp_path, precision):
    chosen = settings(f"training.precision={precision}", "training.epochs=2", "optimiser.clip_norm=1")
    asked = iter([True])
    assert not train_fold(fold_job(data, tmp_path, chosen, stop=lambda: next(asked))).finished
    state = json.loads((tmp_path / "run/fold-0/checkpoint/state.json").read_text())
    assert state["precision"] == precision
    model, _ = Checkpoint(tmp_path / "run/fold-0").restore(chosen)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer) == (precision == "mixed_float16")
    assert (
        int(model.optimizer.iterations) == 6 or precision == "mixed_float16"
    )  # a step may have been skipped
    assert train_fold(fold_job(data, tmp_path, chosen)).finished
    assert keras.config.dtype_policy().name == "float32"
    model = keras.saving.load_model(tmp_path / "run/fold-0/model.keras", compile=False)
    assert {layer.compute_dtype for layer in model.layers if "conv" in layer.name} == {
        precision.removeprefix("mixed_")
    }
    outputs = model.predict_on_batch(np.zeros((1, 45, 62, 1), np.float32))
    assert {values.dtype for values in outputs.values()} == {np.dtype(np.float32)}
    rates = [float(row["learning_rate"]) for row in history(tmp_path / "run/fold-0")]
    assert rates == pytest.approx([learning_rate(part / 12, chosen.optimiser) for part in (5, 11)], rel=1e-4)


@pytest.mark.long
def test_a_warm_start_is_trained_smaller_first_and_goes_on_after_a_stop_in_either_stage(data, tmp_path):
    chosen = settings("training.warm_size=[24, 32]", "training.warm_share=0.5", "training.epochs=4")
    folder = tmp_path / "run" / "fold-0"
    for warm, full in ((1, None), (2, 1)):
        # The first session stops after an epoch; the second one finishes the warm stage and stops again.
        asked = iter([True] if warm == 1 else [False, True])
        assert not train_fold(fold_job(data, tmp_path, chosen, stop=lambda asked=asked: next(asked))).finished
        assert len(history(folder / "warm")) == warm
        assert (len(history(folder)) if (folder / "history.csv").exists() else None) == full
    result = train_fold(fold_job(data, tmp_path, chosen))
    assert (result.finished, result.epochs) == (True, 2)
    assert len(history(folder)) == 2
    assert not (folder / "checkpoint").exists()
    assert {path.name for path in (folder / "warm").iterdir()} == {
        "history.csv",
        "tensorboard",
        "complete.json",
    }
    assert np.load(folder / "oof.npy").shape[1:] == (45, 62)


@pytest.mark.long
def test_the_warm_stage_s_weights_are_where_the_full_one_begins(data, tmp_path, monkeypatch):
    chosen = settings("training.warm_size=[24, 32]", "training.warm_share=0.5", "training.epochs=2")
    begun = []
    ended = []
    real = Epochs.run

    def noted(epochs):
        begun.append((epochs.settings.size, epochs.model.get_weights()))
        real(epochs)
        ended.append(epochs.model.get_weights())

    monkeypatch.setattr(Epochs, "run", noted)
    train_fold(fold_job(data, tmp_path, chosen))
    assert [size for size, _ in begun] == [(24, 32), (45, 62)]
    for last, first in zip(ended[0], begun[1][1], strict=True):
        np.testing.assert_array_equal(last, first)


def test_smoothing_pixels_shrink_with_the_warm_area():
    chosen = settings(
        "training.warm_size=[9, 31]", "loss.smooth=40", "training.warm_share=0.3", "training.epochs=10"
    )
    assert jobs.warm_settings(chosen).loss.smooth == pytest.approx(40 * 0.1)
    assert jobs.warm_settings(chosen).training.epochs == 3
    assert jobs._main_settings(chosen).training.epochs == 7
    assert jobs._main_settings(settings()).training.epochs == 4


class Oracle:
    """Stands for a network: its mask is what it is given, its presence the first pixel."""

    def predict_on_batch(self, chunk):
        return {"mask": chunk / 255, "presence": chunk[:, 0, 0] / 255}


def test_the_epoch_score_by_hand():
    size = (42, 58)
    truth = np.zeros(size, np.uint8)
    truth[10:20, 10:20] = 1
    half = truth.copy()
    half[10:15] = 0
    frames = np.stack([truth * 255, half * 255, truth * 255, truth * 0])
    frames[:, 0, 0] = [255, 255, 26, 0]  # the presence that the oracle reads: 1, 1, 0.1, 0
    from kaggle_nerve.competition import rle

    truths = Truths([rle.encode(truth), rle.encode(truth), "", ""], size)
    found = score_epoch(Oracle(), frames, truths, batch=3)
    # Frame 1 perfect but for the corner pixel, frame 2 half of it, frame 3 false until presence decides.
    first, second = 2 * 100 / 201, 2 * 50 / (100 + 51)
    assert found.present_dice == pytest.approx((first + second) / 2)
    assert found.dice == pytest.approx((first + second + 2) / 4)
    assert found.presence_threshold > 0.1
    assert found.presence_auc == 1.0
    assert found.empty_share == 0.25
    assert found.full_share == 0.0
