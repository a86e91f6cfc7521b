"""Write files atomically; completion markers and digests."""

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from kaggle_nerve.disk import UNSUPPORTED, name_in_faults
from kaggle_nerve.errors import NerveError

COMPLETE = "complete.json"


def user_cache() -> Path:
    """Return the package's folder in the user's cache: in XDG_CACHE_HOME, or in ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kaggle-nerve"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder; it replaces ``path`` if the block succeeds.

    A reader, and a later run after a kill, sees the old file or the new one, never a partial one. An OSError names
    ``path``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with name_in_faults(path):
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=f".{path.name}")
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            flush(temporary)
            with suppress(OSError):  # some network drives have rights of their own
                temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 ``text`` with ``\\n`` line ends, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically. Raise ValueError for NaN, which JSON lacks."""
    write_text(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: Path, kind: type = dict) -> Any:
    """Read a JSON file; raise NerveError, naming the file, if it is damaged or does not hold a ``kind``."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(stored, kind):
            raise ValueError(f"it holds no {kind.__name__}")
    except ValueError as fault:
        raise NerveError(
            f"{path} is not readable JSON ({fault}); restore it from a copy, or delete it and run the same command "
            "again, which repeats the work that it records."
        ) from fault
    return stored


def mark_complete(folder: Path, facts: dict[str, Any]) -> None:
    """Mark the work in ``folder`` as finished; ``facts`` are its inputs' digests and figures."""
    write_json(folder / COMPLETE, facts)


def read_completion(folder: Path) -> dict[str, Any] | None:
    """Read the facts of finished work in ``folder``; None while it is unfinished."""
    marker = folder / COMPLETE
    return read_json(marker) if marker.is_file() else None


def reopen(folder: Path) -> None:
    """Mark the work in ``folder`` as unfinished."""
    (folder / COMPLETE).unlink(missing_ok=True)


def digest_file(path: Path) -> str:
    """Compute the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_bytes(content: bytes) -> str:
    """Compute the SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def digest_text(*parts: str) -> str:
    """Compute the SHA-256 of several strings, in hexadecimal; where one ends and the next begins matters."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def flush(path: Path) -> None:
    """Wait until the file's content is on the disk; some network drives cannot tell, and keep it as they do."""
    with path.open("rb") as file:
        try:
            os.fsync(file.fileno())
        except OSError as fault:
            if fault.errno not in UNSUPPORTED:
                raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
