"""The command line as a process: what people type, what they read, which exit code scripts get."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cli_support import command
from click.testing import CliRunner, Result
from support import write_competition

from kaggle_nerve.cli import backend, cli, terminal, training
from kaggle_nerve.cli import doctor as cli_doctor
from kaggle_nerve.cli.options import Duration
from kaggle_nerve.competition import submission
from kaggle_nerve.errors import NerveError
from kaggle_nerve.kaggle_api import versions
from kaggle_nerve.settings import apply_changes, load_preset, parse, save_settings
from kaggle_nerve.training import run_folds

COMMANDS = sorted(cli.commands)


def run(*words: str | Path, code: int = 0) -> Result:
    return command(Path(), *words, code=code)


def process(*words: str | Path, code: int = 0) -> subprocess.CompletedProcess:
    """As ``run``, but as a program of its own: what a shell sees."""
    done = subprocess.run(
        [sys.executable, "-m", "kaggle_nerve", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == code, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return done


def every_command(group=cli, path=()):
    for name, below in group.commands.items():
        yield (*path, name)
        if hasattr(below, "commands"):
            yield from every_command(below, (*path, name))


@pytest.mark.parametrize("path", list(every_command()), ids=" ".join)
def test_every_command_has_help_with_an_example(path):
    shown = CliRunner().invoke(cli, [*path, "--help"])
    assert shown.exit_code == 0
    assert "Example: kaggle-nerve" in shown.output


def test_the_names_of_the_design_are_there():
    assert {
        "fetch", "verify", "audit", "presets", "train-folds", "predict", "tune",
        "submit", "validate", "score", "submissions", "rehearse", "doctor",
    } <= set(COMMANDS)  # fmt: skip


def test_help_loads_nothing_heavy():
    script = "import sys, kaggle_nerve.cli; print([m for m in sys.modules])"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    for heavy in ("numpy", "pandas", "cv2", "keras", "tensorflow", "sklearn", "kaggle'", "tqdm"):
        assert f"'{heavy.strip(chr(39))}'" not in loaded


@pytest.mark.parametrize(
    "module", ["competition.rle", "competition.submission", "decision.tune", "decision.masks", "data.cache",
               "phantom", "data.folds", "kaggle_api.fetch", "submissions.upload", "prediction.stored"],
)  # fmt: skip
def test_no_deep_learning_framework_behind_the_wall(module):
    script = f"import sys, kaggle_nerve.{module}; print('keras' in sys.modules, 'tensorflow' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert told.split() == ["False", "False"]


def test_a_usage_error_exits_with_2():
    process("train-folds", "--folds", code=2)
    run("submit", code=2)
    told = run("train-folds", "--time-budget", "soon", code=2)
    assert "is not a duration; write 90s, 30m or 1.5h" in told.stderr


def test_a_fault_is_one_sentence_and_exits_with_1(tmp_path):
    told = process("verify", "--data", tmp_path / "none", code=1)
    assert told.stderr.startswith("Error: There is no data directory")
    assert told.stderr.count("\n") == 1
    told = run("train-folds", "--preset", "smal", code=1)
    assert "did you mean 'small'?" in told.stderr
    told = run("tune", "--run", "x", "--runs", tmp_path, code=1)
    assert "No run is called 'x'" in told.stderr
    told = run("score", tmp_path / "no.csv", tmp_path / "no.csv", code=1)
    assert "no.csv" in told.stderr


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("1.5h", 5400), ("45", 2700), ("0.5m", 30)]
)
def test_durations(text, seconds):
    assert Duration().convert(text, None, None) == seconds


def test_presets_show_what_they_hold():
    assert "unet-64x80" in run("presets").stdout
    shown = json.loads(run("presets", "small", "--json").stdout)
    assert shown["size"] == [80, 112]


def test_a_preset_shows_its_layers_without_a_file_of_weights(monkeypatch):
    pretrained = apply_changes(
        load_preset("tiny"), ("model.stem=1", "model.encoder=resnet50", "model.weights=/no/such.h5")
    )
    plain = load_preset("tiny")
    monkeypatch.setattr(training, "load_preset", lambda name: pretrained if name == "small" else plain)
    shown = CliRunner().invoke(cli, ["presets", "tiny"]).output
    settings, table = shown.split("\n\nlayer ")
    assert parse(settings, "what is shown") == plain
    rows = {line.split()[0]: line.split()[-1] for line in table.splitlines()[1:-1]}
    # 3x3 from 8 channels to 8; at the end from 8 channels and a bias to one number a pixel.
    assert (rows["down0b_conv"], rows["mask_logit"]) == ("576", "9")
    total = int(table.splitlines()[-1].split()[0].replace(",", ""))
    assert total == sum(int(number.replace(",", "")) for number in rows.values())
    assert CliRunner().invoke(cli, ["presets", "small"]).output.endswith(" of them trained\n")


def train(monkeypatch, tmp_path, *words: str, failures: dict | None = None):
    """``train-folds`` with a training that only takes down what it is asked, and what that was."""
    from kaggle_nerve.runs import FoldResult, Run

    asked = {}

    def record(data_dir, runs_dir, name, settings, **options):
        asked.update(options, name=name, settings=settings)
        found = Run(runs_dir / name, settings)
        results = [FoldResult(1, True, 9, 7, 0.75, "best", 0.75, 0.5, 1 / 3, 0.9875)]
        if failures:
            raise run_folds.FoldsError(found, results, failures)
        return found, results

    monkeypatch.setattr(run_folds, "train_folds", record)
    monkeypatch.setattr(backend, "load_keras", lambda **options: asked.update(options))
    (tmp_path / "train").mkdir(exist_ok=True)
    words = ["train-folds", "--preset", "tiny", "--data", str(tmp_path), "--runs", str(tmp_path), *words]
    return CliRunner().invoke(cli, words), asked


def test_options_of_train_folds_are_settings_and_name_the_run(monkeypatch, tmp_path):
    # A name that TOML would take for a date.
    words = "--jobs", "3", "--deterministic", "--start-from", "2026-11-20"
    done, asked = train(monkeypatch, tmp_path, *words)
    assert done.exit_code == 0, done.output
    assert asked["jobs"] == 3
    assert asked["deterministic"] is asked["settings"].training.deterministic is True
    assert asked["settings"].training.start == "2026-11-20"
    assert asked["name"].startswith("tiny-")
    assert (
        "Fold 1 finished after 9 epochs: best mean Dice on its held-out subjects 0.7500 (epoch 7); over all "
        "pixels Dice 0.5000, IoU 0.3333, accuracy 0.9875"
    ) in done.stdout
    assert train(monkeypatch, tmp_path)[1]["jobs"] is None
    assert train(monkeypatch, tmp_path, "--jobs", "0")[0].exit_code == 2


def test_folds_that_failed_are_told_after_those_that_did_not(monkeypatch, tmp_path):
    failures = {
        2: NerveError("Fold 2 ended with signal 9; its log: x"),
        0: NerveError("The loss became nan."),
    }
    done, _ = train(monkeypatch, tmp_path, failures=failures)
    assert done.exit_code == 1
    assert "Fold 1 finished" in done.stdout
    assert "Next: kaggle-nerve submit" not in done.stdout
    assert done.stderr.splitlines() == [
        "Error: Fold 0: The loss became nan.",
        "Fold 2 ended with signal 9; its log: x",
        "Finished folds are kept; the same command tries the others again.",
    ]
    told = json.loads(train(monkeypatch, tmp_path, "--json", failures=failures)[0].stdout)
    assert told["folds"][0]["pixel_dice"] == 0.5
    assert list(told["failures"]) == ["0", "2"]


@pytest.fixture
def files(tmp_path):
    """A perfect submission but for frame 2, its solution, and the sample."""
    truth = [(1, "1 5"), (2, ""), (3, "7 3"), (4, "")]
    submission.write(tmp_path / "good.csv", [(1, "1 5"), (2, "9 1"), (3, "7 3"), (4, "")])
    submission.write(tmp_path / "sample.csv", [(img, "1 1") for img, _ in truth])
    usage = ["Public", "Public", "Private", "Private"]
    rows = [f"{img},{pixels},{use}" for (img, pixels), use in zip(truth, usage, strict=True)]
    (tmp_path / "solution.csv").write_text("\n".join(["img,pixels,Usage", *rows]) + "\n")
    return tmp_path


def test_score_by_hand(files):
    told = json.loads(run("score", files / "good.csv", files / "solution.csv", "--json").stdout)
    assert told == {"all": 0.75, "public": 0.5, "private": 1.0, "frames": 4}
    assert "0.75000" in run("score", files / "good.csv", files / "solution.csv").stdout


def test_a_folder_without_a_sample_is_no_weaker_check(files, tmp_path):
    told = run("validate", files / "good.csv", "--data", tmp_path / "nowhere", code=1)
    assert "sample_submission.csv is missing" in told.stderr


def test_validate(files):
    told = run("validate", files / "good.csv", "--sample", files / "sample.csv")
    assert "is valid: 4 rows, 3 with a mask" in told.stdout
    (files / "bad.csv").write_text("img,pixels\n1,1 5\n2,3\n3,\n5,\n")
    told = run("validate", files / "bad.csv", "--sample", files / "sample.csv", code=1)
    assert "line 3" in told.stdout
    assert "frame 5 is unknown" in told.stdout
    faults = json.loads(
        run("validate", files / "bad.csv", "--sample", files / "sample.csv", "--json", code=1).stdout
    )["faults"]
    assert [fault["line"] for fault in faults][:2] == [3, 5]


def test_a_faulty_file_is_refused_before_anything_is_asked_of_kaggle(files):
    (files / "bad.csv").write_text("img,pixels\n1,3\n")
    (files / "sample_submission.csv").write_bytes((files / "sample.csv").read_bytes())
    told = command(files, "submit", "--file", "bad.csv", "--data", files, "--submissions", "s", code=1)
    assert "is not a valid submission" in told.stderr
    assert not (files / "s").exists()


def test_windows_lines_in_another_order_are_valid_and_normalised_if_asked(files):
    rows = (files / "good.csv").read_bytes().splitlines()
    (files / "windows.csv").write_bytes(b"\r\n".join([rows[0], *reversed(rows[1:]), b""]))
    words = ("--file", "windows.csv", "--data", files, "--submissions", "s", "--dry-run")
    (files / "sample_submission.csv").write_bytes((files / "sample.csv").read_bytes())
    told = command(files, "validate", "windows.csv", "--sample", "sample.csv").stdout
    assert "windows.csv is valid: " in told
    assert told.count("\nRemark: ") == 2
    assert "Kaggle accepts any order" in command(files, "submit", *words).stderr
    told = command(files, "submit", "--normalise", *words)
    assert "s/windows-normalised.csv: the same 4 rows with LF line ends" in told.stdout
    assert (files / "s" / "windows-normalised.csv").read_bytes() == (files / "good.csv").read_bytes()
    command(files, "submit", "--normalise", "--run", "x", code=2)
    command(files, "submit", *words, "--out", "x.csv", code=2)
    assert "0.75000" in command(files, "score", "windows.csv", "solution.csv").stdout


def test_verify_lists_every_problem(tmp_path):
    write_competition(tmp_path, subjects=1, frames=2, test=2)
    assert "every mask file equals its row" in run("verify", "--data", tmp_path).stdout
    (tmp_path / "train" / "1_1_mask.tif").unlink()
    told = json.loads(run("verify", "--data", tmp_path, "--json", code=1).stdout)
    assert len(told["problems"]) == 1


def test_the_data_directory_may_come_from_the_environment(tmp_path, monkeypatch):
    write_competition(tmp_path, subjects=1, frames=2, test=2)
    monkeypatch.setenv("KAGGLE_NERVE_DATA", str(tmp_path))
    assert str(tmp_path) in run("verify").stdout


def test_an_empty_ledger(tmp_path):
    assert "Nothing was submitted yet" in run("submissions", "list", "--submissions", tmp_path).stdout


def test_doctor_tells_what_is_missing_and_no_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_secret_value")
    told = process("doctor", "--data", tmp_path / "none")
    assert "secret_value" not in told.stdout + told.stderr
    assert "KAGGLE_API_TOKEN" in told.stdout
    assert "kaggle-nerve fetch" in told.stdout
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    monkeypatch.setattr(cli_doctor, "_devices", lambda advice: {})
    told = CliRunner().invoke(cli, ["doctor", "--json", "--data", str(tmp_path / "none")])
    assert json.loads(told.stdout)["advice"]


@pytest.mark.parametrize(
    ("client", "begin"),
    [
        (None, 'The kaggle client is not installed: run `pip install "kaggle>=2.2.4,<='),
        ("2.2.3", "The kaggle client 2.2.3 is too old: run `pip install"),
        ("2.2.4", ""),
        (versions.NEWEST, ""),
        (
            "2.10.0rc1",
            "The kaggle client 2.10.0rc1 is newer than those that kaggle-nerve was tested with (2.2.4 to ",
        ),
    ],
)
def test_doctor_remarks_on_a_client_that_was_not_tested(tmp_path, monkeypatch, client, begin):
    monkeypatch.setattr(versions, "installed", lambda: client)
    monkeypatch.setattr(cli_doctor, "_devices", lambda advice: {})
    result = CliRunner().invoke(cli_doctor.doctor, ["--json", "--data", str(tmp_path / "none")])
    remarks = [line for line in json.loads(result.stdout)["advice"] if "kaggle client" in line]
    assert [line[: len(begin)] for line in remarks] == ([begin] if begin else [])


def test_it_runs_without_a_home_that_can_be_written(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "nowhere"))
    assert "small" in process("presets").stdout
    assert os.environ["HOME"].endswith("nowhere")


@pytest.fixture
def bare_run(tmp_path, monkeypatch):
    """A folder with a run ``x`` of settings alone, where Keras must not be loaded."""
    monkeypatch.setattr(backend, "load_keras", lambda **_: pytest.fail("Keras was loaded"))
    (tmp_path / "runs" / "x").mkdir(parents=True)
    save_settings(load_preset("tiny"), tmp_path / "runs" / "x" / "settings.toml")
    return tmp_path


@pytest.mark.parametrize(
    "words", [("train-folds",), ("predict", "--run", "x"), ("submit", "--run", "x", "--dry-run")]
)
def test_a_missing_folder_is_named_before_keras_is_loaded(bare_run, words):
    told = command(bare_run, *words, "--data", "nowhere", code=1).stderr
    assert (
        told
        == "Error: There is no data directory nowhere; run `kaggle-nerve fetch` or name it with --data.\n"
    )


def test_a_missing_picture_is_named_before_keras_is_loaded(bare_run):
    told = command(bare_run, "predict", "--run", "x", "--frame", "no.png", "--out", "o.png", code=1).stderr
    assert told == "Error: There is no file no.png; check the path.\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_asks_for_the_end_of_the_epoch_and_a_second_one_for_the_end(number, capsys):
    with terminal.GentleInterrupt() as interrupt:
        os.kill(os.getpid(), number)
        assert interrupt.stop()
        assert "Finishing this epoch, then stopping" in capsys.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)


def test_a_bar_shows_the_score_on_80_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    bar = terminal.LiveBar("Fold 0", 10740, "step")
    bar.update(8360)
    score = "epoch 12 loss 0.217 dice 0.8610 (best 0.8769)"
    bar.note(score)
    text = str(bar._bar)
    bar.close()
    assert text.index(score) + len(score) < 80
