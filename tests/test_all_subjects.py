"""The fold that holds nobody out: its model is trained on every subject and joins the ensemble of test frames."""

import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from support import write_competition
from training_support import Told, fold_job, history, numbers, settings

from kaggle_nerve.cli import cli
from kaggle_nerve.data import folds as folding
from kaggle_nerve.errors import NerveError
from kaggle_nerve.pipeline import prepare
from kaggle_nerve.prediction.ensemble import combine_models, load_fold, predict_test
from kaggle_nerve.prediction.forward import probabilities
from kaggle_nerve.prediction.single import predict_frames
from kaggle_nerve.prediction.stored import open_oof, open_test
from kaggle_nerve.report.gather import gather
from kaggle_nerve.runs import Fold, FoldResult, adopting
from kaggle_nerve.settings import apply_changes, load_preset
from kaggle_nerve.settings.schema import ALL
from kaggle_nerve.storage import mark_complete, read_completion
from kaggle_nerve.training import run_folds
from kaggle_nerve.training.fold import train_fold
from kaggle_nerve.training.run_folds import train_folds

CONDITIONAL = "loss.empty_frames=0"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_competition(root, subjects=4, frames=8, test=5)
    return root


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """A run of two folds and a model of all subjects, of maps that say P(pixel | there is a mask)."""
    told = Told()
    runs_dir = tmp_path_factory.mktemp("runs")
    run, results = train_folds(data, runs_dir, "run", settings("folds=2+all", CONDITIONAL), reporter=told)
    assert [(result.fold, result.finished) for result in results] == [(0, True), (1, True), (ALL, True)]
    assert results[-1].dice is None
    assert (
        results[-1].sentence
        == "Fold all finished after 4 epochs; it holds nobody out, so it has no score of its own"
    )
    return run


def test_it_is_trained_on_every_frame_and_scored_on_none(trained):
    folder = trained.fold(ALL).folder
    rows = history(folder)
    assert [int(row["train_frames"]) for row in rows] == [32] * 4
    assert [row["dice"] for row in rows] == [""] * 4
    assert {path.name for path in folder.iterdir()} >= {"model.keras", "history.csv", "complete.json"}
    assert not list(folder.glob("oof*"))
    assert "dice" not in read_completion(folder)


def test_the_decision_is_that_of_the_folds(trained):
    stored = open_oof(trained)
    assert len(stored) == 32
    assert set(stored.table.fold) == {0, 1}
    assert numbers(trained.finished_folds()) == [0, 1]
    assert numbers(trained.test_folds()) == [0, 1, ALL]


def test_the_ensemble_has_its_model_and_the_scale_of_the_folds(trained, data):
    told = Told()
    predict_test(trained, data, reporter=told)
    assert "Predicting with folds 0, 1, all of run " in "\n".join(told.lines)
    assert read_completion(trained.test_folder)["folds"] == [0, 1, ALL]
    frames = np.load(next(path for path in data.glob(".cache/*/frames.npy") if len(np.load(path)) == 5))
    options = {"batch": 5, "tta": "hflip"}
    alone = [next(probabilities(load_fold(trained.fold(fold)), frames, **options)) for fold in (0, 1, ALL)]
    mean = np.mean([one.masks for one in alone], axis=0)
    np.testing.assert_allclose(np.load(trained.test_folder / "probabilities.npy"), mean, atol=2e-3)
    folds = np.load(trained.test_folder / "fold_presences.npy")
    np.testing.assert_allclose(folds, np.stack([one.presence for one in alone[:2]], axis=1), atol=1e-5)
    assert np.load(trained.test_folder / "fold_levels.npy").sum(axis=1).tolist() == [2 * 45 * 62] * 5
    assert (open_test(trained).presences.min(), open_test(trained).presences.max()) == pytest.approx(
        np.quantile(folds, [0.1, 0.9]), abs=1e-5
    )
    # A picture that belongs to no competition is seen by the same three. Between five known values the matching
    # is steep, so that a last digit of the network's is a fourth one here.
    single = predict_frames(trained, list(frames))
    np.testing.assert_allclose(single.presence, open_test(trained).presence, atol=2e-3)


def test_figures_of_the_folds_leave_it_out():
    class One:
        def __init__(self, value: float):
            self.masks, self.presence = np.full((1, 4, 6), value, np.float32), np.array([value], np.float32)
            self.agreement, self.spread = np.ones(1), np.zeros(1)

    said = combine_models([One(0.0), One(0.6), One(0.9)], 2, "mean")
    assert said["presence"] == pytest.approx([0.5])
    np.testing.assert_allclose(said["fold_presences"], [[0.0, 0.6]], rtol=1e-6)
    assert said["fold_levels"][0, [0, 153]].tolist() == [24, 24]
    assert said["fold_levels"].sum() == 48


