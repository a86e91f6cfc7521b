"""Parts of a run: how folds are dealt, what the session of a part trains and writes, and how parts are joined."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cli_support import command
from kaggle_support import LIMITS, client_of, guarded
from support import write_competition
from training_support import FAST, numbers, settings

from kaggle_nerve.competition.submission import check
from kaggle_nerve.errors import NerveError
from kaggle_nerve.kaggle_api import client as clients
from kaggle_nerve.kaggle_api.client import Client
from kaggle_nerve.kaggle_api.kernels import push
from kaggle_nerve.notebooks.pushing import prepare_kernel
from kaggle_nerve.runs import Run, open_run
from kaggle_nerve.session import places as placing
from kaggle_nerve.session.submitting import submit
from kaggle_nerve.session.training import train
from kaggle_nerve.settings import load_preset
from kaggle_nerve.settings.parts import Part, parse_part
from kaggle_nerve.settings.schema import ALL, FoldName
from kaggle_nerve.training import run_folds

SLUG = "ultrasound-nerve-segmentation"


@pytest.mark.parametrize(
    ("folds", "parts"),
    [
        ("5", [(0, 2, 4), (1, 3)]),
        ("5", [(0, 3), (1, 4), (2,)]),
        ("5+all", [(0, 2, 4), (1, 3, ALL)]),
        ("4+all", [(0, 2, ALL), (1, 3)]),
        ("3+all", [(0, ALL), (1,), (2,)]),
        ("42/5+all", [(0, ALL)]),
    ],
)
def test_folds_are_dealt_and_the_one_of_all_subjects_follows_another(
    folds: str, parts: list[tuple[FoldName, ...]]
) -> None:
    chosen = load_preset("tiny", (f"folds={folds}",))
    assert [Part(number, len(parts)).folds(chosen) for number in range(1, len(parts) + 1)] == parts


@pytest.mark.parametrize(
    ("folds", "count", "advice"),
    [
        ("5", 6, "use 5 parts at most"),
        ("5+all", 6, "use 5 parts at most"),
        ("42/5+all", 2, "train it in one session"),
    ],
)
def test_a_part_without_held_out_subjects_is_refused(folds: str, count: int, advice: str) -> None:
    with pytest.raises(
        NerveError, match=f"'{folds}' cannot be split into {count} parts.*: {advice}".replace("+", r"\+")
    ):
        Part(1, count).folds(load_preset("tiny", (f"folds={folds}",)))


def test_a_part_is_read_as_it_is_written() -> None:
    assert parse_part("2/3") == Part(2, 3)
    assert str(Part(2, 3)) == "2/3"


@pytest.mark.parametrize("value", ["2", "0/2", "3/2", "1/2/3", "1:2", "", 0.5, None])
def test_what_is_no_part_is_refused(value: object) -> None:
    """0.5 is 1/2 without its quotes."""
    with pytest.raises(NerveError, match=f'PART = {value!r} must be .* as text: "1/2"'):
        parse_part(value)


def test_some_folds_are_trained_in_order_and_unknown_ones_refused() -> None:
    assert run_folds._folds_to_train(3, (ALL, 2, 0), with_all=False) == [0, 2, ALL]
    with pytest.raises(NerveError, match="There is no fold 3: this run has the folds 0 to 2"):
        run_folds._folds_to_train(3, (0, 3), with_all=True)


def test_folds_that_are_not_finished_are_missing(tmp_path: Path) -> None:
    assert Run(tmp_path, settings("folds=2+all")).missing_folds() == [0, 1, ALL]


class Session:
    """``/kaggle`` in a folder: ``attach`` inputs, then call what a notebook's last cell calls."""

    def __init__(self, root: Path, data: Path) -> None:
        self.root, self.working = root, root / "working"
        self.working.mkdir(parents=True)
        self.attach(data, f"competitions/{SLUG}")

    def attach(self, source: Path, name: str) -> None:
        """Make a copy of ``source`` the input ``name``."""
        shutil.copytree(source, self.root / "input" / name, ignore=shutil.ignore_patterns(".cache"))

    def train(self, part: str | None = None) -> None:
        """Train a run with two folds and one of all subjects, or this part of it."""
        changes = [change for change in FAST if not change.startswith(("folds", "training.epochs"))]
        with self.on_kaggle():
            train("tiny", "2+all", changes=[*changes, "training.epochs=2"], run="small", part=part)

    def submit(self) -> None:
        """Write submission.csv from all that is attached."""
        with self.on_kaggle():
            submit()

    @contextmanager
    def on_kaggle(self) -> Iterator[None]:
        """Make these the notebook's folders."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(placing, "KAGGLE", self.root)
            patch.setenv("KAGGLE_NERVE_CACHE", str(self.root / "cache"))
            yield


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write_competition(root, subjects=2, frames=6, test=4)
    return root


@pytest.fixture(scope="module")
def parts(data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The outputs of the sessions of both parts of a run."""
    outputs = []
    for part in ("1/2", "2/2"):
        session = Session(tmp_path_factory.mktemp("kaggle"), data)
        session.train(part)
        outputs.append(session.working)
    return outputs


