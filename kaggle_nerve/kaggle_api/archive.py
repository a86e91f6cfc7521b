"""Unpacking an archive that nobody vouches for: every byte is checked, and none lands where it should not."""

import errno
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kaggle_nerve.errors import NerveError
from kaggle_nerve.kaggle_api import layout
from kaggle_nerve.kaggle_api.disk import full_disk_told
from kaggle_nerve.kaggle_api.records import Listing
from kaggle_nerve.progress import SILENT, Reporter

PIECE = 1 << 20
UNREADABLE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, ValueError)
"""What zipfile raises for damaged archives, depending on which byte is hit."""


class CorruptArchiveError(NerveError):
    """The archive is damaged or not whole: getting it again may help."""


class UnsafeArchiveError(NerveError):
    """The archive is made to do harm, or as if: getting it again would not help, and nothing is unpacked."""


@dataclass(frozen=True)
class Bounds:
    """What an archive may contain at most. The real one has 17,000 files and about 2.2 GB.

    ``ratio`` is unpacked bytes over packed ones; it counts from ``harmless`` unpacked bytes on, since empty
    masks do pack a thousandfold.
    """

    members: int = 200_000
    bytes: int = 16 << 30
    ratio: float = 100
    harmless: int = 1 << 30


@dataclass(frozen=True)
class Member:
    """A file in the archive, or in an archive inside, and its place under the data directory."""

    archive: Path
    info: zipfile.ZipInfo
    target: PurePosixPath


def unpack(
    archive: Path,
    staging: Path,
    *,
    inner: Path,
    have: Path | None = None,
    listing: Listing | None = None,
    bounds: Bounds = Bounds(),
    reporter: Reporter = SILENT,
) -> list[Member]:
    """Unpack all of ``archive`` into ``staging``, in the competition's layout, and check every member.

    Sizes and checksums are compared with the archive's own, names and sizes with ``listing``. A file that is
    right already, in ``staging`` or in ``have``, is left as it is: after a kill this goes on where it ended.
    Archives inside the archive go to ``inner``, for the caller to remove.
    Raises CorruptArchiveError, UnsafeArchiveError, or NerveError for a full disk.
    """
    with full_disk_told(staging):
        members = _plan(archive, inner, bounds)
        _compare(members, listing or Listing(), archive)
        _prune(staging, members)
        folders = [staging, *([have] if have else [])]
        with reporter.bar("Unpacking", sum(member.info.file_size for member in members), "byte") as bar:
            for source, part in _by_archive(members):
                with _opened(source) as opened:
                    for member in part:
                        if not any(_is_there(folder / member.target, member.info) for folder in folders):
                            _extract(opened, member.info, staging / member.target)
                        bar.update(member.info.file_size)
    return members


def _plan(archive: Path, inner: Path, bounds: Bounds) -> list[Member]:
    """Every file and its place. Archives inside are first unpacked to ``inner``, where they are opened."""
    with _opened(archive) as opened:
        infos = _checked(opened, archive, bounds, bounds.bytes)
        containers = [info for info in infos if layout.is_container(info.filename)]
        members = _placed(archive, [info for info in infos if info not in containers])
        room = bounds.bytes - sum(info.file_size for info in infos)
        for number, info in enumerate(containers):
            name = PurePosixPath(info.filename).name
            path = inner / f"{number}-{name}"
            if not _is_there(path, info):
                _extract(opened, info, path)
            with _opened(path) as nested:
                found = _checked(nested, path, bounds, room)
            room -= sum(item.file_size for item in found)
            members += _placed(path, found, name)
    return _without_doubles(members, archive)


def _placed(archive: Path, infos: Iterable[zipfile.ZipInfo], within: str = "") -> list[Member]:
    placed = ((info, layout.target(info.filename, within)) for info in infos)
    return [Member(archive, info, target) for info, target in placed if target]


def _checked(opened: zipfile.ZipFile, path: Path, bounds: Bounds, room: int) -> list[zipfile.ZipInfo]:
    """The archive's files, after a look at what they claim to be."""
    infos = [info for info in opened.infolist() if not info.is_dir()]
    if len(infos) > bounds.members:
        raise UnsafeArchiveError(_unsafe(path, f"holds {len(infos)} files"))
    names = set()
    for info in infos:
        if fault := _fault_of(info):
            raise UnsafeArchiveError(_unsafe(path, f"holds {info.filename!r}, {fault}"))
        if info.filename in names:
            raise UnsafeArchiveError(_unsafe(path, f"holds {info.filename!r} twice"))
        names.add(info.filename)
    total = sum(info.file_size for info in infos)
    if total > room or (total > bounds.harmless and total > bounds.ratio * path.stat().st_size):
        raise UnsafeArchiveError(_unsafe(path, f"would fill {total / 1e9:.1f} GB"))
    return infos


def _fault_of(info: zipfile.ZipInfo) -> str:
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


def _without_doubles(members: list[Member], archive: Path) -> list[Member]:
    """Two members for one place are one if they are the same bytes, else nobody knows which is right."""
    kept: dict[PurePosixPath, Member] = {}
    for member in members:
        other = kept.setdefault(member.target, member)
        if (other.info.CRC, other.info.file_size) != (member.info.CRC, member.info.file_size):
            raise UnsafeArchiveError(_unsafe(archive, f"holds two different files for {member.target}"))
    return list(kept.values())


def _compare(members: Iterable[Member], listing: Listing, archive: Path) -> None:
    """Raise CorruptArchiveError if a listed file is missing or has another size.

    The list may lack files, and what is an archive there may be its contents here.
    """
    sizes = {member.target: member.info.file_size for member in members}
    for file in listing.files:
        place = None if layout.is_container(file.name) else layout.target(file.name)
        if place is None:
            continue
        if place not in sizes:
            raise CorruptArchiveError(f"{archive} lacks {file.name}, which Kaggle lists.")
        if file.size and sizes[place] != file.size:
            raise CorruptArchiveError(
                f"{archive} has {file.name} with {sizes[place]} bytes, and Kaggle lists {file.size}."
            )


def _prune(staging: Path, members: Iterable[Member]) -> None:
    """Remove what an earlier, different archive left."""
    wanted = {staging / member.target for member in members}
    for path in staging.rglob("*"):
        if not path.is_dir() and path not in wanted:
            path.unlink()


def _by_archive(members: Iterable[Member]) -> Iterable[tuple[Path, list[Member]]]:
    parts: dict[Path, list[Member]] = {}
    for member in members:
        parts.setdefault(member.archive, []).append(member)
    return parts.items()


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except UNREADABLE as fault:
        raise CorruptArchiveError(f"{path} is not a whole zip archive ({fault}).") from fault


def _extract(opened: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> None:
    """Write one member; zipfile compares its checksum at the end. What fails leaves no file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with opened.open(info) as source, path.open("wb") as file:
            written = 0
            while piece := source.read(PIECE):
                written += file.write(piece)
        if written != info.file_size:
            raise zipfile.BadZipFile(f"{written} bytes in place of {info.file_size}")
    except (*UNREADABLE, OSError) as fault:
        path.unlink(missing_ok=True)
        # Damaged offsets and some decompressors end in an OSError that no disk is to blame for.
        if isinstance(fault, OSError) and fault.errno not in (None, errno.EINVAL):
            raise
        raise CorruptArchiveError(f"{opened.filename}: {info.filename} is damaged ({fault}).") from fault


def _is_there(path: Path, info: zipfile.ZipInfo) -> bool:
    if not path.is_file() or path.stat().st_size != info.file_size:
        return False
    found = 0
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            found = zlib.crc32(piece, found)
    return found == info.CRC
