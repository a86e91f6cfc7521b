"""Training on real files: a fold from start to end, killed, interrupted, out of time, collapsed."""

import csv
import json
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pandas as pd
import pytest
from filelock import FileLock
from support import write_competition

from kaggle_nerve.data import folds as folding
from kaggle_nerve.data.fullsize import Truths, enlarge
from kaggle_nerve.decision import tune
from kaggle_nerve.errors import NerveError
from kaggle_nerve.pipeline import learn_decision, prepare
from kaggle_nerve.prediction.ensemble import predict_test
from kaggle_nerve.prediction.stored import open_oof, open_test
from kaggle_nerve.progress import Bar, Reporter
from kaggle_nerve.runs import open_run
from kaggle_nerve.settings import apply_changes, load_preset
from kaggle_nerve.storage import completed
from kaggle_nerve.training.run_folds import train_folds
from kaggle_nerve.training.validation import EpochScore, score_epoch
from kaggle_nerve.training.watch import CollapseDetector, CollapseError

FAST = (
    "size=[45, 62]",
    "model.stem=1",
    "training.jit=false",
    "model.width=4",
    "model.depth=2",
    "training.epochs=4",
    "training.batch=4",
    "optimiser.learning_rate=0.01",
    "folds=2",
)


def settings(*changes: str):
    return apply_changes(load_preset("tiny"), (*FAST, *changes))


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


def history(run, fold=0) -> list[dict]:
    with (run.fold_folder(fold) / "history.csv").open() as file:
        return list(csv.DictReader(file))


class Told(Reporter):
    """Keeps what was said, and counts bars."""

    def __init__(self):
        self.lines, self.bars = [], []

    def say(self, text):
        self.lines.append(text)

    def bar(self, label, total, unit="frame"):
        self.bars.append(label)
        return Bar()


def test_a_run_leaves_what_the_design_promises(trained):
    names = {path.name for path in trained.folder.iterdir()}
    assert names >= {"settings.toml", "environment.json", "folds.csv", "fold-0", "fold-1"}
    for fold in (0, 1):
        folder = trained.fold_folder(fold)
        inside = {path.name for path in folder.iterdir()}
        assert inside - {".lock"} == {
            "model.keras",
            "history.csv",
            "oof.npy",
            "oof.csv",
            "complete.json",
            "tensorboard",
        }
        assert list((folder / "tensorboard").iterdir())
        assert len(history(trained, fold)) == completed(folder)["epochs"] == 8
    environment = json.loads((trained.folder / "environment.json").read_text())
    assert environment["backend"] == keras.backend.backend()


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
    table = pd.read_csv(trained.fold_folder(0) / "oof.csv")
    maps = np.load(trained.fold_folder(0) / "oof.npy")
    place = 3
    row = found.table.index[
        (found.table.subject == table.subject[place]) & (found.table.img == table.img[place])
    ][0]
    np.testing.assert_allclose(found.full(row), enlarge(maps[place]), atol=1e-6)


def test_finished_work_is_not_done_again(trained, data):
    told = Told()
    before = (trained.fold_folder(0) / "model.keras").stat().st_mtime_ns
    train_folds(data, trained.folder.parent, "whole", trained.settings, reporter=told)
    assert "2 of 2 folds are finished already." in told.lines
    assert told.bars == []
    assert (trained.fold_folder(0) / "model.keras").stat().st_mtime_ns == before


def test_a_second_process_does_not_train_the_same_fold(trained, data):
    told = "Another process trains fold 1"
    with (
        FileLock(trained.fold_folder(1) / ".lock", is_singleton=False),
        pytest.raises(NerveError, match=told),
    ):
        train_folds(data, trained.folder.parent, "whole", trained.settings, fold=1)


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
        model = keras.saving.load_model(trained.fold_folder(fold) / "model.keras", compile=False)
        for chunk in (frames, frames[:, :, ::-1]):
            out = np.asarray(model(chunk[..., None].astype(np.float32))["mask"])[..., 0]
            views.append(out if chunk is frames else out[:, :, ::-1])
    np.testing.assert_allclose(found.parts[0], np.mean(views, axis=0), atol=2e-3)
    told = Told()
    predict_test(trained, data, reporter=told)
    assert told.bars == []
    predict_test(trained, data, reporter=told, force=True)
    assert told.bars == ["Predicting"]


def test_prepare_makes_a_valid_file_of_all_test_frames(trained, data, tmp_path):
    prepared = prepare([trained], data, tmp_path / "out.csv")
    assert prepared.report.rows == 7
    assert not prepared.report.faults
    assert prepared.decision == tune.load(trained.decision_file)


def test_an_interrupted_fold_goes_on_as_if_nothing_had_happened(data, tmp_path):
    asked = iter([False, True])
    _, results = train_folds(data, tmp_path, "run", settings(), fold=0, stop=lambda: next(asked))
    assert [(result.finished, result.epochs) for result in results] == [(False, 2)]
    assert not completed(tmp_path / "run" / "fold-0")
    run, results = train_folds(data, tmp_path, "run", settings(), fold=0)
    assert results[0].finished
    undisturbed, _ = train_folds(data, tmp_path, "other", settings(), fold=0)
    mine, theirs = history(run), history(undisturbed)
    assert [row["epoch"] for row in mine] == [row["epoch"] for row in theirs] == ["1", "2", "3", "4"]
    assert [row["learning_rate"] for row in mine] == [row["learning_rate"] for row in theirs]
    # The same frames, optimiser state and schedule; only sums in another order differ.
    assert float(mine[-1]["loss"]) == pytest.approx(float(theirs[-1]["loss"]), rel=0.02)


