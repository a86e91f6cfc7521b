"""Names of runs, and of runs that predict with other views."""

import pytest

from kaggle_nerve.errors import NerveError
from kaggle_nerve.runs import Run, create, open_run
from kaggle_nerve.settings import Settings, apply_changes, load_preset, save_settings


@pytest.fixture
def runs_dir(tmp_path):
    for name, change in (("small", "prediction.tta=hflip"), ("voting", "prediction.combine=agreement")):
        save_settings(apply_changes(load_preset("tiny"), (change,)), tmp_path / name / "settings.toml")
    return tmp_path


def told(run: Run) -> tuple[str, str, str]:
    return run.name, run.settings.prediction.tta, run.settings.prediction.combine


def test_other_views_lie_apart(runs_dir):
    run = open_run(runs_dir, "small@flips-logits")
    assert told(run) == ("small@flips-logits", "flips", "logits")
    apart = runs_dir / "small" / "tta-flips-logits"
    assert run.fold(2).oof_folder == apart / "fold-2"
    assert (run.test_folder, run.decision_file) == (apart / "test", apart / "decision.json")
    assert run.fold(2).folder == runs_dir / "small" / "fold-2"
    assert run.settings.digest() != open_run(runs_dir, "small").settings.digest()


@pytest.mark.parametrize("name", ["small", "small@hflip", "small@hflip-mean"])
def test_what_a_run_does_anyway_is_the_run_itself(runs_dir, name):
    run, folder = open_run(runs_dir, name), runs_dir / "small"
    assert told(run) == ("small", "hflip", "mean")
    assert run.fold(0).oof_folder == run.fold(0).folder == folder / "fold-0"
    assert (run.test_folder, run.decision_file) == (folder / "test", folder / "decision.json")


def test_one_way_to_predict_has_one_place(runs_dir):
    assert told(open_run(runs_dir, "small@flips-mean")) == ("small@flips", "flips", "mean")
    # What is not named stays as the run has it.
    assert told(open_run(runs_dir, "voting@flips")) == ("voting@flips", "flips", "agreement")
    assert told(open_run(runs_dir, "voting@flips-agreement")) == ("voting@flips", "flips", "agreement")
    assert told(open_run(runs_dir, "voting@hflip-mean")) == ("voting@hflip-mean", "hflip", "mean")


@pytest.mark.parametrize("views", ["", "mirrors", "flips-", "flips-vote", "flips-mean-logits", "@", "../x"])
def test_unknown_views_name_the_known_ones(runs_dir, views):
    with pytest.raises(NerveError) as caught:
        open_run(runs_dir, f"small@{views}")
    for known in ("none", "hflip", "flips", "scales", "-mean", "-logits", "-agreement"):
        assert known in str(caught.value)


def test_a_run_that_is_not_there_is_named_without_its_views(runs_dir):
    with pytest.raises(NerveError, match=r"No run is called 'smal' .* there are small, voting"):
        open_run(runs_dir, "smal@flips")


def test_no_run_is_made_with_views_in_its_name(tmp_path):
    with pytest.raises(NerveError, match="must be a plain name"):
        create(tmp_path, "small@flips", Settings(), {}, "source")


def test_no_run_is_made_in_a_searchs_folder(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "search.json").write_text("{}")
    with pytest.raises(NerveError, match=r"s is a search's, whose runs lie within; use another --run\.$"):
        create(tmp_path, "s", Settings(), {}, "source")
