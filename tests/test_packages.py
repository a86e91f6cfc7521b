"""What is installed is declared: setup.cfg's ranges, constraints.txt, the Pythons, the client's versions."""

import configparser
import re

import packages
import pytest
from packaging.version import Version

from kaggle_nerve.kaggle_api.versions import NEWEST, OLDEST

TEXT = packages.CONSTRAINTS.read_text(encoding="utf-8")
PYTHONS = packages.pythons(TEXT)
PLATFORMS = ("linux", "darwin", "win32")


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("platform", PLATFORMS)
def test_everything_declared_is_pinned_within_its_range(python: str, platform: str) -> None:
    pins = packages.pins(
        TEXT, python_version=python, python_full_version=f"{python}.0", sys_platform=platform
    )
    declared = packages.declared()
    assert len(declared) > 25
    for requirement in declared:
        assert requirement.name in pins, f"make constraints: {requirement}"
        assert pins[requirement.name] in requirement.specifier, f"make constraints: {requirement}"
    assert "setuptools" in pins


def test_kaggles_image_is_pinned_too() -> None:
    folder = packages.ROOT / "kernels"
    pins = packages.pins((folder / "constraints.txt").read_text(encoding="utf-8"))
    image = packages.requirements((folder / "image.txt").read_text(encoding="utf-8"))
    assert {"tensorflow", "keras", "numpy"} <= {requirement.name for requirement in image}
    for requirement in image:
        assert requirement.name in pins, f"make constraints: {requirement}"
        assert pins[requirement.name] in requirement.specifier, f"make constraints: {requirement}"


def test_the_pythons_are_those_of_setup_cfg_and_of_the_makefile() -> None:
    config = configparser.ConfigParser()
    config.read(packages.ROOT / "setup.cfg", encoding="utf-8")
    named = re.findall(r"Python :: (3\.\d+)", config["metadata"]["classifiers"])
    makefile = (packages.ROOT / "Makefile").read_text(encoding="utf-8")
    assert PYTHONS == named == re.search(r"^PYTHONS := (.+)$", makefile, re.MULTILINE)[1].split()
    assert config["options"]["python_requires"] == f">={PYTHONS[0]}"


def test_the_clients_versions_are_those_that_are_tested() -> None:
    """OLDEST by `make test-oldest`, NEWEST by `make test`."""
    [client] = (requirement for requirement in packages.declared() if requirement.name == "kaggle")
    assert packages.pins(TEXT)["kaggle"] == NEWEST
    assert f">={OLDEST}" in str(client.specifier).split(",")
    assert Version(OLDEST) <= Version(NEWEST)


def test_differences_are_named() -> None:
    text = "# for Python 3.11 3.12\na==1.0\nb-c==2\nd==3 ; sys_platform == 'nowhere'\n"
    assert packages.pythons(text) == ["3.11", "3.12"]
    assert packages.pins(text) == {"a": "1.0", "b-c": "2"}
    assert packages.pins(text, sys_platform="nowhere")["d"] == "3"
    have = {"a": "1.0", "b-c": "2.1", "e": "5"}
    assert packages.differences(packages.pins(text), have) == [
        "b-c 2.1 (constraints.txt: 2)",
        "e 5 (constraints.txt: none)",
    ]


def test_this_environment_is_reported() -> None:
    lines = packages.report().splitlines()
    assert re.match(r"Python 3\.\d+\.\d+, \d\d+ packages, \d+ of them in another version", lines[0])
    assert "kaggle" in packages.installed()
