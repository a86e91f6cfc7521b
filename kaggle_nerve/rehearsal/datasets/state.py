"""State of the rehearsed datasets: announced files, versions, and their files as a notebook would see them."""

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
    """A version of a dataset. ``files`` are the names of the uploaded files.

    It shows as BLOBS_RECEIVED for ``looks_left`` polls, then as READY, or as FAILED if it ``fails``.
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
    """A dataset. ``ref`` is ``user/slug``; ``versions`` are in ascending order.

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
    """An announced file. ``path`` grows during the upload."""

    name: str
    length: int
    path: Path

    @property
    def size(self) -> int:
        """Bytes received so far."""
        return self.path.stat().st_size if self.path.is_file() else 0

    @property
    def whole(self) -> bool:
        """Whether the file is complete."""
        return self.path.is_file() and self.size == self.length

    def write(self, pieces: Iterable[bytes], start: int) -> None:
        """Write ``pieces`` from offset ``start`` on; bytes received before a disconnect are kept."""
        with self.path.open("r+b" if self.path.is_file() else "wb") as file:
            file.truncate(start)
            file.seek(start)
            for piece in pieces:
                file.write(piece)


class Datasets:
    """The account's datasets in a folder; another Datasets on the same folder restores them.

    ``patience``: number of polls before a new version is ready.
    """

    def __init__(self, folder: Path, patience: int = 1) -> None:
        self._folder, self._patience = folder, patience
        self._lock = threading.Lock()
        self._blobs: dict[str, Blob] = {}
        self._datasets = self._load()

    @property
    def all(self) -> list[Dataset]:
        """All datasets, in order of creation."""
        with self._lock:
            return list(self._datasets.values())

    def find(self, ref: str) -> Dataset | None:
        """Return the dataset ``user/slug``, or None."""
        with self._lock:
            return self._datasets.get(ref)

    def announce(self, name: str, length: int) -> str:
        """Announce a file; return the token of its upload."""
        token = secrets.token_urlsafe(24)
        path = self._folder / "blobs" / token
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._lock:
            self._blobs[token] = Blob(name, length, path)
        return token

    def blob(self, token: str) -> Blob | None:
        """Return the file announced under ``token``, or None."""
        with self._lock:
            return self._blobs.get(token)

    def create(self, ref: str, title: str, license: str, is_private: bool) -> None:
        """Prepare a dataset; it exists once it has a version."""
        with self._lock:
            self._datasets[ref] = Dataset(ref, title, license, is_private, (), self._version_folder(ref, 1))

    def add_version(self, ref: str, notes: str, tokens: list[str], fails: bool = False) -> Dataset:
        """Create a version of the files uploaded under ``tokens``, which must be complete; each token works
        once."""
        with self._lock:
            dataset = self._datasets[ref]
            blobs = [self._blobs.pop(token) for token in tokens]
            number = len(dataset.versions) + 1
            folder = self._version_folder(ref, number)
            for blob in blobs:
                _unpack(blob, folder)
            version = Version(number, notes, tuple(blob.name for blob in blobs), self._patience, fails)
            self._datasets[ref] = replace(dataset, versions=(*dataset.versions, version), folder=folder)
            self._save()
            return self._datasets[ref]

    def poll(self, ref: str) -> Dataset:
        """Return the dataset as this poll sees it; its newest version then has one poll less left."""
        with self._lock:
            dataset = self._datasets[ref]
            if dataset.latest.looks_left:
                latest = replace(dataset.latest, looks_left=dataset.latest.looks_left - 1)
                self._datasets[ref] = replace(dataset, versions=(*dataset.versions[:-1], latest))
                self._save()
        return dataset

    def _version_folder(self, ref: str, number: int) -> Path:
        return self._folder / "datasets" / ref / str(number)

    def _load(self) -> dict[str, Dataset]:
        path = self._folder / "datasets.json"
        stored = storage.read_json(path, list) if path.is_file() else []
        datasets = {}
        for item in stored:
            versions = tuple(
                Version(**{**version, "files": tuple(version["files"])}) for version in item.pop("versions")
            )
            datasets[item["ref"]] = Dataset(
                **item, versions=versions, folder=self._version_folder(item["ref"], len(versions))
            )
        return datasets

    def _save(self) -> None:
        rows = [asdict(dataset) for dataset in self._datasets.values() if dataset.versions]
        for row in rows:
            del row["folder"]
        storage.write_json(self._folder / "datasets.json", rows)


def _unpack(blob: Blob, folder: Path) -> None:
    """Move a file to ``folder``; a zip becomes a folder of its name, as on Kaggle. Nested archives stay
    packed."""
    folder.mkdir(parents=True, exist_ok=True)
    if not blob.name.endswith(".zip") or not zipfile.is_zipfile(blob.path):
        blob.path.replace(folder / blob.name)
        return
    with zipfile.ZipFile(blob.path) as archive:
        archive.extractall(folder / blob.name.removesuffix(".zip"))
    blob.path.unlink()
