"""What constraints.txt pins, and what is installed in its place: ``python tests/packages.py`` prints the difference.

``make test-newest`` and ``make test-oldest`` run it, so that their results name what they were got with.
"""

import configparser
import re
import sys
from importlib.metadata import distributions
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "constraints.txt"


def pins(text: str, **environment: str) -> dict[str, str]:
    """Package names and the versions that ``text``, lines of ``name==version ; marker``, pins them to.

    ``environment`` takes the place of this machine's values in markers, such as ``sys_platform="win32"``.
    """
    return {
        canonicalize_name(requirement.name): str(requirement.specifier).removeprefix("==")
        for requirement in requirements(text)
        if requirement.marker is None or requirement.marker.evaluate(environment)
    }


def pythons(text: str) -> list[str]:
    """The Python versions that the first line of constraints.txt names."""
    return re.findall(r"\d\.\d+", text.partition("\n")[0])


def requirements(text: str) -> list[Requirement]:
    """One requirement a line; comments and empty lines count for nothing."""
    return [Requirement(line) for line in text.splitlines() if line and not line.startswith("#")]


def declared() -> list[Requirement]:
    """What setup.cfg asks for, its extras included."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    parts = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    return requirements("\n".join(parts))


def installed() -> dict[str, str]:
    """Names and versions of the packages of this environment, without kaggle-nerve and pip."""
    versions = {canonicalize_name(package.name): package.version for package in distributions()}
    return {name: version for name, version in versions.items() if name not in ("kaggle-nerve", "pip")}


def differences(wanted: dict[str, str], have: dict[str, str]) -> list[str]:
    """A line for each package of ``have`` that ``wanted`` has in another version, or not at all."""
    return [
        f"{name} {version} (constraints.txt: {wanted.get(name, 'none')})"
        for name, version in sorted(have.items())
        if wanted.get(name) != version
    ]


def report() -> str:
    """The differences of this environment, as text."""
    have = installed()
    lines = differences(pins(CONSTRAINTS.read_text(encoding="utf-8")), have)
    return "\n".join(
        [
            f"Python {sys.version.split()[0]}, {len(have)} packages, {len(lines)} of them in another version than "
            f"constraints.txt has{':' if lines else '.'}",
            *(f"  {line}" for line in lines),
        ]
    )


if __name__ == "__main__":
    sys.stdout.write(f"{report()}\n")
