"""Generated kernels: up to date, deterministic, closed, and what drifts is named."""

import ast
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kaggle_nerve.errors import NerveError
from kaggle_nerve.kaggle_api.slugs import slug_of
from kaggle_nerve.notebooks import build as building
from kaggle_nerve.notebooks import closure as closures
from kaggle_nerve.notebooks.notebook import build_notebook, build_paste
from kaggle_nerve.notebooks.plans import PLANS, TRAIN
from kaggle_nerve.notebooks.pushing import prepare_kernel
from kaggle_nerve.settings.parts import Part

KERNELS = Path(__file__).parents[1] / "kernels"


@pytest.fixture(scope="module")
def files():
    return closures.closure(TRAIN.entry)


def test_the_kernels_are_up_to_date(request):
    if request.config.getoption("--regenerate"):
        building.build(KERNELS)
    assert building.check(KERNELS) == [], "run `make docs`"


def test_building_again_gives_the_same_bytes_and_writes_nothing(tmp_path):
    written = building.build(tmp_path)
    assert len(written) == 9
    assert building.build(tmp_path) == []
    command = "from kaggle_nerve.notebooks.build import build; from pathlib import Path; build(Path('x'))"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", command], cwd=tmp_path, check=True, env=environment)
    for path in written:
        assert (tmp_path / "x" / path).read_bytes() == (tmp_path / path).read_bytes()


def test_a_changed_module_is_named(tmp_path, monkeypatch):
    building.build(tmp_path)
    real = building.closure

    def changed(entry):
        return [
            dataclasses.replace(file, text=file.text + "# more\n") if file.path.endswith("/rle.py") else file
            for file in real(entry)
        ]

    monkeypatch.setattr(building, "closure", changed)
    drifts = [str(drift) for drift in building.check(tmp_path)]
    assert len(drifts) == 6  # a notebook and a pasted cell of each kernel
    assert "nerve-explore/paste.py is older than kaggle_nerve/competition/rle.py" in drifts


def test_missing_and_edited_files_are_named(tmp_path):
    building.build(tmp_path)
    (tmp_path / "nerve-explore" / "paste.py").unlink()
    told = tmp_path / "nerve-train-folds" / "kernel-metadata.json"
    told.write_text(told.read_text().replace("false", "true"))
    edited = tmp_path / "nerve-explore" / "nerve-explore.ipynb"
    edited.write_text(edited.read_text().replace("COUNT = 12", "COUNT = 13"))
    assert sorted(map(str, building.check(tmp_path))) == [
        "nerve-explore/nerve-explore.ipynb differs from kaggle_nerve/notebooks/plans.py or notebook.py",
        "nerve-explore/paste.py is missing",
        "nerve-train-folds/kernel-metadata.json differs from kaggle_nerve/notebooks/plans.py",
    ]


@pytest.mark.parametrize("name", ["nerve-explore.ipynb", "paste.py"])
def test_a_module_edited_in_a_kernel_is_named(tmp_path, name):
    """Its digest stays, so that only the text itself tells."""
    building.build(tmp_path)
    edited = tmp_path / "nerve-explore" / name
    edited.write_text(edited.read_text().replace("Print one line, unbuffered.", "Edited."))
    assert list(map(str, building.check(tmp_path))) == [
        f"nerve-explore/{name} has kaggle_nerve/session/console.py changed by hand"
    ]


@pytest.mark.parametrize("file", ["kernel-metadata.json", "paste.py", "nerve-old.ipynb"])
def test_a_folder_of_an_older_version_is_named(tmp_path, file):
    building.build(tmp_path)
    for other in (tmp_path / "nerve-old" / file, tmp_path / "notes" / "read.me", tmp_path / "README.md"):
        other.parent.mkdir(exist_ok=True)
        other.write_text("")
    (drift,) = building.check(tmp_path)
    assert str(drift) == "nerve-old is no kernel of this package: delete it"


def test_a_file_that_is_no_text_differs_and_is_built_anew(tmp_path):
    building.build(tmp_path)
    spoilt = tmp_path / "nerve-explore" / "paste.py"
    spoilt.write_bytes(spoilt.read_bytes().replace(b"Print one line, unbuffered.", b"One line\xff"))
    told = "nerve-explore/paste.py has kaggle_nerve/session/console.py changed by hand"
    assert list(map(str, building.check(tmp_path))) == [told]
    assert building.build(tmp_path) == ["nerve-explore/paste.py"]
    assert building.check(tmp_path) == []


