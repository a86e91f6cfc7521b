"""Runs brought from elsewhere: what is taken, what stays, and that nothing is left half."""

import errno
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from training_support import numbers

from kaggle_nerve.disk import explain_disk_errors
from kaggle_nerve.errors import NerveError
from kaggle_nerve.locks import hold_lock
from kaggle_nerve.runs import open_run
from kaggle_nerve.runs.adopting import adopt
from kaggle_nerve.settings import load_preset, save_settings
from kaggle_nerve.storage import digest_file, mark_complete, write_json

DONE, BEGUN = "done", "begun"


def make_run(runs: Path, folds: dict[int, str], *changes: str, name: str = "small", mark: str = "x") -> Path:
    """A run with these folds; ``mark`` stands in its files."""
    run = runs / name
    run.mkdir(parents=True)
    save_settings(load_preset("tiny", changes), run / "settings.toml")
    write_json(run / "environment.json", {"source": "digest"})
    (run / "folds.csv").write_text("subject,fold\n1,0\n")
    for fold, how in folds.items():
        folder = run / f"fold-{fold}"
        folder.mkdir()
        (folder / ".lock").touch()
        (folder / "model.keras").write_text(mark)
        if how == DONE:
            mark_complete(folder, {"source": "digest"})
        else:
            write_json(folder / "checkpoint" / "state.json", {"epoch": 3})
    return run


def marks(run: Path) -> dict[str, str]:
    """What stands in each fold's file."""
    return {path.parent.name: path.read_text() for path in sorted(run.glob("fold-*/model.keras"))}


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return tmp_path / "runs"


def test_a_run_that_is_not_here_comes_whole_and_can_be_written_to(tmp_path: Path, mine: Path) -> None:
    source = make_run(tmp_path / "input", {0: DONE, 1: BEGUN})
    inside = [source, *source.rglob("*")]
    for path in inside:
        path.chmod(0o555 if path.is_dir() else 0o444)
    assert adopt(tmp_path / "input", mine) == ["run small with 1 finished folds"]
    run = open_run(mine, "small")
    assert numbers(run.finished_folds()) == [0]
    assert (run.folder / "fold-1" / "checkpoint" / "state.json").is_file()
    assert not list(mine.rglob(".lock"))
    assert all(path.stat().st_mode & 0o200 for path in run.folder.rglob("*"))
    for path in inside:
        path.chmod(0o755)


def test_what_is_ahead_is_taken_and_what_is_finished_here_stays(tmp_path: Path, mine: Path) -> None:
    """Of folds 0 to 4: finished here, finished there, begun in both, begun there alone, unknown here."""
    here = make_run(mine, {0: DONE, 1: BEGUN, 2: BEGUN}, mark="mine")
    (here / "fold-3").mkdir()
    (here / "fold-3" / ".lock").touch()
    source = make_run(tmp_path / "input", {0: DONE, 1: DONE, 2: BEGUN, 3: BEGUN, 4: DONE}, mark="theirs")
    (source / "test").mkdir()
    mark_complete(source / "test", {"key": "digest"})
    assert adopt(source, mine) == ["run small: fold-1, fold-3, fold-4, test"]
    assert marks(here) == {
        "fold-0": "mine",
        "fold-1": "theirs",
        "fold-2": "mine",
        "fold-3": "theirs",
        "fold-4": "theirs",
    }
    assert not (here / "fold-1" / "checkpoint").exists()
    assert [path for path in here.iterdir() if path.name.startswith(".")] == []
    assert adopt(source, mine) == ["run small: nothing new"]


@pytest.mark.parametrize("what", ["settings", "data", "folds"])
def test_another_run_of_the_name_is_left_alone(tmp_path: Path, mine: Path, what: str) -> None:
    changes = ("training.epochs=77",) if what == "settings" else ()
    source = make_run(tmp_path / "input", {0: DONE, 1: DONE}, *changes)
    make_run(tmp_path / "input", {0: DONE}, name="another")
    here = make_run(mine, {0: DONE}, mark="mine")
    if what == "data":
        write_json(source / "environment.json", {"source": "other"})
    if what == "folds":
        (source / "folds.csv").write_text("subject,fold\n1,1\n")
    told = {"settings": r"training.epochs = 77 and \d+", "data": "other training data", "folds": "folds.csv"}
    with pytest.raises(NerveError, match=f"two runs of one name, with .*{told[what]}"):
        adopt(tmp_path / "input", mine)
    assert marks(here) == {"fold-0": "mine"}
    assert [path.name for path in mine.iterdir()] == ["small"], "the other run was taken before the refusal"


