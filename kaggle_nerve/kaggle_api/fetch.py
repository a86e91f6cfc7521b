"""The competition's data on this disk: downloaded, checked, unpacked, and never done twice."""

import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kaggle_nerve import storage
from kaggle_nerve.errors import NerveError
from kaggle_nerve.kaggle_api import download, failures, layout
from kaggle_nerve.kaggle_api.archive import CorruptArchiveError, Member, UnsafeArchiveError, unpack
from kaggle_nerve.kaggle_api.client import REHEARSAL, Client, archive_path
from kaggle_nerve.kaggle_api.disk import as_size, full_disk_told, require_space
from kaggle_nerve.kaggle_api.failures import KaggleError
from kaggle_nerve.kaggle_api.records import Listing
from kaggle_nerve.progress import SILENT, Reporter

WORK = ".fetch"
"""The folder under the data directory for what is unfinished: the archive, unpacked files, lock and marker."""

SOURCE = "source.json"
"""In that folder: whom the data are from."""

TRIES = 3
"""Downloads at most, of an archive that arrives damaged."""

Verify = Callable[[Path], Iterable[str]]
"""Looks at a data directory and names what is wrong with it."""


@dataclass(frozen=True)
class Fetched:
    """What is there now.

    Attributes:
        data_dir: where.
        source: ``kaggle`` or ``rehearsal``.
        files, bytes: what was unpacked.
        already: whether a former run had done it all.
        damaged: archives that were discarded on the way.
        resumed_at: bytes that a former run had left of the archive.
        archive: the zip, if it was to be kept.
    """

    data_dir: Path
    source: str
    files: int
    bytes: int
    already: bool = False
    damaged: int = 0
    resumed_at: int = 0
    archive: Path | None = None

    @property
    def sentence(self) -> str:
        """The same for people."""
        source = "from the rehearsal, not from Kaggle" if self.source == REHEARSAL else "from Kaggle"
        what = f"{self.files} files, {as_size(self.bytes)}, {source}"
        if self.already:
            return f"Everything is in {self.data_dir} already ({what}); --force fetches it again."
        return f"{self.data_dir} has the competition's data ({what}), every checksum compared."

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
) -> Fetched:
    """Bring the data to ``data_dir`` in Kaggle's layout; go on where an earlier run ended.

    Args:
        data_dir: becomes ``train/ test/ train_masks.csv sample_submission.csv``.
        client: whom to ask.
        reporter: gets bars and lines.
        force: download again, even if all is there.
        keep_archive: leave the zip in ``data_dir/.fetch``.
        verify: looks at the finished directory; the data count as fetched only if it names nothing.

    Raises NerveError that says what to do. Whatever was fetched is then kept for the next run.
    """
    work = data_dir / WORK
    with full_disk_told(data_dir), _only_one(data_dir):
        _require_same_source(data_dir, client)
        facts = storage.completed(work)
        if facts is not None and not force and _is_still_there(data_dir, facts):
            return Fetched(data_dir, client.where, facts["files"], facts["bytes"], already=True)
        client.credential()  # says so at once if there is none
        if force:
            download.discard(work, client)
        resumed_at = download.resumable(work, client)
        members, damaged = _unpacked(data_dir, client, reporter)
        _move(download.unpacked_folder(work), data_dir)
        _require_right(data_dir, verify)
        facts = _mark(work, members)
        shutil.rmtree(download.inner_folder(work), ignore_errors=True)
        archive = archive_path(work, client.slug)
        if not keep_archive:
            archive.unlink(missing_ok=True)
        return Fetched(
            data_dir,
            client.where,
            facts["files"],
            facts["bytes"],
            damaged=damaged,
            resumed_at=resumed_at,
            archive=archive if keep_archive else None,
        )


