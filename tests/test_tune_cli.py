"""`tune` as people meet it, on runs of made-up predictions; and what bad input gets."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from cli_support import command
from click.testing import Result
from decision_support import stored, write_run

from kaggle_nerve.storage import mark_complete, read_completion, write_text


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("tune")
    (root / "data" / "train").mkdir(parents=True)
    table = stored(subjects=6, frames=8)[1]
    table.to_csv(root / "data" / "train_masks.csv", index=False)
    write_run(root / "runs" / "one")
    write_run(root / "runs" / "two", shift=-1)
    return root


@pytest.fixture
def root(original, tmp_path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "copy"))


def tune(root: Path, *words: str, code: int = 0) -> Result:
    return command(root, "tune", "--data", "data", *words, code=code)


def refused(root: Path, *words: str) -> str:
    """The one sentence that bad input gets, after the bars."""
    said = tune(root, *words, code=1).stderr.strip().splitlines()
    assert said[-1].startswith("Error: ")
    assert sum(line.startswith("Error: ") for line in said) == 1
    assert not (root / "runs" / "one" / "decision.json").exists()
    return said[-1]


def test_people_read_what_was_compared_and_taken(root):
    done = tune(root, "--run", "one")
    for word in (
        "Rules",
        "Shapes",
        "thresholds",
        "expected",
        "Calibration error",
        "Rule ",
        "perfect presence",
    ):
        assert word in done.stdout
    assert done.stdout.count("\n* ") == 3  # a rule, a shape, and what the star means
    assert "Comparing rules: 36/36 subjects" in done.stderr
    again = tune(root, "--run", "one")
    assert again.stdout == done.stdout
    assert "Measuring" not in again.stderr


def test_machines_read_json_that_is_what_lies_on_disk(root):
    told = json.loads(tune(root, "--run", "one", "--json").stdout)
    stored = json.loads((root / "runs" / "one" / "decision.json").read_text())
    assert stored.pop("review").keys() == {"sha256", "dice", "columns", "label"}
    assert told == stored
    assert told["figures"]["frames"] == 48


def test_runs_are_blended_in_any_order(root):
    both = tune(root, "--run", "one", "--run", "two", "--json")
    assert tune(root, "--run", "two", "--run", "one", "--json").stdout == both.stdout
    names = [row["name"] for row in json.loads(both.stdout)["comparison"]["blends"]]
    assert names == ["one", "two", "mean", "logits", "agreement", "weights", "vote"]


def test_a_choice_can_be_made_by_hand(root):
    words = ("--rule", "expected", "--shape", "hull", "--blend", "logits", "--run", "one", "--run", "two")
    told = tune(root, *words).stdout
    assert "* logits" in told
    assert "* hull" in told
    assert (
        "Rule expected: the mask with the largest expected Dice, where it is worth more than an empty one; "
        "presence by the classifier; runs combined by logits; shape hull"
    ) in told
    assert "* chosen: rule expected, shape hull, blend logits by hand" in told
    assert "No such" not in tune(root, "--run", "one", "--rule", "round", code=2).stderr
    assert "no blend 'round'" in refused(root, "--run", "one", "--run", "two", "--blend", "round")


def test_a_choice_by_hand_stays_until_all_is_compared_again(root):
    tune(root, "--run", "one", "--rule", "fixed")
    again = tune(root, "--run", "one")
    assert "Rule fixed" in again.stdout
    assert "* chosen: rule fixed by hand (`kaggle-nerve tune --force` compares all again)" in again.stdout
    trained_again(root / "runs" / "one" / "fold-1")
    other = tune(root, "--run", "one")
    assert "The decision is learned anew, with rule fixed as chosen by hand before" in other.stderr
    assert "Rule fixed" in other.stdout
    shaped = tune(root, "--run", "one", "--shape", "hull").stdout
    assert "* chosen: rule fixed, shape hull by hand" in shaped
    assert "; shape hull; rule, shape chosen by hand" in shaped
    assert "by hand" not in tune(root, "--run", "one", "--force").stdout


def trained_again(fold: Path) -> None:
    """As if the fold had been deleted and trained: another model, other predictions."""
    np.save(fold / "oof.npy", np.load(fold / "oof.npy") * np.float16(0.9))
    mark_complete(fold, read_completion(fold) | {"model": "another"})


def test_a_fold_that_was_trained_again_is_learned_from_anew(root):
    before = json.loads(tune(root, "--run", "one", "--json").stdout)
    trained_again(root / "runs" / "one" / "fold-1")
    after = json.loads(tune(root, "--run", "one", "--json").stdout)
    assert after["source"] != before["source"]
    assert after["figures"] != before["figures"]


def test_a_share_of_masks_far_from_the_truth_is_warned_of(root):
    for fold in (root / "runs" / "one").glob("fold-*"):
        np.save(fold / "oof.npy", np.zeros_like(np.load(fold / "oof.npy")))
    said = tune(root, "--run", "one", "--rule", "fixed").stderr
    assert "Warning: out of fold, masks are predicted on 0.0% of the frames, but 50.0%" in said


def test_frames_that_the_run_was_not_trained_on_are_refused(root):
    for row in pd.read_csv(root / "data" / "train_masks.csv").itertuples():
        (root / "data" / "train" / f"{row.subject}_{row.img}.tif").write_bytes(b"x")
    assert "Run one was trained on other data than that in data; name its own" in refused(
        root, "--run", "one"
    )


def test_a_decision_that_lies_there_says_if_other_data_is_named(root):
    tune(root, "--run", "one")
    for row in pd.read_csv(root / "data" / "train_masks.csv").itertuples():
        (root / "data" / "train" / f"{row.subject}_{row.img}.tif").write_bytes(b"x")
    said = tune(root, "--run", "one").stderr
    assert "Run one was trained on other data than that in data. The decision is the one that was" in said


def test_runs_that_cannot_be_blended_are_named(root):
    assert "Run one is named twice" in refused(root, "--run", "one", "--run", "one")
    assert "only run one, so nothing to blend" in refused(root, "--run", "one", "--blend", "logits")


def test_it_needs_no_deep_learning_framework(root):
    script = (
        "import sys; sys.argv[1:] = ['tune', '--run', 'one', '--data', 'data'];"
        "from kaggle_nerve.cli import cli; cli(standalone_mode=False);"
        "print([m for m in ('keras', 'tensorflow', 'jax') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_decision_of_the_first_version_is_learned_anew(root):
    write_text(root / "runs" / "one" / "decision.json", '{"rule": {"threshold": 0.5}, "source": "x"}')
    done = tune(root, "--run", "one")
    assert "not a decision of this version" in done.stderr
    assert "learned anew" in done.stderr
    assert "Stored in runs/one/decision.json" in done.stdout


def test_an_unfinished_fold_is_told(root):
    (root / "runs" / "one" / "fold-1" / "complete.json").unlink()
    done = tune(root, "--run", "one")
    assert "Run one has 2 of its 3 folds" in done.stderr
    assert "of 4 subjects" in done.stdout


@pytest.mark.parametrize("name", ["oof.npy", "oof.csv"])
def test_lost_predictions_of_a_fold_are_named(root, name):
    (root / "runs" / "one" / "fold-2" / name).unlink()
    said = refused(root, "--run", "one")
    assert f"fold-2/{name} cannot be read" in said
    assert "delete runs/one/fold-2 and run `kaggle-nerve train-folds` again" in said


def test_half_a_file_of_predictions_is_named(root):
    path = root / "runs" / "one" / "fold-2" / "oof.npy"
    path.write_bytes(path.read_bytes()[:-1000])
    assert "fold-2/oof.npy cannot be read" in refused(root, "--run", "one")


@pytest.mark.parametrize("value", [np.nan, np.inf, 7, -0.1])
def test_what_is_no_probability_is_named(root, value):
    path = root / "runs" / "one" / "fold-0" / "oof.npy"
    maps = np.load(path)
    maps[3, 10, 10] = value
    np.save(path, maps)
    said = refused(root, "--run", "one")
    assert "a probability that is no number from 0 to 1" in said


@pytest.mark.parametrize(
    ("column", "value"),
    [("presence", "nan"), ("presence", "much"), ("presence", -0.2), ("agreement", "nan"), ("spread", 1.5)],
)
def test_a_figure_that_is_no_share_is_named(root, column, value):
    path = root / "runs" / "one" / "fold-0" / "oof.csv"
    table = pd.read_csv(path).astype({column: object})
    table.loc[0, column] = value
    table.to_csv(path, index=False)
    said = refused(root, "--run", "one")
    assert f"fold-0/oof.csv has a {column} that is no number from 0 to 1; delete runs/one/fold-0" in said


@pytest.mark.parametrize("column", ["presence", "subject"])
def test_a_missing_column_is_named(root, column):
    path = root / "runs" / "one" / "fold-0" / "oof.csv"
    pd.read_csv(path).drop(columns=column).to_csv(path, index=False)
    assert f"fold-0/oof.csv has no column {column}" in refused(root, "--run", "one")


@pytest.mark.parametrize("array", [np.zeros((16, 42)), np.full((16, 42, 58), "x")])
def test_an_array_of_something_else_is_named(root, array):
    np.save(root / "runs" / "one" / "fold-0" / "oof.npy", array)
    assert "fold-0/oof.npy holds an array of" in refused(root, "--run", "one")


def test_other_data_is_named(root):
    path = root / "data" / "train_masks.csv"
    lines = path.read_text().splitlines()
    write_text(path, "\n".join(line for line in lines if not line.startswith("3,")) + "\n")
    assert "no mask rows for some out-of-fold frames" in refused(root, "--run", "one")


def test_a_table_of_another_competition_is_named(root):
    write_text(root / "data" / "train_masks.csv", "id,rle_mask\n575d24d81d,1 1\n")
    assert "is not the competition's training table: its header is id,rle_mask" in refused(
        root, "--run", "one"
    )


def test_views_that_were_not_predicted_are_named(root):
    assert "run `kaggle-nerve predict --run one@flips`" in refused(root, "--run", "one@flips")
