"""Say in one sentence why a fold's training ended: a lack of memory, or a signal."""

import signal
from pathlib import Path

from kaggle_nerve import memory
from kaggle_nerve.runs import Fold

CRASHES = ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGKILL")
"""Signals that mostly mean a lack of memory: the system kills, libraries abort or use what they did not get."""

TAIL = 20_000
"""Bytes at the end of a log to look at."""


def memory_sentence(fold: Fold, jobs: int, reason: str = "ran out of memory") -> str:
    """Return the sentence for a fold that had too little memory, with what to make smaller.

    ``jobs``: how many folds are trained side by side.
    """
    settings = fold.run.settings
    batch, (height, width) = settings.training.batch, settings.size
    fewer = "train it with fewer --jobs, or as" if jobs > 1 else "train it as"
    smaller = f"--set training.batch={batch // 2}, " if batch > 1 else ""
    return (
        f"{fold.label} {reason} at training.batch={batch} and size=[{height},{width}]; {fewer} another run with "
        f"{smaller}a smaller size or a smaller model.width."
    )


def death_sentence(fold: Fold, jobs: int, code: int) -> str:
    """Return the sentence for a fold's process that ended with ``code`` (negative: a signal) without a result."""
    log = f"its log: {fold.log}"
    if code >= 0:
        return f"{fold.label} ended with exit code {code}; {log}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if name not in CRASHES:
        return f"{fold.label} ended with {name}; {log}"
    if memory.mentions(_tail(fold.log)):
        return memory_sentence(fold, jobs)
    verb = "was killed" if name == "SIGKILL" else "crashed"
    return f"{memory_sentence(fold, jobs, f'{verb} ({name}), most likely for lack of memory,')[:-1]}; {log}"


def _tail(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - TAIL))
            return file.read().decode(errors="replace")
    except OSError:
        return ""