@pytest.fixture
def attached(data: Path, parts: list[Path], tmp_path: Path) -> Session:
    """A session with the outputs of both parts."""
    session = Session(tmp_path / "kaggle", data)
    for number, output in enumerate(parts, 1):
        session.attach(output, f"notebooks/rehearsal/nerve-train-folds-{number}")
    return session


def test_each_part_trains_its_folds_and_writes_no_submission(parts: list[Path]) -> None:
    first, second = (open_run(output / "runs", "small") for output in parts)
    assert (numbers(first.begun_folds()), numbers(second.begun_folds())) == ([0, ALL], [1])
    assert (first.missing_folds(), second.missing_folds()) == ([1], [0, ALL])
    for output in parts:
        assert [path.name for path in output.iterdir()] == ["runs"]


def test_a_part_says_what_it_trains_and_why_there_is_no_submission(
    data: Path, parts: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session = Session(tmp_path / "kaggle", data)
    session.attach(parts[0], "notebooks/rehearsal/nerve-train-folds-1")
    session.train("1/2")
    printed = capsys.readouterr().out
    assert "Part 1/2 of run small: folds 0, all\n" in printed
    assert "2 of 2 folds are finished already" in printed
    assert (
        "Part 1/2 writes no submission.csv, since run small lacks fold 1 here: attach the outputs of all parts to "
        "nerve-predict-submit, or join them on your machine with `kaggle-nerve kernels output nerve-train-folds "
        "--split 2`.\n"
    ) in printed


@pytest.mark.parametrize("part", [None, "1/2"])
def test_a_later_session_with_all_parts_attached_writes_the_submission(
    attached: Session, data: Path, part: str | None
) -> None:
    attached.train(part)
    assert open_run(attached.working / "runs", "small").missing_folds() == []
    assert not check(attached.working / "submission.csv", data / "sample_submission.csv").faults


def test_a_fold_that_all_parts_lack_is_trained_by_the_session_that_joins_them(
    data: Path, parts: list[Path], tmp_path: Path
) -> None:
    session = Session(tmp_path / "kaggle", data)
    for number, output in enumerate(parts, 1):
        session.attach(output, f"notebooks/rehearsal/nerve-train-folds-{number}")
    shutil.rmtree(session.root / "input/notebooks/rehearsal/nerve-train-folds-2/runs/small/fold-1")
    session.train()
    run = open_run(session.working / "runs", "small")
    assert run.missing_folds() == []
    assert run.test_facts().folds == [0, 1, ALL]


def test_the_parts_predict_and_submit_as_one_run(attached: Session, data: Path) -> None:
    attached.submit()
    facts = open_run(attached.working / "runs", "small").test_facts()
    assert facts.folds == [0, 1, ALL]
    assert not check(attached.working / "submission.csv", data / "sample_submission.csv").faults


def test_the_outputs_of_the_parts_are_joined_into_a_run_as_any_other(
    server, data: Path, parts: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = guarded(server, tmp_path / "home")
    monkeypatch.setattr(clients, "Client", lambda: Client(variables, limits=LIMITS))
    client = client_of(server, tmp_path / "home")
    for number, output in enumerate(parts, 1):
        folder = prepare_kernel(
            "nerve-train-folds", "rehearsal", tmp_path / str(number), part=Part(number, len(parts))
        )
        push(folder, client)
        server.finish_kernel(f"rehearsal/nerve-train-folds-{number}", output)
    fetched = command(tmp_path, "kernels", "output", "nerve-train-folds", "--split", "2")
    assert fetched.stdout.splitlines() == [
        "runs: run small with 1 finished folds",
        "runs: run small: fold-1",
    ]
    assert open_run(tmp_path / "runs", "small").missing_folds() == []
    told = command(tmp_path, "tune", "--run", "small", "--data", data, "--json")
    decision = json.loads(told.stdout)
    assert "of its" not in told.stderr
    assert (decision["figures"]["frames"], decision["figures"]["subjects"]) == (12, 2)
    command(tmp_path, "submit", "--run", "small", "--data", data, "--dry-run", "--out", "submission.csv")
    assert not check(tmp_path / "submission.csv", data / "sample_submission.csv").faults
    command(tmp_path, "report", "--run", "small", "--data", data)
    assert (tmp_path / "runs/small/report.html").is_file()