def test_a_closure_has_what_is_needed_and_no_more(files):
    paths = [file.path for file in files]
    assert paths[0] == "kaggle_nerve/__init__.py"
    assert len(set(paths)) == len(paths)
    assert {"kaggle_nerve/training/worker.py", "kaggle_nerve/presets/small.toml"} <= set(paths)
    assert not [path for path in paths if "/cli/" in path or "/kaggle_api/" in path or "/rehearsal/" in path]
    submitting = {file.path for file in closures.closure(PLANS["nerve-predict-submit"].entry)}
    assert "kaggle_nerve/training/run_folds.py" not in submitting
    # What is built upon comes first.
    assert paths.index("kaggle_nerve/errors.py") < paths.index("kaggle_nerve/data/cache.py")
    assert paths.index("kaggle_nerve/data/cache.py") < paths.index("kaggle_nerve/training/fold.py")


def test_what_a_notebook_must_not_import_is_refused_with_the_way_there():
    with pytest.raises(ValueError, match=r"must not import click.*kaggle_nerve\.cli\.submit -> click"):
        closures.closure("kaggle_nerve.cli.submit")


def test_a_pasted_cell_holds_each_file_as_it_is(files):
    tree = ast.parse(build_paste(TRAIN, files))
    calls = [
        node.value for node in tree.body if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    ]
    held = {
        ast.literal_eval(call.args[0]): ast.literal_eval(call.args[1])
        for call in calls
        if getattr(call.func, "id", "") == "write"
    }
    assert held == {file.path: file.text for file in files}


def test_texts_that_would_end_a_literal_early_survive():
    odd = [
        closures.File("kaggle_nerve/__init__.py", "a = '''x'''\n"),
        closures.File("kaggle_nerve/errors.py", ""),
        closures.File("kaggle_nerve/runs.py", "no end"),
        closures.File("kaggle_nerve/storage.py", 'b = "\\n"  # \\\n'),
    ]
    written = {}
    body = [node for node in ast.parse(build_paste(TRAIN, odd)).body if "write(" in ast.unparse(node)[:6]]
    for node in body:
        exec(compile(ast.Module([node], []), "x", "exec"), {"write": written.__setitem__})
    assert written == {file.path: file.text for file in odd}


def test_metadata_says_no_internet_and_which_machine():
    told = json.loads(building.metadata(TRAIN, "somebody"))
    assert told["id"] == "somebody/nerve-train-folds"
    assert told["enable_internet"] is False
    assert told["machine_shape"] == "NvidiaTeslaT4"
    assert told["competition_sources"] == ["ultrasound-nerve-segmentation"]
    for plan in PLANS.values():
        assert plan.title.lower().replace(" ", "-") == plan.name  # or Kaggle gives it another address


def test_what_is_pushed_is_what_kernels_holds(tmp_path):
    prepare_kernel("nerve-explore", "somebody", tmp_path)
    pushed = (tmp_path / "nerve-explore.ipynb").read_bytes()
    assert pushed == (KERNELS / "nerve-explore" / "nerve-explore.ipynb").read_bytes()


def test_settings_and_attachments_of_a_pushed_kernel(tmp_path):
    settings = {"PRESET": "small", "HOURS": "5", "CHANGES": '["training.epochs=3"]'}
    prepare_kernel(
        "nerve-train-folds", "me", tmp_path, settings=settings, datasets=["me/weights"], kernels=["me/other"]
    )
    told = json.loads((tmp_path / "kernel-metadata.json").read_text())
    assert (told["dataset_sources"], told["kernel_sources"]) == (["me/weights"], ["me/other"])
    cells = json.loads((tmp_path / "nerve-train-folds.ipynb").read_text())["cells"]
    values = {}
    exec("".join(cells[1]["source"]), values)
    assert (values["PRESET"], values["HOURS"], values["CHANGES"]) == ("small", 5, ["training.epochs=3"])
    assert values["RUN"] is None


@pytest.mark.parametrize(
    ("kernel", "name", "text", "value"),
    [
        ("nerve-train-folds", "SHORTEN", "false", False),
        ("nerve-train-folds", "SHORTEN", "TRUE", True),
        ("nerve-train-folds", "HOURS", "5", 5),
        ("nerve-train-folds", "HOURS", "0.5", 0.5),
        ("nerve-train-folds", "CHANGES", "training.epochs=3", ["training.epochs=3"]),
        ("nerve-train-folds", "CHANGES", "size=[192,256]", ["size=[192,256]"]),
        ("nerve-train-folds", "CHANGES", "[]", []),
        ("nerve-train-folds", "RUN", "None", None),
        ("nerve-train-folds", "RUN", "'none'", "none"),
        ("nerve-train-folds", "RUN", "7", "7"),
        ("nerve-train-folds", "FOLDS", "5", "5"),
        ("nerve-train-folds", "FOLDS", "42/5", "42/5"),
        ("nerve-train-folds", "PART", "1/2", "1/2"),
        ("nerve-predict-submit", "RUNS", "small", ["small"]),
        ("nerve-predict-submit", "RUNS", "['small', \"small@flips\"]", ["small", "small@flips"]),
        ("nerve-predict-submit", "RUNS", "1e5", ["1e5"]),
        ("nerve-explore", "COUNT", "4", 4),
    ],
)
def test_values_of_settings(tmp_path, kernel, name, text, value):
    prepare_kernel(kernel, "me", tmp_path, settings={name: text})
    values = {}
    exec("".join(json.loads((tmp_path / f"{kernel}.ipynb").read_text())["cells"][1]["source"]), values)
    assert (values[name], type(values[name])) == (value, type(value))