def _unpacked(data_dir: Path, client: Client, reporter: Reporter) -> tuple[list[Member], int]:
    """Download and unpack until every checksum is right; also, how many archives were not."""
    work = data_dir / WORK
    listing = _list(client, reporter)
    require_space(data_dir, _needed(data_dir, listing))
    faults: list[NerveError] = []
    while len(faults) < TRIES:
        try:
            archive = download.download(work, client, listing, reporter, force=bool(faults))
            members = unpack(
                archive,
                download.unpacked_folder(work),
                inner=download.inner_folder(work),
                have=data_dir,
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
        # Twice the same is no accident on the way: another download would end the same.
        if len(faults) > 1 and str(faults[-1]) == str(faults[-2]):
            break
    if isinstance(faults[-1], UnsafeArchiveError):
        raise faults[-1]
    raise NerveError(
        f"The archive from Kaggle arrived damaged {len(faults)} times and was discarded ({faults[-1]}): run the "
        "same command again later, or on another network."
    ) from faults[-1]


def _list(client: Client, reporter: Reporter) -> Listing:
    with reporter.bar("Listing", None, "file") as bar:
        shown = 0

        def on_page(count: int) -> None:
            nonlocal shown
            bar.update(count - shown)
            shown = count

        return client.list_files(on_page)


def _needed(data_dir: Path, listing: Listing) -> int:
    """Bytes still to be written: the archive and its contents, less what is there."""
    work = data_dir / WORK
    there = sum(path.stat().st_size for path in work.rglob("*") if path.is_file())
    for file in listing.files:
        place = layout.target(file.name)
        if place and (data_dir / place).is_file():
            there += file.size
    return 2 * listing.bytes - there


def _require_right(data_dir: Path, verify: Verify | None) -> None:
    if verify is not None and (faults := list(verify(data_dir))):
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise NerveError(f"{data_dir} arrived whole, but is not right: {faults[0]}{more}")


def _mark(work: Path, members: list[Member]) -> dict[str, Any]:
    facts = {
        "files": len(members),
        "bytes": sum(member.info.file_size for member in members),
        "counts": Counter(str(member.target.parent) for member in members),
    }
    storage.mark_complete(work, facts)
    return facts


def fetched_from(data_dir: Path) -> str | None:
    """Where ``data_dir`` came from, ``kaggle`` or ``rehearsal``; None where nobody knows."""
    note = data_dir / WORK / SOURCE
    return storage.read_json(note)["source"] if note.is_file() else None


def _require_same_source(data_dir: Path, client: Client) -> None:
    """The rehearsal's data are made up: not even half of them must be taken for Kaggle's, or the other way."""
    note = data_dir / WORK / SOURCE
    before = fetched_from(data_dir) or client.where
    if before != client.where:
        raise NerveError(
            f"{data_dir} holds data from the {before}, which must not mix with those from the {client.where}: "
            "choose another folder with --data, or delete this one."
        )
    if not note.is_file():
        storage.write_json(note, {"source": client.where, "slug": client.slug})


def _is_still_there(data_dir: Path, facts: dict[str, Any]) -> bool:
    """Whether nobody has removed what was fetched."""
    for folder, count in facts["counts"].items():
        place = data_dir / folder
        if not place.is_dir() or sum(path.is_file() for path in place.iterdir()) < count:
            return False
    return True


def _only_one(data_dir: Path) -> AbstractContextManager[None]:
    """Keep a second fetch out of the same directory; a killed one does not stay in the way."""
    told = (
        f"Another fetch works on {data_dir} at this moment: wait until it has ended, or choose another "
        "folder with --data."
    )
    return storage.locked(data_dir / WORK / "lock", told)


def _move(source: Path, destination: Path) -> None:
    """Move everything under ``source`` to ``destination``: whole folders where there is none of the name."""
    for entry in sorted(source.iterdir()) if source.is_dir() else []:
        place = destination / entry.name
        if entry.is_dir() and place.is_dir():
            _move(entry, place)
        elif entry.is_dir():
            shutil.move(entry, place)
        else:
            entry.replace(place)
    if source.is_dir():
        source.rmdir()
