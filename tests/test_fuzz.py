"""Any command line on any damaged folder ends in a result or in a sentence: no traceback, nothing lost, no secret."""

import os
import shutil
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from support import write_competition
from training_support import FAST

from kaggle_nerve.cli import cli
from kaggle_nerve.settings import load_preset
from kaggle_nerve.settings.text import dump
from kaggle_nerve.submissions.ledger import Entry, open_ledger

SECRET = "KGAT_0123456789abcdef0123456789abcdef"
TRAIN = ["train-folds", "--preset", "tiny", "--run", "x", "--data", "data"]
TRAIN += [word for change in (*FAST, "training.epochs=1") for word in ("--set", change)]
COMMANDS = [
    TRAIN,
    ["verify", "--data", "data"],
    ["tune", "--run", "x", "--data", "data"],
    ["tune", "--run", "x", "--data", "data", "--force"],
    ["predict", "--run", "x", "--data", "data"],
    ["predict", "--run", "x", "--data", "data", "--frame", "data/test/1.tif", "--out", "out"],
    ["submit", "--run", "x", "--data", "data", "--dry-run"],
    ["submit", "--file", "submissions/x.csv", "--data", "data", "--dry-run", "--normalise"],
    ["report", "--run", "x", "--data", "data"],
    ["audit", "--data", "data"],
    ["validate", "submissions/x.csv", "--data", "data"],
    ["score", "submissions/x.csv", "solution.csv"],
    ["submissions", "list"],
    ["submissions", "compare", "submissions/x.csv", "solution.csv", "--data", "data"],
    ["submissions", "merge", "submissions/x.csv", "submissions/x.csv", "--out", "m.csv", "--data", "data"],
]
KEPT = (
    "data/train/",
    "data/test/",
    "data/train_masks.csv",
    "data/sample_submission.csv",
    "submissions/x.csv",
)
"""What no command may change, damaged or not: people's own."""

DAMAGES = st.one_of(
    st.just("remove"),
    st.just("empty"),
    st.just("folder"),
    st.tuples(st.just("cut"), st.floats(0, 1)),
    st.tuples(st.just("overwrite"), st.floats(0, 1), st.binary(min_size=1, max_size=64)),
    st.tuples(st.just("replace"), st.text(max_size=40)),
    st.tuples(
        st.just("replace"),
        st.sampled_from(["{}", "[]", "null", "7", '{"a": 1}', "img,pixels\n", "a,b\n1,2\n"]),
    ),
)


FEW_OR_MANY = pytest.mark.parametrize(
    "share", [0.03, pytest.param(1, marks=pytest.mark.long)], ids=["few", "many"]
)


def invoke(*words: str) -> click.testing.Result:
    """Give a command in this process; check what holds for every command."""
    done = CliRunner().invoke(cli, words)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code in (0, 1, 2), done.output
    assert "Traceback" not in done.output
    assert SECRET not in done.output
    if done.exit_code:
        assert done.output.strip(), "it ended without a word"
    return done


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    """A data directory, a finished run with all that belongs to it, a submission and a ledger."""
    root = tmp_path_factory.mktemp("fuzz")
    write_competition(root / "data", subjects=4, frames=4)
    before = Path.cwd()
    os.chdir(root)
    try:
        for words in (
            TRAIN,
            ["submit", "--run", "x", "--data", "data", "--dry-run", "--out", "submissions/x.csv"],
            ["report", "--run", "x", "--data", "data"],
        ):
            assert invoke(*words).exit_code == 0
    finally:
        os.chdir(before)
    shutil.copy(root / "submissions" / "x.csv", root / "solution.csv")
    open_ledger(root / "submissions").add(
        Entry("2026-11-27T00:00:00+00:00", "x.csv", "0" * 64, status="complete")
    )
    return root


def files(root: Path) -> list[str]:
    """Names of all files under ``root``, in a fixed order."""
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())


