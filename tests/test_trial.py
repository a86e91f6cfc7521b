"""A run tried on single pictures: what it says, what it writes, what it refuses."""

import json
import shutil

import cv2
import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from support import write_competition
from training_support import Told, settings

from kaggle_nerve.cli import backend, cli
from kaggle_nerve.competition import rle
from kaggle_nerve.data.picture import read_picture
from kaggle_nerve.errors import NerveError
from kaggle_nerve.pipeline import prepare
from kaggle_nerve.prediction.single import resize_mask
from kaggle_nerve.prediction.stored import open_test
from kaggle_nerve.runs import Run, open_run
from kaggle_nerve.training.run_folds import train_folds
from kaggle_nerve.trial import try_frames


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_competition(root, subjects=4, frames=8, test=7)
    return root


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory) -> Run:
    return train_folds(data, tmp_path_factory.mktemp("runs"), "discs", settings("training.epochs=6"))[0]


@pytest.fixture(scope="module")
def prepared(trained, data, tmp_path_factory):
    """The rows that `submit` would send."""
    csv = tmp_path_factory.mktemp("out") / "rows.csv"
    prepare([trained], data, csv)
    return pd.read_csv(csv, keep_default_na=False).set_index("img").pixels


@pytest.fixture
def bare(trained, tmp_path) -> Run:
    """A copy of the run with its models and predictions alone."""
    skipped = shutil.ignore_patterns("test", "decision.json", "shape-prior.npz")
    shutil.copytree(trained.folder, tmp_path / "runs" / "discs", ignore=skipped)
    return open_run(tmp_path / "runs", "discs")


def test_test_frames_one_by_one_get_what_submit_gives_them(trained, prepared, data, tmp_path):
    told = Told()
    frames = [data / "test" / f"{img}.tif" for img in prepared.index]
    found = try_frames(trained, frames, tmp_path / "out", tmp_path, reporter=told)
    assert len(told.lines) == 1  # the rule: the decision lies there, and so does the scale
    np.testing.assert_allclose([one.presence for one in found], open_test(trained).presence, atol=0.01)
    assert {bool(one.area) for one in found} == {True, False}
    for one, text in zip(found, prepared, strict=True):
        mask = read_picture(one.mask)
        wanted = rle.decode(text).astype(bool)
        assert set(np.unique(mask)) <= {0, 255}
        assert np.count_nonzero(mask) == one.area
        assert np.count_nonzero((mask > 0) != wanted) <= 0.01 * max(wanted.sum(), 1)


def test_a_picture_of_any_kind_is_answered_at_its_own_size(trained, prepared, data, tmp_path):
    frame = cv2.imread(str(data / "test" / "1.tif"), cv2.IMREAD_UNCHANGED)
    big = cv2.resize(cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR), (700, 500)).astype(np.uint16) * 257
    cv2.imwrite(str(tmp_path / "big.png"), big)
    (one,) = try_frames(trained, [tmp_path / "big.png"], tmp_path / "new" / "seen.png", data)
    assert (one.overlay, one.mask) == (tmp_path / "new" / "seen.png", tmp_path / "new" / "seen-mask.png")
    assert one.area == pytest.approx(rle.area(prepared[1]), rel=0.1)
    assert one.verdict == f"mask of {one.area} pixels at 580x420"
    mask, drawn = cv2.imread(str(one.mask), cv2.IMREAD_UNCHANGED), cv2.imread(str(one.overlay))
    assert mask.shape == (500, 700)
    assert np.count_nonzero(mask) / mask.size == pytest.approx(one.area / (420 * 580), rel=0.02)
    assert drawn.shape[0] > 500
    coloured = np.ptp(drawn[:500].astype(int), axis=2) > 100
    assert 0 < coloured.mean() < 0.02


def test_masks_change_their_size_and_keep_their_share():
    mask = np.zeros((420, 580), np.uint8)
    mask[100:200, 150:350] = 1
    for size in ((420, 580), (101, 97), (840, 1200)):
        found = resize_mask(mask, size)
        assert found.shape == size
        assert found.dtype == bool
        assert found.mean() == pytest.approx(mask.mean(), rel=0.03)


