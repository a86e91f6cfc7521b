"""Unpack an untrusted archive: check every byte, and write nothing outside the target folder."""

import errno
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kaggle_nerve.disk import explain_disk_errors
from kaggle_nerve.errors import NerveError
from kaggle_nerve.kaggle_api import layout
from kaggle_nerve.kaggle_api.records import Listing
from kaggle_nerve.progress import SILENT, Reporter

PIECE = 1 << 20
UNREADABLE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, ValueError)
"""Exceptions that zipfile raises for damaged archives, depending on which byte is hit."""


class CorruptArchiveError(NerveError):
    """The archive is damaged or incomplete. Downloading again may help."""


class UnsafeArchiveError(NerveError):
    """The archive looks malicious (path traversal, zip bomb). No file was written to the staging folder."""


@dataclass(frozen=True)
class Bounds:
    """Limits on an archive's contents. The real one has 17,000 files and about 2.2 GB.

    ``max_ratio`` limits unpacked bytes over packed bytes. It does not apply up to ``ratio_free_bytes`` unpacked
    bytes, because empty masks really do compress a thousandfold.
    """

    members: int = 200_000
    bytes: int = 16 << 30
    max_ratio: float = 100
    ratio_free_bytes: int = 1 << 30


@dataclass(frozen=True)
class Member:
    """A file in the archive, or in a nested archive, and its target path under the data directory."""

    archive: Path
    info: zipfile.ZipInfo
    target: PurePosixPath


def unpack(
    archive: Path,
    staging: Path,
    *,
    nested_folder: Path,
    existing: Path | None = None,
    listing: Listing | None = None,
    bounds: Bounds = Bounds(),
    reporter: Reporter = SILENT,
) -> list[Member]:
    """Unpack ``archive`` into ``staging`` in the competition's layout, and check every member.

    Sizes and checksums are compared with the archive's own records, names and sizes with ``listing``. An
    interrupted unpacking resumes.

    Args:
        archive: the zip.
        staging: receives the files; those that are there and correct are kept, all others removed.
        nested_folder: receives nested archives, for the caller to remove.
        existing: folder whose correct files need not be unpacked again.
        listing: the files that Kaggle lists.
        bounds: limits on the archive's contents.
        reporter: receives a progress bar.

    Raises CorruptArchiveError, UnsafeArchiveError, or NerveError for a disk error.
    """
    with explain_disk_errors(staging):
        members = _plan(archive, nested_folder, bounds)
        _check_against_listing(members, listing or Listing(), archive)
        _prune(staging, members)
        folders = [staging, *([existing] if existing else [])]
        with reporter.bar("Unpacking", sum(member.info.file_size for member in members), "byte") as bar:
            for source, group in _group_by_archive(members):
                with _open(source) as zip_file:
                    for member in group:
                        if not any(_is_extracted(folder / member.target, member.info) for folder in folders):
                            _extract(zip_file, member.info, staging / member.target)
                        bar.update(member.info.file_size)
    return members


def _plan(archive: Path, nested_folder: Path, bounds: Bounds) -> list[Member]:
    """Return every file and its target. Nested archives are unpacked to ``nested_folder`` first."""
    with _open(archive) as zip_file:
        infos = _checked_infos(zip_file, archive, bounds, bounds.bytes)
        containers = [info for info in infos if layout.is_container(info.filename)]
        members = _members(archive, [info for info in infos if info not in containers])
        room = bounds.bytes - sum(info.file_size for info in infos)
        for number, info in enumerate(containers):
            name = PurePosixPath(info.filename).name
            path = nested_folder / f"{number}-{name}"
            if not _is_extracted(path, info):
                _extract(zip_file, info, path)
            with _open(path) as nested_zip:
                nested_infos = _checked_infos(nested_zip, path, bounds, room)
            room -= sum(item.file_size for item in nested_infos)
            members += _members(path, nested_infos, name)
    return _without_duplicates(members, archive)


def _members(archive: Path, infos: Iterable[zipfile.ZipInfo], container: str = "") -> list[Member]:
    targets = ((info, layout.target(info.filename, container)) for info in infos)
    return [Member(archive, info, target) for info, target in targets if target]


