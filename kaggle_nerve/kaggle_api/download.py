"""Download the archive with progress, across broken connections. The caller checks its integrity."""

import shutil
from pathlib import Path

from kaggle_nerve.disk import as_size
from kaggle_nerve.kaggle_api import failures
from kaggle_nerve.kaggle_api.client import (
    Client,
    archive_path,
    bytes_on_disk,
    expected_size,
    partial_path,
)
from kaggle_nerve.kaggle_api.failures import KaggleError
from kaggle_nerve.kaggle_api.records import Listing
from kaggle_nerve.progress import Reporter

MAX_REFUSED_LINKS = 2
"""Refused download addresses that are tolerated, since they may only have expired."""


def download(work: Path, client: Client, listing: Listing, reporter: Reporter, force: bool = False) -> Path:
    """Download the archive into ``work``. After a broken connection, retry as long as each attempt makes
    progress.

    ``force`` starts from scratch. Raises KaggleError.
    """
    archive = archive_path(work, client.slug)
    refused = 0
    while True:
        before = bytes_on_disk(archive)
        total = expected_size(archive) or (listing.bytes if listing.whole else 0) or None
        try:
            with _Progress(reporter, total) as progress:
                return client.download_all(work, force=force, on_progress=progress)
        except KaggleError as fault:
            refused += fault.kind == failures.LINK
            if fault.kind == failures.LINK and refused <= MAX_REFUSED_LINKS:
                reporter.say("The download address was refused; asking for a new one.")
            elif fault.kind in (failures.NETWORK, failures.TIMEOUT) and bytes_on_disk(archive) > before:
                reporter.say(
                    f"The connection broke at {as_size(bytes_on_disk(archive))}; going on from there."
                )
            else:
                raise
            force = False


def discard(work: Path, client: Client) -> None:
    """Delete the archive, the client's resume file, with which it would go on from damaged bytes, and the nested
    archives."""
    archive = archive_path(work, client.slug)
    archive.unlink(missing_ok=True)
    partial_path(archive).unlink(missing_ok=True)
    shutil.rmtree(nested_folder(work), ignore_errors=True)


def resumable_bytes(work: Path, client: Client) -> int:
    """Return the bytes of an unfinished archive from which the client can resume."""
    archive = archive_path(work, client.slug)
    return bytes_on_disk(archive) if partial_path(archive).is_file() else 0


def unpacked_folder(work: Path) -> Path:
    """Return the folder where unpacked files wait until all are verified."""
    return work / "unpacked"


def nested_folder(work: Path) -> Path:
    """Return the folder for nested archives."""
    return work / "inner"


class _Progress:
    """Progress bar in bytes, fed with sizes. Its total may come from the listing, which differs slightly from
    the archive's size."""

    def __init__(self, reporter: Reporter, total: int | None) -> None:
        self._bar = reporter.bar("Downloading", total, "byte")
        self._total, self._shown = total, 0

    def __call__(self, done: int, total: int | None) -> None:
        """Advance to ``done`` bytes, of ``total`` if the client knows it."""
        if self._total is not None:
            done = self._total if done == total else min(done, self._total)
        if done > self._shown:
            self._bar.update(done - self._shown)
            self._shown = done

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