def test_a_run_that_learned_nothing_yet_says_by_what_it_decides(bare, data, tmp_path):
    told = Told()
    (one,) = try_frames(bare, [data / "test" / "1.tif"], tmp_path / "a.png", tmp_path / "no", reporter=told)
    assert one.overlay.is_file()
    learned, rule, scale = told.lines
    assert "no learned decision, and none can be learned now: There is no data directory" in learned
    assert rule.startswith("Rule default: pixel threshold 0.5, minimum area 2684 pixels")
    assert "no test predictions by its 2 models" in scale
    assert not bare.decision_file.exists()


def test_a_decision_is_learned_where_the_data_is_there(bare, data, tmp_path):
    told = Told()
    try_frames(bare, [data / "test" / "1.tif"], tmp_path / "a.png", data, reporter=told)
    assert bare.decision_file.is_file()
    assert told.lines[-2].startswith("Rule ")


def test_a_decision_that_lies_there_needs_no_predictions(trained, prepared, bare, data, tmp_path):
    shutil.copy(trained.decision_file, bare.decision_file)
    for fold in (0, 1):
        (bare.fold(fold).folder / "oof.npy").unlink()
    told = Told()
    try_frames(bare, [data / "test" / "1.tif"], tmp_path / "a.png", tmp_path / "no", reporter=told)
    kept, rule = told.lines[:2]
    assert "keeps its earlier decision, whichever folds that was learned on" in kept
    assert "oof.npy cannot be read" in kept
    assert rule.startswith("Rule ")
    assert "default" not in rule


def test_a_decision_of_other_folds_is_used_with_a_word(trained, prepared, bare, data, tmp_path):
    shutil.copy(trained.decision_file, bare.decision_file)
    shutil.rmtree(bare.fold(1).folder)
    told = Told()
    try_frames(bare, [data / "test" / "1.tif"], tmp_path / "a.png", tmp_path / "no", reporter=told)
    assert any("since none can be learned now: There is no data directory" in line for line in told.lines)


def test_one_fold_needs_no_scale(bare, data, tmp_path):
    shutil.rmtree(bare.fold(1).folder)
    told = Told()
    try_frames(bare, [data / "test" / "1.tif"], tmp_path / "a.png", tmp_path / "no", reporter=told)
    assert not any("test predictions" in line for line in told.lines)


def test_what_cannot_be_written_is_refused_before_anything_is_predicted(trained, data, tmp_path):
    frame = data / "test" / "1.tif"
    other = shutil.copy(frame, tmp_path / "1.tif")
    taken = shutil.copy(frame, tmp_path / "1-mask.png")
    for frames, out, told in (
        ([frame], tmp_path / "a.jpg", "must end in .png, or be a folder"),
        ([frame, taken], tmp_path / "a.png", "is one picture for 2 frames"),
        ([frame, other], tmp_path / "out", "1-overlay.png would be written for several frames"),
        ([frame, taken], tmp_path, "1-mask.png would overwrite a frame"),
    ):
        with pytest.raises(NerveError, match=told):
            try_frames(trained, frames, out, data)
    with pytest.raises(NerveError, match=r"There is no file .*nowhere\.png"):
        try_frames(trained, [frame, tmp_path / "nowhere.png"], tmp_path / "out", data)
    assert not (tmp_path / "out").exists()


def test_people_and_machines_read_the_verdicts(trained, prepared, data, tmp_path, monkeypatch):
    monkeypatch.setattr(backend, "load_keras", lambda: None)
    runs = ["--runs", str(trained.folder.parent), "--data", str(data)]
    frames = [word for img in (1, 2) for word in ("--frame", str(data / "test" / f"{img}.tif"))]
    words = ["predict", "--run", "discs", *runs, *frames, "--out", str(tmp_path / "out")]
    told = CliRunner().invoke(cli, words)
    assert told.exit_code == 0, told.output
    first, second = told.stdout.splitlines()
    assert f"{data}/test/1.tif: presence 0." in first
    assert first.endswith(f"pixels at 580x420; {tmp_path}/out/1-overlay.png")
    assert "empty" in second
    shown = json.loads(CliRunner().invoke(cli, [*words, "--json"]).stdout)
    assert [one["empty"] for one in shown] == [False, True]
    assert shown[0]["area"] > 0
    assert shown[0]["mask"] == f"{tmp_path}/out/1-mask.png"


@pytest.mark.parametrize("words", [["--frame", "a.png"], ["--out", "a.png"]])
def test_frame_and_out_belong_together(words):
    told = CliRunner().invoke(cli, ["predict", "--run", "any", *words])
    assert told.exit_code == 2
    assert "--frame and --out belong together" in told.output