def test_a_fold_that_is_being_trained_is_left_alone(tmp_path: Path, mine: Path) -> None:
    source = make_run(tmp_path / "input", {0: DONE}, mark="theirs")
    here = make_run(mine, {0: BEGUN}, mark="mine")
    told = "Another process works on"
    with hold_lock(here / "fold-0" / ".lock", "taken"), pytest.raises(NerveError, match=told):
        adopt(source, mine)
    assert marks(here) == {"fold-0": "mine"}


@pytest.mark.parametrize("inside", ["fold-0/model.keras", "notes.txt", None])
def test_what_is_no_run_is_not_replaced(tmp_path: Path, mine: Path, inside: str | None) -> None:
    """A run that lost its settings.toml, another folder, and a file; the run before it in order stays out, too."""
    make_run(tmp_path / "input", {0: DONE}, name="another")
    make_run(tmp_path / "input", {0: DONE}, mark="theirs")
    there = mine / "small" / inside if inside else mine / "small"
    there.parent.mkdir(parents=True)
    there.write_text("mine")
    with pytest.raises(NerveError, match=r"small is in the way of a run.*no settings\.toml: move it away"):
        adopt(tmp_path / "input", mine)
    assert there.read_text() == "mine"
    assert [path.name for path in mine.iterdir()] == ["small"]


def test_a_damaged_model_is_refused_before_anything_is_copied_unless_its_fold_is_finished_here(
    tmp_path: Path, mine: Path
) -> None:
    """The checkpoint here would be lost to a fold that cannot be predicted with."""
    make_run(tmp_path / "input", {0: DONE}, name="another")
    source = make_run(tmp_path / "input", {0: DONE, 1: DONE}, mark="theirs")
    here = make_run(mine, {0: BEGUN}, mark="mine")
    mark_complete(
        source / "fold-0", {"source": "digest", "model": digest_file(source / "fold-0/model.keras")}
    )
    (source / "fold-0" / "model.keras").write_text("damage")
    told = rf"{source}/fold-0/model\.keras is damaged or was replaced .*; copy it again from where it was trained, or"
    with pytest.raises(NerveError, match=told):
        adopt(tmp_path / "input", mine)
    assert marks(here) == {"fold-0": "mine"}
    assert [path.name for path in mine.iterdir()] == ["small"]
    mark_complete(here / "fold-0", {"source": "digest"})
    assert adopt(source, mine) == ["run small: fold-1"]


def test_an_empty_folder_is_no_hindrance(tmp_path: Path, mine: Path) -> None:
    (mine / "small").mkdir(parents=True)
    assert adopt(make_run(tmp_path / "input", {0: DONE}), mine) == ["run small with 1 finished folds"]


def test_a_full_disk_is_said_as_such_and_leaves_nothing_half(
    tmp_path: Path, mine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    source = make_run(tmp_path / "input", {0: DONE})
    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space left on device") as told:
        adopt(source, mine)
    assert (told.value.errno, Path(told.value.filename).name) == (errno.ENOSPC, "environment.json")
    with (
        pytest.raises(NerveError, match=r"became full.*another folder with --runs"),
        explain_disk_errors(mine, "--runs"),
    ):
        adopt(source, mine)
    assert list(mine.iterdir()) == []


KILLED = """
import os, shutil, sys
from pathlib import Path
from kaggle_nerve.runs.adopting import adopt

def killed(source, target):
    Path(target).write_text("ha")
    os._exit(9)

shutil.copyfile = killed
adopt(Path(sys.argv[1]), Path(sys.argv[2]))
"""


@pytest.mark.parametrize("whole", [True, False])
def test_a_kill_leaves_nothing_half(tmp_path: Path, mine: Path, whole: bool) -> None:
    """Killed while the first file is copied, for a run that is new here and for a fold."""
    source = make_run(tmp_path / "input", {0: DONE}, mark="theirs")
    if not whole:
        make_run(mine, {1: DONE}, mark="mine")
    assert subprocess.run([sys.executable, "-c", KILLED, str(source), str(mine)]).returncode == 9
    assert not whole or not (mine / "small").exists()
    assert not (mine / "small" / "fold-0").exists()
    adopt(source, mine)
    assert numbers(open_run(mine, "small").finished_folds()) == ([0] if whole else [0, 1])
    assert marks(mine / "small")["fold-0"] == "theirs"
    assert not [path for path in mine.rglob("*") if path.name.startswith(".adopting")]
