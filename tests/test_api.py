"""The names that `import kaggle_nerve` gives, and the examples of their page."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import kaggle_nerve

PAGE = Path(__file__).resolve().parents[1] / "docs" / "api.md"


def test_every_name_is_what_the_type_checker_reads():
    text = Path(kaggle_nerve.__file__).read_text(encoding="utf-8")
    imports = re.findall(r"^    from kaggle_nerve\.(\S+) import (.+)$", text, re.MULTILINE)
    places = {}
    for module, names in imports:
        for name in names.split(", "):
            inside, _, alias = name.partition(" as ")
            places[alias or inside] = f"{module}:{inside}"
    assert places == kaggle_nerve._PLACES
    assert sorted(places) == kaggle_nerve.__all__
    assert all(callable(getattr(kaggle_nerve, name)) for name in kaggle_nerve.__all__)
    assert set(kaggle_nerve.__all__) < set(dir(kaggle_nerve))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'predikt'"):
        _ = kaggle_nerve.predikt


def test_the_import_itself_is_light():
    heavy = "import kaggle_nerve, sys; print(*{'numpy', 'pandas', 'keras', 'click'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_page_names_every_one():
    assert set(re.findall(r"`(\w+)`", PAGE.read_text(encoding="utf-8").partition("## ")[0])) >= set(
        kaggle_nerve.__all__
    )


@pytest.mark.long
def test_the_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parts = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(parts) == 4
    exec("\n".join(parts), {"__name__": "api"})
    assert (tmp_path / "submission.csv").is_file()
