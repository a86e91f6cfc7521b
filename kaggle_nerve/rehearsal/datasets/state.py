"""What the rehearsal remembers of datasets: files on their way, versions, and what a notebook would see of them."""

import secrets
import threading
import zipfile
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from kaggle_nerve import storage

RECEIVED, READY, FAILED = "BLOBS_RECEIVED", "READY", "FAILED"


@dataclass(frozen=True)
class Version:
    """A version of a dataset. ``files`` are names of what was uploaded.

    It shows as BLOBS_RECEIVED for ``looks_left`` looks, then as READY, or as FAILED if it ``fails``.
    """

    number: int
    notes: str
    files: tuple[str, ...]
    looks_left: int
    fails: bool = False

    @property
    def status(self) -> str:
        """BLOBS_RECEIVED, READY or FAILED."""
        if self.looks_left:
            return RECEIVED
        return FAILED if self.fails else READY


@dataclass(frozen=True)
class Dataset:
    """A dataset. ``ref`` is ``user/slug``; ``versions`` rise.

    ``folder``: the files of its newest version as a notebook sees them, with archives unpacked.
    """

    ref: str
    title: str
    license: str
    is_private: bool
    versions: tuple[Version, ...]
    folder: Path

    @property
    def latest(self) -> Version:
        """The newest version."""
        return self.versions[-1]


@dataclass
class Blob:
    """A file that was announced. ``path`` grows while it comes."""

    name: str
    length: int
    path: Path

    @property
    def size(self) -> int:
        """Bytes that came so far."""
        return self.path.stat().st_size if self.path.is_file() else 0

    @property
    def whole(self) -> bool:
        """Whether all of it came."""
        return self.path.is_file() and self.size == self.length

    def take(self, pieces: Iterable[bytes], start: int) -> None:
        """Write ``pieces`` from offset ``start`` on; what came before the sender left is kept."""
        with self.path.open("r+b" if self.path.is_file() else "wb") as file:
            file.truncate(start)
            file.seek(start)
            for piece in pieces:
                file.write(piece)


class Datasets:
    """The account's datasets in a folder; another Datasets on the same folder remembers them.

    ``patience``: looks at a new version before it is ready.
    """

    def __init__(self, folder: Path, patience: int = 1) -> None:
        self._folder, self._patience = folder, patience
        self._lock = threading.Lock()
        self._blobs: dict[str, Blob] = {}
        self._made = self._load()

    @property
    def made(self) -> list[Dataset]:
        """All of them, in the order in which they were created."""
        with self._lock:
            return list(self._made.values())

    def find(self, ref: str) -> Dataset | None:
        """The dataset ``user/slug``, or None."""
        with self._lock:
            return self._made.get(ref)

    def announce(self, name: str, length: int) -> str:
        """A file is going to come; returns the token by which it goes."""
        token = secrets.token_urlsafe(24)
        path = self._folder / "blobs" / token
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock:
            self._blobs[token] = Blob(name, length, path)
        return token

    def blob(self, token: str) -> Blob | None:
        """The file announced under ``token``, or None."""
        with self._lock:
            return self._blobs.get(token)

    def create(self, ref: str, title: str, license: str, is_private: bool) -> None:
        """Make room for a dataset; it is there once it has a version."""
        with self._lock:
            self._made[ref] = Dataset(ref, title, license, is_private, (), self._place(ref, 1))

    def add_version(self, ref: str, notes: str, tokens: list[str], fails: bool = False) -> Dataset:
        """Make a version of the files that came under ``tokens``: each good once, and each whole."""
        with self._lock:
            dataset = self._made[ref]
            blobs = [self._blobs.pop(token) for token in tokens]
            number = len(dataset.versions) + 1
            place = self._place(ref, number)
            for blob in blobs:
                _unpack(blob, place)
            version = Version(number, notes, tuple(blob.name for blob in blobs), self._patience, fails)
            self._made[ref] = replace(dataset, versions=(*dataset.versions, version), folder=place)
            self._save()
            return self._made[ref]

    def look(self, ref: str) -> Dataset:
        """The dataset as this look sees it; its newest version has a look fewer left."""
        with self._lock:
            seen = self._made[ref]
            if seen.latest.looks_left:
                latest = replace(seen.latest, looks_left=seen.latest.looks_left - 1)
                self._made[ref] = replace(seen, versions=(*seen.versions[:-1], latest))
                self._save()
        return seen

    def _place(self, ref: str, number: int) -> Path:
        return self._folder / "datasets" / ref / str(number)

    def _load(self) -> dict[str, Dataset]:
        path = self._folder / "datasets.json"
        stored = storage.read_json(path) if path.is_file() else []
        made = {}
        for item in stored:
            versions = tuple(
                Version(**{**version, "files": tuple(version["files"])}) for version in item.pop("versions")
            )
            made[item["ref"]] = Dataset(
                **item, versions=versions, folder=self._place(item["ref"], len(versions))
            )
        return made

    def _save(self) -> None:
        rows = [asdict(dataset) for dataset in self._made.values() if dataset.versions]
        for row in rows:
            del row["folder"]
        storage.write_json(self._folder / "datasets.json", rows)


def _unpack(blob: Blob, place: Path) -> None:
    """Move a file to its place; a zip becomes a folder of its name, as on Kaggle. Archives inside stay as they are."""
    place.mkdir(parents=True, exist_ok=True)
    if not blob.name.endswith(".zip") or not zipfile.is_zipfile(blob.path):
        blob.path.replace(place / blob.name)
        return
    with zipfile.ZipFile(blob.path) as archive:
        archive.extractall(place / blob.name.removesuffix(".zip"))
    blob.path.unlink()
