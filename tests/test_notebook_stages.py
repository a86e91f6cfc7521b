"""What the notebooks' last cells do before they train: where things are looked for, and which preset is taken."""

from pathlib import Path

import pytest
from matplotlib.figure import Figure
from support import write_competition

from kaggle_nerve import devices
from kaggle_nerve.errors import NerveError
from kaggle_nerve.session import explore as exploring
from kaggle_nerve.session import places as placing
from kaggle_nerve.session import training
from kaggle_nerve.session.places import Places, attached_runs, find_data
from kaggle_nerve.settings import load_preset, save_settings
from kaggle_nerve.storage import write_json
from kaggle_nerve.training.logs import write_history

SLUG = "ultrasound-nerve-segmentation"


@pytest.fixture
def places(tmp_path):
    (tmp_path / "input").mkdir()
    return Places(tmp_path / "input", tmp_path / "working")


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("")
    return path.parent


@pytest.mark.parametrize("where", [f"competitions/{SLUG}", SLUG, "my-copy", "datasets/somebody/copy/inside"])
def test_the_data_is_found_wherever_it_is_attached(places, where):
    folder = put(places.input / where / "train_masks.csv")
    assert find_data(places) == folder


def test_kaggles_own_place_comes_before_a_copy(places):
    put(places.input / "a-copy" / "train_masks.csv")
    folder = put(places.input / "competitions" / SLUG / "train_masks.csv")
    assert find_data(places) == folder


def test_data_that_is_not_attached_is_said(places):
    with pytest.raises(NerveError, match=r"no train_masks\.csv under .*; press 'Add Input'"):
        find_data(places)


def test_runs_are_found_in_outputs_and_datasets_but_not_in_the_data(places):
    data = put(places.input / "competitions" / SLUG / "train_masks.csv")
    for folder in (data, places.input / "notebooks/me/k/runs/small", places.input / "weights/tiny"):
        put(folder / "settings.toml")
        put(folder / "environment.json")
    put(places.input / "other" / "settings.toml")  # not a run's
    assert [folder.name for folder in attached_runs(places, data)] == ["small", "tiny"]


def test_elsewhere_than_on_kaggle_inputs_lie_beside_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(placing, "KAGGLE", tmp_path / "none")
    monkeypatch.setenv("KAGGLE_NERVE_CACHE", "/elsewhere")
    found = placing.find_places()
    assert (found.working, found.input) == (tmp_path, tmp_path.parent / "input")


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """A run's folder, attached; folds 0 and 1 have trained two epochs and one, fold 2 none."""
    monkeypatch.setattr(placing, "KAGGLE", tmp_path)
    monkeypatch.setenv("KAGGLE_NERVE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "working").mkdir()
    write_competition(tmp_path / "input" / SLUG, subjects=1, frames=2, test=1)
    run = tmp_path / "input" / "runs" / "small"
    save_settings(load_preset("tiny"), run / "settings.toml")
    write_json(run / "environment.json", {"source": "digest"})
    for fold, epochs in enumerate((2, 1, 0)):
        rows = [{"epoch": epoch, "loss": 1 / epoch, "dice": epoch / 10} for epoch in range(1, epochs + 1)]
        write_history(rows, run / f"fold-{fold}" / "history.csv")
        write_json(run / f"fold-{fold}" / "checkpoint" / "state.json", {"epoch": epochs})
    return run


def test_a_run_that_is_only_begun_shows_its_curves(begun, monkeypatch, capsys):
    shown, drawn = [], {}
    monkeypatch.setattr(exploring, "display", shown.append)
    monkeypatch.setattr(exploring.charts, "curves", lambda histories: drawn.update(histories) or Figure())
    data = exploring.Exploration()
    data.show_curves()
    assert {fold: list(history.dice) for fold, history in drawn.items()} == {"0": [0.1, 0.2], "1": [0.1]}
    assert len(shown) == 1
    data.show_worst()
    assert len(shown) == 1
    assert (
        "Run small has no finished fold yet, so there are no out-of-fold frames." in capsys.readouterr().out
    )


def test_a_run_without_an_epoch_has_no_curves(begun, monkeypatch, capsys):
    for fold in (0, 1):
        (begun / f"fold-{fold}" / "history.csv").unlink()
    exploring.Exploration().show_curves()
    assert "Run small has no finished epoch yet, so there are no curves." in capsys.readouterr().out


@pytest.mark.parametrize(("gpus", "preset"), [((), "small"), (("gpu:0", "gpu:1"), "default")])
def test_the_preset_follows_the_machine(monkeypatch, gpus, preset):
    monkeypatch.setattr(devices, "visible_gpus", lambda: gpus)
    told = training.ConsoleReporter()
    settings, name = training._settings(None, None, [], told)
    assert name == preset
    changed, name = training._settings(None, "42/5", ["training.epochs=3"], told)
    assert (changed.folds, changed.training.epochs) == ("42/5", 3)
    assert name.startswith(f"{preset}-")
    assert settings != changed


@pytest.mark.parametrize("hours", [0, -1, 12.5])
def test_hours_that_kaggle_does_not_give_are_refused(hours):
    with pytest.raises(NerveError, match=f"HOURS = {hours} must lie above 0"):
        training.train(hours=hours)
