"""Fetch the competition's data: download, check and unpack it, resuming whatever an earlier call finished."""

import errno
import shutil
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from kaggle_nerve import storage
from kaggle_nerve.disk import as_size, explain_disk_errors, require_space
from kaggle_nerve.errors import NerveError
from kaggle_nerve.kaggle_api import download, failures, layout
from kaggle_nerve.kaggle_api.archive import CorruptArchiveError, Member, UnsafeArchiveError, unpack
from kaggle_nerve.kaggle_api.client import REHEARSAL, Client, archive_path
from kaggle_nerve.kaggle_api.failures import KaggleError
from kaggle_nerve.kaggle_api.records import Listing
from kaggle_nerve.locks import hold_lock
from kaggle_nerve.progress import SILENT, Reporter

WORK = ".fetch"
"""Folder under the data directory for unfinished work: the archive, unpacked files, lock and marker."""

SOURCE = "source.json"
"""File in that folder that records where the data came from."""

LOCK = "lock"

FREE = 64 << 20
"""Bytes to keep free for everything else on the disk."""

TRIES = 3
"""Maximum number of downloads of an archive that arrives damaged."""

Verify = Callable[[Path], Iterable[str]]
"""Checks a data directory and returns its problems."""


@dataclass(frozen=True)
class FetchResult:
    """The result of a fetch.

    Attributes:
        data_dir: the data directory.
        source: ``kaggle`` or ``rehearsal``.
        files, bytes: what was unpacked.
        was_complete: whether an earlier fetch had completed.
        damaged: archives that were discarded on the way.
        resumed_at: bytes of the archive that an earlier fetch had left.
        archive: the zip, if it was to be kept.
    """

    data_dir: Path
    source: str
    files: int
    bytes: int
    was_complete: bool = False
    damaged: int = 0
    resumed_at: int = 0
    archive: Path | None = None

    @property
    def sentence(self) -> str:
        """The result in a sentence."""
        source = "from the rehearsal, not from Kaggle" if self.source == REHEARSAL else "from Kaggle"
        summary = f"{self.files} files, {as_size(self.bytes)}, {source}"
        if self.was_complete:
            return f"Everything is in {self.data_dir} already ({summary}); --force fetches it again."
        return f"{self.data_dir} has the competition's data ({summary}), every checksum compared."

    def __str__(self) -> str:
        return self.sentence


def fetch(
    data_dir: Path,
    client: Client,
    *,
    reporter: Reporter = SILENT,
    force: bool = False,
    keep_archive: bool = False,
    verify: Verify | None = None,
) -> FetchResult:
    """Fetch the data into ``data_dir`` in Kaggle's layout, resuming an earlier fetch.

    Args:
        data_dir: becomes ``train/ test/ train_masks.csv sample_submission.csv``.
        client: the Kaggle client.
        reporter: receives progress bars and lines.
        force: download again, even if the data is complete.
        keep_archive: leave the zip in ``data_dir/.fetch``.
        verify: checks the finished directory; the fetch counts as complete only if it returns no problem.

    Raises NerveError with the next step. Intact downloads are kept for the next call.
    """
    work = data_dir / WORK
    with explain_disk_errors(data_dir), _lock(data_dir):
        _require_same_source(data_dir, client)
        facts = storage.read_completion(work)
        if facts is not None and not force and _is_intact(data_dir, facts):
            return FetchResult(data_dir, client.where, facts["files"], facts["bytes"], was_complete=True)
        client.credential()  # fails early if there is none
        if force:
            download.discard(work, client)
        resumed_at = download.resumable_bytes(work, client)
        members, damaged = _download_and_unpack(data_dir, client, reporter)
        _move(download.unpacked_folder(work), data_dir)
        _require_valid(data_dir, verify)
        facts = _mark(work, members)
        shutil.rmtree(download.nested_folder(work), ignore_errors=True)
        archive = archive_path(work, client.slug)
        if not keep_archive:
            archive.unlink(missing_ok=True)
        return FetchResult(
            data_dir,
            client.where,
            facts["files"],
            facts["bytes"],
            damaged=damaged,
            resumed_at=resumed_at,
            archive=archive if keep_archive else None,
        )


def _download_and_unpack(data_dir: Path, client: Client, reporter: Reporter) -> tuple[list[Member], int]:
    """Download and unpack until every checksum is right; also return the number of damaged archives."""
    work = data_dir / WORK
    listing = _list_files(client, reporter)
    needed = _bytes_needed(data_dir, listing)
    advice = ", or choose another folder with --data"
    require_space(data_dir, needed, "the archive and what is in it", advice, FREE)
    faults: list[NerveError] = []
    while len(faults) < TRIES:
        try:
            archive = download.download(work, client, listing, reporter, force=bool(faults))
            members = unpack(
                archive,
                download.unpacked_folder(work),
                nested_folder=download.nested_folder(work),
                existing=data_dir,
                listing=listing,
                reporter=reporter,
            )
            return members, len(faults)
        except (CorruptArchiveError, UnsafeArchiveError, KaggleError) as fault:
            if isinstance(fault, KaggleError) and fault.kind != failures.CORRUPT:
                raise
            download.discard(work, client)
            faults.append(fault)
            reporter.say(f"{fault} The archive was discarded.")
        # The same error twice is no transfer error: another download would fail in the same way.
        if len(faults) > 1 and str(faults[-1]) == str(faults[-2]):
            break
    if isinstance(faults[-1], UnsafeArchiveError):
        raise faults[-1]
    raise NerveError(
        f"The archive from Kaggle arrived damaged {len(faults)} times and was discarded ({faults[-1]}): run the "
        "same command again later, or on another network."
    ) from faults[-1]


