"""Marker that distinguishes a synthetic data directory from the real one."""

from pathlib import Path
from typing import Any

from kaggle_nerve.errors import NerveError
from kaggle_nerve.storage import read_json, write_json, write_text

MARKER = "synthetic.json"

_README = """\
SYNTHETIC DATA - A PHANTOM

Every frame in this directory was computed by kaggle-nerve (kaggle_nerve.phantom). No frame and
no mask comes from a patient or from Kaggle's "Ultrasound Nerve Segmentation"; only the file format is
that competition's. Scores reached here say nothing about scores on Kaggle.
"""


def is_synthetic(data_dir: Path) -> bool:
    """Return whether the frames in ``data_dir`` are a phantom's."""
    path = Path(data_dir) / MARKER
    return path.is_file() and bool(read_json(path).get("synthetic"))


def open_marker(out: Path, settings: dict[str, Any]) -> None:
    """Create ``out`` and mark it as synthetic and unfinished, before its first frame is written.

    A phantom of the same settings, finished or not, is overwritten with the same bytes. Raise NerveError if
    ``out`` holds anything else, or cannot be written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.iterdir()) and _settings(out) != settings:
            raise NerveError(f"{out} already holds other files; give the phantom an empty directory.")
        write_text(out / "README.txt", _README)
        _write(out, settings, complete=False)
    except OSError as fault:
        raise NerveError(f"{out} cannot be written ({fault.strerror}); choose another directory.") from fault


def close_marker(out: Path, settings: dict[str, Any]) -> None:
    """Mark the phantom in ``out`` as finished."""
    _write(out, settings, complete=True)


def _write(out: Path, settings: dict[str, Any], complete: bool) -> None:
    write_json(out / MARKER, {"synthetic": True, "complete": complete, "settings": settings})


def _settings(out: Path) -> dict[str, Any] | None:
    return read_json(out / MARKER).get("settings") if is_synthetic(out) else None
