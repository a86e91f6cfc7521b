"""Record where each submission came from, for Kaggle's description and the ledger."""

from dataclasses import asdict
from pathlib import Path

from kaggle_nerve.decision.decision import Decision
from kaggle_nerve.locks import hold_lock
from kaggle_nerve.runs import Run, join_names
from kaggle_nerve.storage import digest_file, digest_text, read_json, write_json
from kaggle_nerve.submissions.ledger import PATIENCE, Origin

NOTES = ".origins.json"
"""In the folder of submissions: the origin of each file made there, by the file's digest."""


def make_origin(runs: list[Run], decision: Decision) -> Origin:
    """Make the ledger's origin of a submission."""
    figures = decision.figures
    settings = (
        digest_text(*(run.settings.digest() for run in runs)) if len(runs) > 1 else runs[0].settings.digest()
    )
    return Origin(join_names(runs), settings[:12], figures.dice, figures.low, figures.high)


def record_origin(csv: Path, origin: Origin, submissions_dir: Path) -> None:
    """Record a file's origin, for a later upload."""
    message = (
        f"Another process holds {submissions_dir / NOTES}: run the same command again when it has ended."
    )
    with hold_lock(submissions_dir / ".origins.lock", message, PATIENCE):
        write_json(submissions_dir / NOTES, _notes(submissions_dir) | {digest_file(csv): asdict(origin)})


def find_origin(csv: Path, submissions_dir: Path) -> Origin | None:
    """Return the recorded origin of a file, or None."""
    notes = _notes(submissions_dir).get(digest_file(csv))
    return Origin(**notes) if notes else None


def default_message(origin: Origin) -> str:
    """Return a description for Kaggle: the runs and their out-of-fold Dice."""
    return f"{origin.run}, out-of-fold {origin.oof:.4f}"


def _notes(submissions_dir: Path) -> dict[str, dict]:
    path = submissions_dir / NOTES
    return read_json(path) if path.is_file() else {}
