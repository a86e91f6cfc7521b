"""The generated notebooks, run where no kaggle_nerve is installed and no network is."""

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pytest
from notebook_support import Kaggle, code_cells, failure, make_kernel, with_settings
from training_support import numbers

from kaggle_nerve.notebooks.build import generate
from kaggle_nerve.phantom import write_competition
from kaggle_nerve.prediction.ensemble import predict_test
from kaggle_nerve.runs import open_run
from kaggle_nerve.settings import load_preset
from kaggle_nerve.training.run_folds import train_folds

CHANGES = [
    "size=[45, 62]",
    "model.stem=1",
    "model.width=4",
    "model.depth=1",
    "training.epochs=2",
    "training.batch=8",
    "training.deterministic=true",
]
SETTINGS = {"PRESET": "tiny", "FOLDS": 3, "CHANGES": CHANGES, "RUN": "small"}

OWN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from kaggle_nerve.pipeline import prepare
from kaggle_nerve.settings import load_preset
from kaggle_nerve.training.run_folds import train_folds
data, out = Path(sys.argv[2]), Path(sys.argv[3])
run, _ = train_folds(data, out / "runs", "small", load_preset("tiny", (*sys.argv[4:], "folds=3")))
prepare([run], data, out / "submission.csv")
"""
"""What the command line's train-folds and submit call, without the click that a Kaggle image may lack."""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory, request):
    python = request.config.getoption("--kernel-python") or sys.executable
    return make_kernel(tmp_path_factory.mktemp("kernel"), python)


@pytest.fixture(scope="module")
def data(tmp_path_factory, request):
    """A phantom of three subjects; --kernel-data names other data."""
    if given := request.config.getoption("--kernel-data"):
        return Path(given)
    folder = tmp_path_factory.mktemp("data")
    write_competition(folder, subjects=3, frames=12, test_subjects=2, test_frames=10)
    return folder


@pytest.fixture(scope="module")
def package(kernel, data, tmp_path_factory):
    """The run and the submission.csv of the package itself, in the notebooks' environment."""
    folder, source = tmp_path_factory.mktemp("package"), Path(__file__).parents[1]
    subprocess.run([kernel, "-c", OWN, source, data, folder, *CHANGES], check=True, cwd=folder, timeout=600)
    return folder


@pytest.fixture(scope="module")
def texts():
    return generate()


@pytest.fixture
def kaggle(tmp_path, kernel, data):
    made = Kaggle(tmp_path / "kaggle", kernel)
    made.attach(data)
    return made


def cells_of(texts, name, **settings):
    cells = code_cells(texts[f"{name}/{name}.ipynb"])
    return [with_settings(cells[0], **settings), *cells[1:]]


def test_the_kernel_has_no_package(kernel, tmp_path):
    done = subprocess.run([kernel, "-c", "import kaggle_nerve"], cwd=tmp_path, capture_output=True, text=True)
    assert "No module named 'kaggle_nerve'" in done.stderr


@pytest.mark.long
def test_training_gives_the_packages_own_submission(texts, kaggle, package):
    printed = kaggle.run(cells_of(texts, "nerve-train-folds", **SETTINGS))
    assert "Fold 2 finished after 2 epochs" in printed[-1]
    assert "are as generated" in printed[-2]
    assert (kaggle.working / "submission.csv").read_bytes() == (package / "submission.csv").read_bytes()
    run = open_run(kaggle.working / "runs", "small")  # a laptop can go on with it
    assert numbers(run.finished_folds()) == [0, 1, 2]


@pytest.mark.large
def test_a_pasted_cell_does_the_same(texts, kaggle, package):
    cell = with_settings(texts["nerve-train-folds/paste.py"], **SETTINGS)
    kaggle.run([cell])
    assert (kaggle.working / "submission.csv").read_bytes() == (package / "submission.csv").read_bytes()


CLOCK = """
# The hours are over as soon as the first fold is finished.
import kaggle_nerve.session.training as training
from pathlib import Path

class Clock:
    @staticmethod
    def monotonic():
        return 1e9 if Path("runs/small/fold-0/complete.json").is_file() else 0.0

training.time = Clock
"""