def _checked_infos(zip_file: zipfile.ZipFile, path: Path, bounds: Bounds, room: int) -> list[zipfile.ZipInfo]:
    """Return the archive's files after checking names, types, counts and claimed sizes."""
    infos = [info for info in zip_file.infolist() if not info.is_dir()]
    if len(infos) > bounds.members:
        raise UnsafeArchiveError(_unsafe(path, f"holds {len(infos)} files"))
    names = set()
    for info in infos:
        if objection := _objection(info):
            raise UnsafeArchiveError(_unsafe(path, f"holds {info.filename!r}, {objection}"))
        if info.filename in names:
            raise UnsafeArchiveError(_unsafe(path, f"holds {info.filename!r} twice"))
        names.add(info.filename)
    total = sum(info.file_size for info in infos)
    if total > room or (total > bounds.ratio_free_bytes and total > bounds.max_ratio * path.stat().st_size):
        raise UnsafeArchiveError(_unsafe(path, f"would fill {total / 1e9:.1f} GB"))
    return infos


def _objection(info: zipfile.ZipInfo) -> str:
    name = info.filename
    if name.startswith("/") or "\\" in name or ":" in name.split("/")[0] or "\0" in info.orig_filename:
        return "which is no plain name"
    if ".." in name.split("/"):
        return "which leads out of its folder"
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
        return "which is a link or a device"
    if info.flag_bits & 1:
        return "which is encrypted"
    return ""


def _unsafe(path: Path, what: str) -> str:
    return (
        f"{path} {what}, so nothing was unpacked: Kaggle ships no such archive; look at what stands between this "
        "machine and Kaggle, such as a proxy, and run `kaggle-nerve fetch` again."
    )


def _without_duplicates(members: list[Member], archive: Path) -> list[Member]:
    """Merge members with the same target if their bytes agree; raise UnsafeArchiveError if they differ."""
    kept: dict[PurePosixPath, Member] = {}
    for member in members:
        other = kept.setdefault(member.target, member)
        if (other.info.CRC, other.info.file_size) != (member.info.CRC, member.info.file_size):
            raise UnsafeArchiveError(_unsafe(archive, f"holds two different files for {member.target}"))
    return list(kept.values())


def _check_against_listing(members: Iterable[Member], listing: Listing, archive: Path) -> None:
    """Raise CorruptArchiveError if a listed file is missing or has another size.

    The archive may hold files that are not listed, and may hold the contents of a listed zip instead of the
    zip.
    """
    sizes = {member.target: member.info.file_size for member in members}
    for file in listing.files:
        path = None if layout.is_container(file.name) else layout.target(file.name)
        if path is None:
            continue
        if path not in sizes:
            raise CorruptArchiveError(f"{archive} lacks {file.name}, which Kaggle lists.")
        if file.size and sizes[path] != file.size:
            raise CorruptArchiveError(
                f"{archive} has {file.name} with {sizes[path]} bytes, and Kaggle lists {file.size}."
            )


def _prune(staging: Path, members: Iterable[Member]) -> None:
    """Remove files that an earlier, different archive left behind."""
    targets = {staging / member.target for member in members}
    for path in staging.rglob("*"):
        if not path.is_dir() and path not in targets:
            path.unlink()


def _group_by_archive(members: Iterable[Member]) -> Iterable[tuple[Path, list[Member]]]:
    groups: dict[Path, list[Member]] = {}
    for member in members:
        groups.setdefault(member.archive, []).append(member)
    return groups.items()


def _open(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except UNREADABLE as fault:
        raise CorruptArchiveError(f"{path} is not a whole zip archive ({fault}).") from fault


def _extract(zip_file: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> None:
    """Write one member; zipfile verifies its checksum at the end. A failed extraction leaves no file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with zip_file.open(info) as source, path.open("wb") as file:
            written = 0
            while piece := source.read(PIECE):
                written += file.write(piece)
        if written != info.file_size:
            raise zipfile.BadZipFile(f"{written} bytes in place of {info.file_size}")
    except (*UNREADABLE, OSError) as fault:
        path.unlink(missing_ok=True)
        # Damaged offsets and some decompressors raise an OSError too, without a disk error's number.
        if isinstance(fault, OSError) and fault.errno not in (None, errno.EINVAL):
            raise
        raise CorruptArchiveError(f"{zip_file.filename}: {info.filename} is damaged ({fault}).") from fault


def _is_extracted(path: Path, info: zipfile.ZipInfo) -> bool:
    if not path.is_file() or path.stat().st_size != info.file_size:
        return False
    checksum = 0
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            checksum = zlib.crc32(piece, checksum)
    return checksum == info.CRC