def _list_files(client: Client, reporter: Reporter) -> Listing:
    with reporter.bar("Listing", None, "file") as bar:
        shown = 0

        def on_page(count: int) -> None:
            nonlocal shown
            bar.update(count - shown)
            shown = count

        return client.list_files(on_page)


def _bytes_needed(data_dir: Path, listing: Listing) -> int:
    """Return the bytes still to be written: archive and contents, less what is on disk."""
    work = data_dir / WORK
    on_disk = sum(path.stat().st_size for path in work.rglob("*") if path.is_file())
    for file in listing.files:
        path = layout.target(file.name)
        if path and (data_dir / path).is_file():
            on_disk += file.size
    return 2 * listing.bytes - on_disk


def _require_valid(data_dir: Path, verify: Verify | None) -> None:
    if verify is not None and (faults := list(verify(data_dir))):
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise NerveError(f"{data_dir} arrived complete but failed the check: {faults[0]}{more}")


def _mark(work: Path, members: list[Member]) -> dict[str, Any]:
    facts = {
        "files": len(members),
        "bytes": sum(member.info.file_size for member in members),
        "names": [str(member.target) for member in members],
    }
    storage.mark_complete(work, facts)
    return facts


def data_source(data_dir: Path) -> str | None:
    """Return the source of ``data_dir``, ``kaggle`` or ``rehearsal``, or None if it is not recorded."""
    note = data_dir / WORK / SOURCE
    return storage.read_json(note).get("source") if note.is_file() else None


def _require_same_source(data_dir: Path, client: Client) -> None:
    """Refuse to mix data from the rehearsal and from Kaggle in one folder."""
    note = data_dir / WORK / SOURCE
    recorded = data_source(data_dir)
    source = recorded if recorded and _holds_data(data_dir) else client.where
    if source != client.where:
        raise NerveError(
            f"{data_dir} holds data from the {source}, which must not mix with those from the {client.where}: "
            "choose another folder with --data, or delete this one."
        )
    if recorded != source:
        storage.write_json(note, {"source": client.where, "slug": client.slug})


def _holds_data(data_dir: Path) -> bool:
    """Tell whether anything was downloaded, or put there by the user; a fetch that failed at once leaves only notes."""
    notes = {WORK, SOURCE, LOCK}
    return bool((_entries(data_dir) | _entries(data_dir / WORK)) - notes)


def _entries(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def _is_intact(data_dir: Path, facts: dict[str, Any]) -> bool:
    """Tell whether all fetched files still exist, by their names: the folders may hold other files, too."""
    if "names" not in facts:  # recorded by a version that counted files
        counts = {folder: facts["counts"].get(folder, 0) for folder in layout.FOLDERS}
        return all((data_dir / table).is_file() for table in layout.TABLES) and all(
            _count_frames(data_dir / folder) >= count for folder, count in counts.items()
        )
    names = [PurePosixPath(name) for name in facts["names"]]
    present = {folder: _file_names(data_dir / folder) for folder in {name.parent for name in names}}
    return all(name.name in present[name.parent] for name in names)


def _count_frames(folder: Path) -> int:
    return sum(layout.is_frame(name) for name in _file_names(folder))


def _file_names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.is_file()} if folder.is_dir() else set()


def _lock(data_dir: Path) -> AbstractContextManager[None]:
    """Lock the directory against a second fetch; a killed process does not hold the lock."""
    message = (
        f"Another fetch works on {data_dir} at this moment: wait until it has ended, or choose another "
        "folder with --data."
    )
    return hold_lock(data_dir / WORK / LOCK, message)


def _move(source: Path, destination: Path) -> None:
    """Move everything under ``source`` to ``destination``, merging folders of the same name."""
    for entry in sorted(source.iterdir()) if source.is_dir() else []:
        target = destination / entry.name
        if entry.is_dir() and target.is_dir():
            _move(entry, target)
        elif entry.is_dir():
            shutil.move(entry, target)
        else:
            _replace(entry, target)
    if source.is_dir():
        source.rmdir()


def _replace(source: Path, target: Path) -> None:
    """Move a file in one step, even if ``target`` is on another disk, as behind a linked folder."""
    try:
        source.replace(target)
    except OSError as fault:
        if fault.errno != errno.EXDEV:
            raise
        with storage.atomic_path(target) as path:
            shutil.copyfile(source, path)
        source.unlink()
