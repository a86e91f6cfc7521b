"""Trainings that go wrong for reasons of the data or the time, through `train-folds`: sentences and exit codes."""

import math
import re

import pandas as pd
import pytest
from cli_support import command
from support import write_competition
from training_support import FAST

from kaggle_nerve.runs import open_run
from kaggle_nerve.training import epochs, run_folds
from kaggle_nerve.training.validation import EpochScore

EMPTY = EpochScore(0.5, math.nan, math.nan, 0.95, 1.0, 0.0, 0.0, 0.0, 0.98)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_competition(root, subjects=2, frames=4)
    return root


@pytest.fixture
def train(data, tmp_path, monkeypatch):
    """Train a run ``x`` of tiny networks, with more words and in this process; return what the user reads."""
    original = run_folds.train_folds
    monkeypatch.setattr(
        run_folds, "train_folds", lambda *words, isolate, **options: original(*words, **options)
    )
    changes = [word for change in FAST for word in ("--set", change)]

    def run(*words: str, code: int = 0) -> str:
        told = command(
            tmp_path,
            "train-folds",
            "--preset",
            "tiny",
            *changes,
            "--run",
            "x",
            "--data",
            data,
            *words,
            code=code,
        )
        return told.stdout + told.stderr

    return run


def script(monkeypatch, *scores: EpochScore) -> None:
    """Let epochs score what the test says, the last one for ever."""
    rest = list(scores)
    monkeypatch.setattr(epochs, "score_epoch", lambda *_, **__: rest.pop(0) if rest[1:] else rest[0])


def test_a_budget_below_one_epoch_leaves_the_fold_for_later(train, tmp_path):
    told = train("--fold", "0", "--time-budget", "1s", code=1)
    assert "Fold 0 stays untrained: its part of the time budget is shorter than one epoch of " in told
    assert "the same command with a longer budget trains it." in told
    assert "Fold 0 stopped after 0 epochs" in told
    assert not open_run(tmp_path / "runs", "x").finished_folds()
    assert "Fold 0 finished after 4 epochs" in train("--fold", "0")
    told = train("--fold", "0", "--time-budget", "30m")
    assert "1 of 1 folds are finished already; --run NEW --start-from x trains them further." in told


def test_of_epochs_that_drop_every_mask_the_one_with_the_best_masks_is_kept(train, tmp_path, monkeypatch):
    scores = [
        EpochScore(0.5, present, 0.5, 0.95, 0.9, 0.0, 0.0, 0.0, 0.98)
        for present in (math.nan, 0.03, 0.34, 0.2)
    ]
    script(monkeypatch, *scores)
    # As most presets did before they averaged weights.
    told = train("--fold", "0", "--set", "training.average=best", "--set", "training.patience=9")
    assert "(epoch 3)" in told
    assert open_run(tmp_path / "runs", "x").fold(0).require_facts().best_epoch == 3


@pytest.mark.long
def test_held_out_subjects_without_masks_are_no_collapse(train, tmp_path, monkeypatch):
    script(monkeypatch, EMPTY)
    write_competition(tmp_path, subjects=2, frames=4)
    table = tmp_path / "train_masks.csv"
    rows = pd.read_csv(table, keep_default_na=False)
    rows.loc[rows.subject == 1, "pixels"] = ""
    rows.to_csv(table, index=False)
    for path in (tmp_path / "train").glob("1_*_mask.tif"):
        path.unlink()
    words = ("--data", str(tmp_path), "--set", "training.collapse_epochs=2")
    # One of the two folds holds the subject without masks out, the other one the subject with masks.
    told = train(*words, code=1)
    assert re.search(
        r"has been empty for the last \d epochs \(to epoch \d\); train another run \(--run NAME\)", told
    )
    assert told.count("Every predicted mask has been empty") == 2  # said at once, and at the end
    assert "finished after 4 epochs" in told
    assert "Finished folds are kept; the same command tries the others again." in told


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--folds", "5"), "5 folds need 5 subjects or more; the data has 2: set --folds 2 or less."),
        (("--folds", "1/9"), "A hold-out 1/9 of 2 subjects leaves none to train on; set --folds 1/1."),
        (
            ("--set", "training.one_per_subject=true", "--set", "training.batch=4"),
            "training.batch=4 is more than the 1 subjects to train on, and training.one_per_subject is set; set "
            "training.batch=1 or less.",
        ),
        (
            ("--set", "model.encoder=resnet50", "--set", "model.weights=x.h5"),
            'model.weights = "x.h5" is not a file',
        ),
        (
            ("--set", "model.encoder=resnet50", "--set", "model.down=stride"),
            'model.down = "stride" does nothing with model.encoder = "resnet50"',
        ),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) else "",
)
def test_what_cannot_begin_leaves_no_run(train, tmp_path, words, sentence):
    assert sentence in train(*words, code=1)
    assert not (tmp_path / "runs").exists()


def test_one_subject_is_not_sent_in_a_circle(train, tmp_path):
    write_competition(tmp_path, subjects=1, frames=4)
    for folds in ("2", "1/1"):
        told = train("--data", str(tmp_path), "--folds", folds, code=1)
        assert "The training data has one subject" in told
        assert "add frames of another subject" in told


@pytest.mark.long
def test_a_run_without_any_epoch_takes_other_settings(train, tmp_path):
    """Something that only shows in training, such as too little time, must not bind the run's name for ever."""
    train("--fold", "0", "--time-budget", "1s", code=1)
    assert "Fold 0 finished" in train("--fold", "0", "--set", "training.epochs=1", "--set", "seed=7")
    assert open_run(tmp_path / "runs", "x").settings.seed == 7
    told = train("--fold", "0", "--set", "training.epochs=2", "--set", "seed=7", code=1)
    assert "Run x was made with training.epochs = 1, not 2" in told
