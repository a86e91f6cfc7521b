"""A trained run predicts again: other views, other ways to combine, interrupted and not."""

import shutil

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from support import write_competition
from training_support import Told, settings

from kaggle_nerve.cli import backend, cli
from kaggle_nerve.data import cache as caches
from kaggle_nerve.data.frames import locate
from kaggle_nerve.errors import NerveError
from kaggle_nerve.maps import blending, matching
from kaggle_nerve.prediction import ensemble
from kaggle_nerve.prediction.ensemble import load_fold, predict_test
from kaggle_nerve.prediction.forward import ModelOutput, probabilities
from kaggle_nerve.prediction.held_out import predict_oof
from kaggle_nerve.prediction.stored import open_oof, open_test
from kaggle_nerve.runs import Run, open_run
from kaggle_nerve.storage import mark_complete, read_completion
from kaggle_nerve.training.run_folds import train_folds

FIGURES = ["presence", "agreement", "spread"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_competition(root, subjects=4, frames=6, test=7)
    return root


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    run, _ = train_folds(data, tmp_path_factory.mktemp("runs"), "small", settings("training.epochs=3"))
    return run


@pytest.fixture
def runs_dir(trained, tmp_path):
    """A copy of the run, to be spoiled."""
    shutil.copytree(trained.folder, tmp_path / "small")
    return tmp_path


def index(run: Run) -> pd.DataFrame:
    return pd.read_csv(run.test_folder / "index.csv")


def test_training_leaves_how_far_the_views_agree(trained):
    table = pd.concat([pd.read_csv(trained.fold(fold).oof_folder / "oof.csv") for fold in (0, 1)])
    assert list(table.columns) == ["subject", "img", "fold", *FIGURES]
    assert table[FIGURES].min().min() >= 0
    assert table[FIGURES].max().max() <= 1
    assert table.spread.max() > 0


def test_the_same_views_give_the_same_bytes(trained, data, runs_dir):
    run = Run(runs_dir / "small", trained.settings, views="hflip")
    predict_oof(run, data)
    for fold in (0, 1):
        for name in ("oof.npy", "oof.csv"):
            wanted = (trained.fold(fold).folder / name).read_bytes()
            assert (run.fold(fold).oof_folder / name).read_bytes() == wanted
    assert run.fold(0).oof_folder != trained.fold(0).oof_folder


def test_a_plain_run_has_nothing_to_predict_again(trained, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in trained.folder.rglob("*")}
    predict_oof(trained, tmp_path / "no data", force=True)
    assert {path: path.stat().st_mtime_ns for path in trained.folder.rglob("*")} == before


def test_other_views_of_the_held_out_frames(data, runs_dir):
    own, run = open_run(runs_dir, "small"), open_run(runs_dir, "small@flips-logits")
    with pytest.raises(NerveError, match="predict --run small@flips-logits"):
        open_oof(run)
    predict_oof(run, data)
    mine, others = open_oof(own), open_oof(run)
    keys = ["subject", "img", "fold"]
    assert others.table[keys].equals(mine.table[keys])
    assert others.source != mine.source
    assert np.abs(others.full(0) - mine.full(0)).max() > 1e-3


def test_only_what_is_missing_or_stale_is_predicted(data, runs_dir):
    run = open_run(runs_dir, "small@none")
    predict_oof(run, data)
    told = Told()
    predict_oof(run, data, reporter=told)
    assert (told.bars, len(told.lines)) == ([], 1)
    # As a kill in the middle of fold 1 leaves it.
    (run.fold(1).oof_folder / "complete.json").unlink()
    predict_oof(run, data, reporter=told)
    assert told.bars == ["Fold 1 out-of-fold"]
    before = np.load(run.fold(0).oof_folder / "oof.npy")
    shutil.copy(run.fold(1).model, run.fold(0).model)
    facts = read_completion(run.fold(0).folder)
    mark_complete(run.fold(0).folder, facts | {"model": run.fold(1).require_facts().model})
    predict_oof(run, data, reporter=told)
    assert told.bars == ["Fold 1 out-of-fold", "Fold 0 out-of-fold"]
    assert np.abs(np.load(run.fold(0).oof_folder / "oof.npy") - before).max() > 1e-3
    predict_oof(run, data, reporter=told, force=True)
    assert told.bars[2:] == ["Fold 0 out-of-fold", "Fold 1 out-of-fold"]


def test_other_training_data_is_refused(runs_dir, tmp_path):
    write_competition(tmp_path / "other", subjects=4, frames=4)
    run = open_run(runs_dir, "small@flips")
    with pytest.raises(NerveError, match="Fold 0 of run small@flips was trained on other data"):
        predict_oof(run, tmp_path / "other")
    assert not any(read_completion(run.fold(fold).oof_folder) for fold in (0, 1))


@pytest.mark.parametrize("combine", blending.METHODS)
def test_folds_are_combined_like_views(data, runs_dir, combine):
    run = open_run(runs_dir, f"small@flips-{combine}")
    predict_test(run, data)
    frames = caches.open_test(locate(data), run.settings.size).frames
    folds = []
    for fold in (0, 1):
        parts = list(probabilities(load_fold(run.fold(fold)), frames, batch=16, tta="flips", combine=combine))
        folds.append(ModelOutput(*(np.concatenate(part) for part in zip(*parts, strict=True))))
    found, table = np.load(run.test_folder / "probabilities.npy"), index(run)
    for row in range(len(frames)):
        wanted = blending.combine(np.stack([fold.masks[row] for fold in folds]), combine)
        np.testing.assert_allclose(found[row], wanted, atol=2e-3)
    for name in ("agreement", "spread"):
        wanted = np.mean([getattr(fold, name) for fold in folds], axis=0)
        np.testing.assert_allclose(table[name], wanted, atol=2e-6)


def test_an_interrupted_prediction_goes_on_with_all_its_columns(data, runs_dir, monkeypatch):
    run = open_run(runs_dir, "small@flips")
    predict_test(run, data)
    wanted, stored = index(run), np.load(run.test_folder / "probabilities.npy")
    table, asked = open_test(run).parts[0]._table, []

    class Interrupted(Exception):  # noqa: N818
        """A Ctrl-C that pytest does not take for its own."""

    def few(model, frames, **options):
        for output in probabilities(model, frames, **options):
            if len(asked) == 4:
                raise Interrupted
            asked.append(len(output.presence))
            yield output

    object.__setattr__(run.settings.prediction, "batch", 2)
    monkeypatch.setattr(ensemble, "CHUNK", 1)
    monkeypatch.setattr(ensemble, "probabilities", few)
    with pytest.raises(Interrupted):
        predict_test(run, data, force=True)
    assert not read_completion(run.test_folder)
    assert asked == [2, 2, 2, 2]  # two chunks, by two folds
    asked.clear()
    predict_test(run, data)
    assert asked == [2, 2, 1, 1]
    np.testing.assert_allclose(index(run)[["img", *FIGURES]], wanted[["img", *FIGURES]], atol=1e-5)
    np.testing.assert_allclose(np.load(run.test_folder / "probabilities.npy"), stored, atol=1e-3)
    # The matching itself, not its result: where it is steep, a step of float16 becomes several.
    np.testing.assert_allclose(open_test(run).parts[0]._table, table, atol=1e-3)
    assert wanted.spread.max() > 1e-4


def test_predict_does_held_out_and_test_frames(data, runs_dir, monkeypatch):
    monkeypatch.setattr(backend, "load_keras", lambda: None)
    words = ["--runs", str(runs_dir), "--data", str(data)]
    done = CliRunner().invoke(cli, ["predict", "--run", "small@scales", *words])
    assert done.exit_code == 0, done.output
    run = open_run(runs_dir, "small@scales")
    assert str(run.test_folder) in done.output
    assert (len(open_oof(run)), len(open_test(run))) == (24, 7)
    done = CliRunner().invoke(cli, ["predict", "--run", "small@mirrors", *words])
    assert done.exit_code == 1
    assert "known are none, hflip, flips, scales" in done.output


def test_what_is_opened_has_the_scale_of_single_folds(data, runs_dir):
    run = open_run(runs_dir, "small@flips")
    predict_test(run, data)
    found, stored = open_test(run), index(run)
    folds = np.load(run.test_folder / "fold_presences.npy")
    np.testing.assert_allclose(folds.mean(axis=1), stored.presence, atol=1e-6)
    assert found.presence.tolist() == matching.match_values(stored.presence.to_numpy(), folds).tolist()
    raw = np.load(run.test_folder / "probabilities.npy").astype(float)
    order = np.argsort(raw[3], axis=None)
    assert (np.diff(found.parts[0][3].reshape(-1)[order]) >= 0).all()
    assert found.parts[0][3].std() > 1.02 * raw[3].std()