@pytest.mark.long
def test_a_session_that_ran_out_of_time_is_gone_on_with(texts, kaggle, package, tmp_path):
    cells = cells_of(texts, "nerve-train-folds", **SETTINGS)
    printed = kaggle.run([*cells[:-1], CLOCK, cells[-1]])
    assert "The 11 hours are over" in printed[-1]
    assert numbers(open_run(kaggle.working / "runs", "small").finished_folds()) == [0]
    assert (kaggle.working / "submission.csv").is_file()  # of the one fold
    later = Kaggle(tmp_path / "later", kaggle.kernel)
    later.attach(kaggle.root / "input" / "competitions" / "ultrasound-nerve-segmentation")
    later.attach(kaggle.working, "notebooks/somebody/nerve-train-folds")
    printed = later.run(cells)
    assert "Going on with what is attached: run small with 1 finished folds" in printed[-1]
    assert "1 of 3 folds are finished already" in printed[-1]
    assert (later.working / "submission.csv").read_bytes() == (package / "submission.csv").read_bytes()


@pytest.mark.long
def test_two_parts_give_the_packages_own_submission(texts, kaggle, package, data, tmp_path):
    for number in (1, 2):
        part = Kaggle(tmp_path / f"part-{number}", kaggle.kernel)
        part.attach(data)
        printed = part.run(cells_of(texts, "nerve-train-folds", **SETTINGS, PART=f"{number}/2"))
        assert f"Part {number}/2 writes no submission.csv" in printed[-1]
        folds = numbers(open_run(part.working / "runs", "small").finished_folds())
        assert folds == ([0, 2] if number == 1 else [1])
        kaggle.attach(part.working, f"notebooks/somebody/nerve-train-folds-{number}")
    kaggle.run(cells_of(texts, "nerve-predict-submit"))
    assert (kaggle.working / "submission.csv").read_bytes() == (package / "submission.csv").read_bytes()


@pytest.mark.long
def test_an_attached_run_is_submitted_and_explored(texts, kaggle, package):
    kaggle.attach(package / "runs" / "small", "datasets/somebody/nerve-run-small/small")
    kaggle.run(cells_of(texts, "nerve-predict-submit"))
    assert (kaggle.working / "submission.csv").read_bytes() == (package / "submission.csv").read_bytes()
    printed = kaggle.run(cells_of(texts, "nerve-explore", COUNT=4))
    assert "out-of-fold frames" in printed[-1]


@pytest.mark.large
def test_a_run_is_predicted_with_in_other_versions_than_it_was_trained_with(
    texts, kaggle, package, data, tmp_path
):
    """Trained here, with the newest packages, and predicted in the notebook's; and the other way round."""
    chosen = load_preset("tiny", (*CHANGES, "folds=3"))
    run, _ = train_folds(data, tmp_path / "runs", "small", chosen)
    kaggle.attach(run.folder, "datasets/somebody/nerve-run-small/small")
    kaggle.run(cells_of(texts, "nerve-predict-submit"))
    assert_same_probabilities(kaggle.working / "runs" / "small", predict_test(run, data))
    theirs = package / "runs" / "small"
    shutil.copytree(theirs, tmp_path / "theirs", ignore=shutil.ignore_patterns("test"))
    assert_same_probabilities(theirs, predict_test(open_run(tmp_path, "theirs"), data))


def assert_same_probabilities(run: Path, test_folder: Path) -> None:
    """Two predictions of a run agree as far as two versions of TensorFlow compute the same."""
    one, other = (np.load(folder / "probabilities.npy") for folder in (run / "test", test_folder))
    np.testing.assert_allclose(one, other, atol=2e-3)
    assert np.ptp(one) > 0.01


@pytest.mark.large
def test_exploring_needs_no_run(texts, kaggle, data):
    printed = kaggle.run(cells_of(texts, "nerve-explore", COUNT=4))
    frames = len((data / "train_masks.csv").read_text().splitlines()) - 1
    assert f"{frames} training frames of 3 subjects" in "".join(printed)
    assert "No run is attached" in printed[-1]


def test_a_failed_stage_fails_the_notebook(texts, kernel, tmp_path):
    bare = Kaggle(tmp_path / "kaggle", kernel)
    (bare.root / "input").mkdir(parents=True)
    told = failure(bare, cells_of(texts, "nerve-predict-submit"))
    assert "The competition's data is not attached" in told
    assert "Traceback" not in told


def test_a_submission_without_a_run_says_what_to_attach(texts, kaggle):
    assert "No run is attached" in failure(kaggle, cells_of(texts, "nerve-predict-submit"))


def test_notebooks_are_valid(texts):
    for path, text in texts.items():
        if path.endswith(".ipynb"):
            made = nbformat.reads(text, 4)
            nbformat.validate(made)
            assert len({cell.id for cell in made.cells}) == len(made.cells)