def damage(path: Path, how: str | tuple) -> None:
    """Do to a file what disks, people and broken-off copies do."""
    kind, *details = (how,) if isinstance(how, str) else how
    data = path.read_bytes()
    if kind in ("remove", "folder"):
        path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "cut":
        path.write_bytes(data[: int(details[0] * len(data))])
    elif kind == "overwrite":
        start = int(details[0] * len(data))
        path.write_bytes(data[:start] + details[1] + data[start + len(details[1]) :])
    elif kind == "replace":
        path.write_text(details[0], encoding="utf-8")


def kept(root: Path) -> dict[str, bytes]:
    return {name: (root / name).read_bytes() for name in files(root) if name.startswith(KEPT)}


def damaged_folders(original: Path, folder: Path, data: st.DataObject) -> None:
    """Damage up to three files of a copy of the ``original``, and give one command in it."""
    root = folder / "copy"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(original, root)
    names = files(root)
    # A run's folder has few files beside hundreds of frames: choose the folder first.
    parts = sorted({name.split("/")[0] for name in names})
    for _ in range(data.draw(st.integers(1, 3))):
        part = data.draw(st.sampled_from(parts))
        path = root / data.draw(st.sampled_from([name for name in names if name.split("/")[0] == part]))
        if path.is_file():
            damage(path, data.draw(DAMAGES))
    before = kept(root)
    os.chdir(root)
    invoke(*data.draw(st.sampled_from(COMMANDS)))
    assert kept(root) == before


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KAGGLE_API_TOKEN", SECRET)
    return tmp_path


@FEW_OR_MANY
def test_damaged_folders(original, folder, share):
    @settings(max_examples=int(250 * share), phases=[Phase.generate])
    @given(st.data())
    def check(data):
        damaged_folders(original, folder, data)

    check()


OFFLINE = sorted(set(cli.commands) - {"fetch", "kernels", "rehearse", "doctor", "submissions"})
"""Commands that ask nobody; `submit` asks after it has a valid file only."""

WORDS = st.one_of(
    st.sampled_from(
        ["", "-1", "0", "1", "9" * 20, "1e400", "nan", "x", "data", "no/such.csv", ".", "/", "~", "all"]
    ),
    st.sampled_from(
        ["3/1", "5+all", "30m", "-5s", "a=b", "model.width=", "size=[1,2,3]", "\N{SNOWMAN}", "tiny"]
    ),
    st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=12),
)


@st.composite
def command_lines(draw) -> list[str]:
    """A command with some of its options and arguments, and words of any kind for their values."""
    name = draw(st.sampled_from(OFFLINE))
    words = [name]
    for option in cli.commands[name].params:
        if not draw(st.booleans()) or "--help" in option.opts:
            continue
        if isinstance(option, click.Option):
            words.append(option.opts[0])
            if option.is_flag:
                continue
        words.append(draw(WORDS))
    return words


@FEW_OR_MANY
def test_any_words(folder, share):
    @settings(max_examples=int(2000 * share))
    @given(command_lines())
    def check(words):
        invoke(*words)

    check()
    assert not list(folder.iterdir())


SETTINGS = tomllib.loads(dump(load_preset("tiny")))
KEYS = [name for name, value in SETTINGS.items() if not isinstance(value, dict)]
KEYS += [f"{part}.{name}" for part, inner in SETTINGS.items() if isinstance(inner, dict) for name in inner]
VALUES = st.one_of(
    st.integers(-(10**30), 10**30).map(str),
    st.floats().map(str),
    st.sampled_from(["true", "[]", "[1,2]", '""', "none", "{}", "0x7", "1979-05-27", "'", "[[", "inf", "-0"]),
    st.text(max_size=8),
)


@FEW_OR_MANY
def test_any_settings(folder, share):
    @settings(max_examples=int(2000 * share))
    @given(st.lists(st.tuples(st.sampled_from(KEYS), VALUES), min_size=1, max_size=4))
    def check(changes):
        words = [word for key, value in changes for word in ("--set", f"{key}={value}")]
        done = invoke("train-folds", "--preset", "tiny", *words)
        assert done.exit_code == 1
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr

    check()
    assert not list(folder.iterdir())