def test_a_valid_file_comes_of_it_and_a_page(trained, data, tmp_path):
    prepared = prepare([trained], data, tmp_path / "out.csv")
    assert prepared.report.rows == 5
    assert prepared.decision.comparison["rules"][0].name == "thresholds"
    contents = gather(trained, data, tmp_path)
    assert [fold.number for fold in contents.folds] == [0, 1, ALL]
    assert contents.test.folds == [0, 1, ALL]
    assert contents.oof.surface.label == "minimum presence"


def test_it_can_be_added_to_a_run_of_folds(data, tmp_path):
    chosen = settings("training.average=best")
    job = fold_job(data, tmp_path, chosen)
    for fold, best in ((0, 3), (1, 1)):
        folder = job.fold.run.fold(fold).folder
        mark_complete(
            folder, {"epochs": 9, "best_epoch": best, "settings": "", "source": job.frames.cache.source}
        )
    run, results = train_folds(data, tmp_path, "run", chosen, fold=ALL)
    # As many epochs as the folds' best ones, in the middle of the two.
    assert [(result.fold, result.epochs) for result in results] == [(ALL, 2)]
    assert numbers(run.test_folds()) == [0, 1, ALL]


def test_a_time_budget_is_dealt_by_the_frames(monkeypatch):
    dealt = {}

    def trained_at_once(job):
        dealt[job.fold.number] = job.deadline - time.monotonic()
        return FoldResult(job.fold.number, True, 1, 1, 0.5, "ema")

    monkeypatch.setattr(run_folds, "train_fold", trained_at_once)
    folds, table = [Fold(None, number) for number in (0, 1, 2, ALL)], pd.DataFrame({"fold": [0, 1, 2]})
    run_folds._one_by_one(folds, None, table, time.monotonic() + 90, Told(), lambda: False)
    # Of three folds each is trained on two thirds of the subjects; time that is left is the next one's.
    assert dealt == pytest.approx({0: 20, 1: 90 / 3.5, 2: 36, ALL: 90}, abs=0.5)
    # So it is where each fold has a process of its own, as the command line gives it.
    assert run_folds.time_portions(folds, 1, 3) == pytest.approx([20 / 90, 1 / 3.5, 0.4, 1])


@pytest.mark.long
def test_it_goes_on_where_it_was_stopped(data, tmp_path):
    chosen = settings(
        "training.average=top", "training.patience=1", "optimiser.schedule=plateau", "optimiser.plateau=1"
    )
    job = fold_job(data, tmp_path, chosen, stop=lambda: True)
    job = replace(job, fold=job.fold.run.fold(ALL))
    stopped = train_fold(job)
    assert (stopped.finished, stopped.epochs) == (False, 1)
    finished = train_fold(replace(job, stop=lambda: False))
    # Patience and the plateau wait for scores, of which there are none.
    assert (finished.finished, finished.epochs) == (True, 4)
    rates = [float(row["learning_rate"]) for row in history(job.fold.folder)]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < rates[0] / 5


def test_a_run_from_elsewhere_brings_it(trained, tmp_path):
    adopting.adopt(trained.folder, tmp_path)
    assert read_completion(tmp_path / "run" / "fold-all")


@pytest.mark.parametrize("folds", ["5+all", "42/5+all"])
def test_the_setting_names_it(folds):
    chosen = apply_changes(load_preset("tiny"), (f"folds={folds}",))
    assert chosen.folds == folds


@pytest.mark.parametrize("folds", ["1+all", "+all", "5+ALL", "5+all+all", "all"])
def test_other_spellings_are_refused(folds):
    with pytest.raises(NerveError, match=r"folds = .* must be a number from 2"):
        apply_changes(load_preset("tiny"), (f'folds="{folds}"',))


def test_the_folds_are_those_of_the_number():
    frames = pd.DataFrame({"subject": np.repeat(np.arange(1, 11), 6), "has_mask": np.arange(60) % 3 == 0})
    pd.testing.assert_frame_equal(folding.assign(frames, "5+all", 3), folding.assign(frames, "5", 3))
    rows, held = folding.split(frames, folding.assign(frames, "5", 0), ALL)
    assert (rows.tolist(), held.tolist()) == (list(range(60)), [])


def test_the_command_line_knows_it(monkeypatch, tmp_path):
    from click.testing import CliRunner

    asked = {}

    def train(data_dir, runs_dir, name, chosen, **options):
        asked.update(options)
        result = FoldResult(ALL, True, 4, 0, -1.0, "ema")
        return type("Run", (), {"name": name, "folder": tmp_path})(), [result]

    monkeypatch.setattr(run_folds, "train_folds", train)
    (tmp_path / "train").mkdir()
    words = ["train-folds", "--preset", "tiny", "--data", str(tmp_path), "--runs", str(tmp_path), "--fold"]
    done = CliRunner().invoke(cli, [*words, "all"])
    assert done.exit_code == 0, done.output
    assert asked["fold"] == ALL
    assert "Fold all finished after 4 epochs" in done.output
    assert CliRunner().invoke(cli, [*words, "-1"]).exit_code == 2
    assert CliRunner().invoke(cli, [*words, "none"]).exit_code == 2
