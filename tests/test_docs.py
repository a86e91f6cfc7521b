"""Generated documentation equals what the code says; ``make docs`` writes it anew."""

import re
import subprocess
import sys
from pathlib import Path

from click import Context

from kaggle_nerve.cli import cli

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = ROOT / "docs" / "cli.md"


def reference() -> str:
    """What the commands say, asked in a process of its own: click keeps the first answer of each, which has the
    option names of whoever asked first.
    """
    told = "import test_docs; print(test_docs.written(), end='')"
    command = [sys.executable, "-c", told]
    return subprocess.run(
        command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    ).stdout


def written() -> str:
    parts = [
        "# Command line\n\nGenerated from the commands' own help by `make docs`; do not edit.\n",
    ]

    def add(command, name, parent):
        settings = {**command.context_settings, "max_content_width": 100, "terminal_width": 100}
        context = Context(command, info_name=name, parent=parent, **settings)
        parts.append(f"## `{context.command_path}`\n\n```text\n{command.get_help(context)}\n```\n")
        for inner_name, inner in getattr(command, "commands", {}).items():
            add(inner, inner_name, context)

    add(cli, "kaggle-nerve", None)
    return "\n".join(parts)


def test_the_command_reference_is_up_to_date(request):
    if request.config.getoption("--regenerate"):
        REFERENCE.write_text(reference(), encoding="utf-8")
    assert REFERENCE.read_text(encoding="utf-8") == reference(), "run `make docs`"


def test_every_command_is_in_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in cli.commands:
        assert re.search(rf"(`|kaggle-nerve ){name}\b", readme), name


def test_what_the_readme_links_to_is_there():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", readme):
        assert (ROOT / target).exists(), target