TRAIN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from test_training import settings
from kaggle_nerve.training.run_folds import train_folds
train_folds(Path(sys.argv[1]), Path(sys.argv[2]), "run", settings("training.epochs=6"), fold=0)
"""


def test_kill_9_while_training_keeps_every_whole_epoch(data, tmp_path, request):
    state = tmp_path / "run" / "fold-0" / "checkpoint" / "state.json"
    words = [str(data), str(tmp_path), str(request.path.parent)]
    kill_when([TRAIN, *words], lambda: state.is_file() and json.loads(state.read_text())["epoch"] >= 2)
    kept = json.loads(state.read_text())["epoch"]
    told = Told()
    run, results = train_folds(data, tmp_path, "run", settings("training.epochs=6"), fold=0, reporter=told)
    assert any(f"going on after epoch {kept}" in line for line in told.lines)
    assert results[0].finished
    assert [row["epoch"] for row in history(run)] == [str(epoch) for epoch in range(1, 7)]
    assert not (run.fold_folder(0) / "checkpoint").exists()


PREDICT = """
import sys, time
from pathlib import Path
from kaggle_nerve.prediction import ensemble
from kaggle_nerve.runs import open_run
ensemble.CHUNK = 1
real = ensemble.probabilities
def slow(model, frames, *, batch, tta):
    time.sleep(0.2)
    yield from real(model, frames, batch=batch, tta=tta)
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
storage._flush = lambda path: time.sleep(60)  # the file is written, its name is not given yet
prepare([run], Path(sys.argv[1]), Path(sys.argv[4]))
"""


def kill_when(command: list[str], ready) -> None:
    """Start ``command`` and kill it as soon as ``ready()`` holds."""
    process = subprocess.Popen([sys.executable, "-c", *command])
    deadline = time.monotonic() + 120
    while not ready():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_kill_9_while_predicting_ends_as_if_nothing_had_happened(trained, data):
    predict_test(trained, data, force=True)
    wanted, table = np.array(open_test(trained).parts[0]), open_test(trained).table
    words = [str(data), str(trained.folder.parent), trained.name]
    kill_when([PREDICT, *words], (trained.test_folder / "partial.json").is_file)
    assert completed(trained.test_folder) is None
    with pytest.raises(NerveError, match="has no test probabilities"):
        open_test(trained)
    predict_test(trained, data)
    # Other batches, other order of sums: equal but for the last digit of a float16.
    np.testing.assert_allclose(open_test(trained).parts[0], wanted, atol=1e-3)
    np.testing.assert_allclose(open_test(trained).table.presence, table.presence, atol=1e-5)


def test_kill_9_while_writing_the_file_leaves_none_and_then_the_same(trained, data, tmp_path):
    wanted = prepare([trained], data, tmp_path / "wanted.csv").csv.read_bytes()
    out = tmp_path / "out"
    words = [str(data), str(trained.folder.parent), trained.name, str(out / "file.csv")]
    kill_when([WRITE, *words], lambda: any(path.stat().st_size for path in out.glob(".*file.csv")))
    assert not (out / "file.csv").exists()
    prepare([trained], data, out / "file.csv")
    assert (out / "file.csv").read_bytes() == wanted


def test_a_time_budget_ends_cleanly_with_the_schedule_at_its_end(data, tmp_path):
    started = time.monotonic()
    run, results = train_folds(
        data, tmp_path, "run", settings("training.epochs=5000"), fold=0, time_budget=20
    )
    assert time.monotonic() - started < 40
    assert results[0].finished
    rows = history(run)
    assert 1 <= len(rows) < 5000
    assert float(rows[-1]["learning_rate"]) < 0.2 * run.settings.optimiser.learning_rate
    assert completed(run.fold_folder(0))
    assert open_oof(open_run(tmp_path, "run"))


def test_patience_stops_early(data, tmp_path):
    changes = ("training.epochs=40", "training.patience=2", "optimiser.learning_rate=1e-8")
    run, results = train_folds(data, tmp_path, "run", settings(*changes), fold=0)
    assert results[0].finished
    assert results[0].epochs == results[0].best_epoch + 2 < 40
    assert len(history(run)) == results[0].epochs


def score(empty=0.0, full=0.0) -> EpochScore:
    return EpochScore(0.5, 0.0, 0.5, 0.5, empty, full)


def test_the_detector_counts_epochs_in_a_row():
    detector = CollapseDetector(2)
    detector.check(1, 1.0, score(empty=1))
    detector.check(2, 1.0, score())
    detector.check(3, 1.0, score(empty=1))
    with pytest.raises(CollapseError, match="empty for 2 epochs"):
        detector.check(4, 1.0, score(empty=1))
    detector = CollapseDetector(1)
    with pytest.raises(CollapseError, match="half the frame"):
        detector.check(1, 1.0, score(full=1))
    with pytest.raises(CollapseError, match="became nan"):
        CollapseDetector(9).check(1, float("nan"), score())


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
