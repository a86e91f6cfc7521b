"""What Kaggle and the ledger are told of where a submission came from."""

from dataclasses import asdict
from pathlib import Path

from kaggle_nerve.decision.decision import Decision
from kaggle_nerve.runs import Run, join_names
from kaggle_nerve.storage import digest_file, digest_text, locked, read_json, write_json
from kaggle_nerve.submissions.ledger import PATIENCE, Origin

NOTES = ".origins.json"
"""In the folder of submissions: the origin of each file made there, by the file's digest."""


def ledger_origin(runs: list[Run], decision: Decision) -> Origin:
    """What the ledger keeps of it."""
    figures = decision.figures
    settings = (
        digest_text(*(run.settings.digest() for run in runs)) if len(runs) > 1 else runs[0].settings.digest()
    )
    return Origin(join_names(runs), settings[:12], figures.dice, figures.low, figures.high)


def remember(csv: Path, origin: Origin, submissions_dir: Path) -> None:
    """Note where a file comes from, for the day on which it is uploaded."""
    told = f"Another process holds {submissions_dir / NOTES}: run the same command again when it has ended."
    with locked(submissions_dir / ".origins.lock", told, PATIENCE):
        write_json(submissions_dir / NOTES, _notes(submissions_dir) | {digest_file(csv): asdict(origin)})


def remembered(csv: Path, submissions_dir: Path) -> Origin | None:
    """The origin of a file that was made earlier, None where none is noted."""
    found = _notes(submissions_dir).get(digest_file(csv))
    return Origin(**found) if found else None


def default_message(origin: Origin) -> str:
    """A description for Kaggle: the runs and their out-of-fold figure."""
    return f"{origin.run}, out-of-fold {origin.oof:.4f}"


def _notes(submissions_dir: Path) -> dict[str, dict]:
    path = submissions_dir / NOTES
    return read_json(path) if path.is_file() else {}