@pytest.mark.parametrize(
    ("kernel", "name", "text", "wanted"),
    [
        ("nerve-train-folds", "SHORTEN", "no", "true or false"),
        ("nerve-train-folds", "SHORTEN", "1", "true or false"),
        ("nerve-train-folds", "HOURS", "5h", "a number"),
        ("nerve-train-folds", "HOURS", "True", "a number"),
        ("nerve-train-folds", "HOURS", "none", "a number"),
        ("nerve-train-folds", "RUN", "{[1]:2}", "a text, or none"),
        ("nerve-train-folds", "RUN", "['a']", "a text, or none"),
        ("nerve-train-folds", "PRESET", "", "a text, or none"),
        ("nerve-train-folds", "CHANGES", "[training.epochs=3]", "one text, or several"),
        ("nerve-train-folds", "CHANGES", "[3]", "one text, or several"),
        ("nerve-train-folds", "CHANGES", "none", "one text, or several"),
        ("nerve-explore", "COUNT", "4.5", "a whole number"),
    ],
)
def test_values_that_the_session_would_fail_on_are_refused(tmp_path, kernel, name, text, wanted):
    with pytest.raises(NerveError) as told:
        prepare_kernel(kernel, "me", tmp_path, settings={name: text})
    assert f"Setting {name} of kernel {kernel} cannot be {text!r}: write {wanted}" in str(told.value)


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("PRESET", "smal", "No preset is called 'smal'"),
        ("HOURS", "-1", "HOURS=-1 must lie above 0 and at most at 12"),
        ("HOURS", "13", "HOURS=13 must lie"),
        ("FOLDS", "abc", "folds"),
        ("CHANGES", "training.epoch=3", "training.epoch"),
    ],
)
def test_settings_that_training_refuses_are_refused_before_a_session_begins(tmp_path, name, text, wanted):
    with pytest.raises(NerveError, match=wanted):
        prepare_kernel("nerve-train-folds", "me", tmp_path, settings={name: text})


def test_the_kernel_of_a_part_has_its_own_name_and_setting(tmp_path):
    prepare_kernel("nerve-train-folds", "me", tmp_path, settings={"PRESET": "small"}, part=Part(2, 3))
    told = json.loads((tmp_path / "kernel-metadata.json").read_text())
    assert (told["id"], told["title"]) == ("me/nerve-train-folds-2", "Nerve train folds 2")
    assert slug_of(told["title"]) == "nerve-train-folds-2"  # or Kaggle gives it another address
    values = {}
    exec("".join(json.loads((tmp_path / told["code_file"]).read_text())["cells"][1]["source"]), values)
    assert (values["PRESET"], values["PART"]) == ("small", "2/3")


@pytest.mark.parametrize(
    ("settings", "part", "wanted"),
    [
        ({"PART": "1/2"}, Part(1, 2), "leave out --set PART"),
        ({"FOLDS": "3"}, Part(1, 4), "cannot be split into 4 parts.*: use 3 parts at most"),
        ({}, Part(1, 6), r"folds = '5\+all' cannot be split into 6 parts"),
        ({"CHANGES": "folds=42/5"}, Part(1, 2), "train it in one session"),
        ({"PART": "3/2"}, None, "PART = '3/2' must be"),
        ({"PART": "1/6"}, None, "cannot be split into 6 parts"),
    ],
)
def test_parts_that_the_session_would_refuse_are_refused(tmp_path, settings, part, wanted):
    with pytest.raises(NerveError, match=wanted):
        prepare_kernel("nerve-train-folds", "me", tmp_path, settings=settings, part=part)


def test_wrong_names_are_refused(tmp_path):
    with pytest.raises(NerveError, match="There is no kernel 'nerve'; there are nerve-train-folds"):
        prepare_kernel("nerve", "me", tmp_path)
    with pytest.raises(NerveError, match="has no setting 'EPOCHS'; it has PRESET, FOLDS, HOURS"):
        prepare_kernel("nerve-train-folds", "me", tmp_path, settings={"EPOCHS": "3"})
    with pytest.raises(NerveError, match="write it as owner/name"):
        prepare_kernel("nerve-train-folds", "me", tmp_path, datasets=["weights"])


def test_every_floor_has_its_heading(files):
    assert build_notebook(TRAIN, files)
    explored = closures.closure(PLANS["nerve-explore"].entry)
    assert build_notebook(PLANS["nerve-explore"], explored)
