"""What a kernel's session left, on this disk, every size compared."""

import re
import shutil
import time
from pathlib import Path, PurePosixPath

from kaggle_nerve.kaggle_api import client as clients
from kaggle_nerve.kaggle_api import failures, records, wordings
from kaggle_nerve.kaggle_api.arrival import Arrival
from kaggle_nerve.kaggle_api.client import Client
from kaggle_nerve.kaggle_api.disk import full_disk_told
from kaggle_nerve.kaggle_api.failures import KaggleError
from kaggle_nerve.kaggle_api.records import Listing, RemoteFile
from kaggle_nerve.progress import SILENT, Bar, Reporter
from kaggle_nerve.runs.adopting import adopt, check
from kaggle_nerve.storage import COMPLETE, digest_text

TRIES = 3
"""Runs of the client in a row that bring nothing new. Up to 2.2.4 it saves an error page as the file and ends at the
first broken connection; later ones end at the first refused address."""

PASSING = (failures.NETWORK, failures.LINK, failures.SERVER, failures.CORRUPT)
"""Failures of one file after which another run of the client, with new addresses, may get it."""

OF_RUNS = "runs/[^/]+/"
"""How the names of files of runs begin in a kernel's output."""

INSIDE = r"^(?!/)(?!(?s:.*/)?\.\.(?:/|\Z))"
"""Begins every pattern, so that no name is found which leads out of the folder: the client writes by the names of a
second list, which may have others than the one that was looked at."""


def fetch_runs(ref: str, runs_dir: Path, client: Client, *, reporter: Reporter = SILENT) -> list[str]:
    """Get the runs that the newest session of ``user/slug`` left into ``runs_dir``; a line for each run.

    What is finished there is neither fetched nor touched, see `adopting.adopt`. NerveError, before the large files
    are fetched, where a run of the same name has other settings or data. A second call goes on where the first
    one ended.
    """
    listing = list_output(ref, client)
    slug, key = ref.rpartition("/")[2], digest_text(*map(repr, listing.files))[:8]
    work = runs_dir / f".output-{slug}-{key}"
    for old in runs_dir.glob(f".output-{slug}-{'?' * len(key)}"):
        if old != work:
            shutil.rmtree(old)
    _fetch(ref, work, client, listing, f"{OF_RUNS}[^/]+$", reporter)
    runs = check(work / "runs", runs_dir)
    done = [folder for run in runs for folder in _finished(runs_dir / run.name)]
    without = "".join(f"(?!runs/{re.escape(folder)}/)" for folder in done)
    _fetch(ref, work, client, listing, f"{without}{OF_RUNS}", reporter)
    with full_disk_told(runs_dir, "--runs"):
        told = adopt(work / "runs", runs_dir)
    shutil.rmtree(work)
    return told


def _finished(run: Path) -> list[str]:
    """``<run>/<folder>`` of each finished folder of a run."""
    return [f"{run.name}/{marker.parent.name}" for marker in sorted(run.glob(f"*/{COMPLETE}"))]


def _fetch(
    ref: str, folder: Path, client: Client, listing: Listing, pattern: str, reporter: Reporter
) -> None:
    """Get the files of ``listing`` whose names begin with ``pattern``, with their folders, into ``folder``.

    Files of the right size are kept, so a second call goes on where the first one ended. Raises KaggleError where
    files are missing or damaged on the way.
    """
    pattern = INSIDE + pattern
    wanted = [file for file in listing.files if re.search(pattern, file.name)]
    if not wanted:
        raise KaggleError(
            failures.NOT_FOUND,
            f"The newest session of {ref} left no such files: see with `kaggle-nerve kernels status {ref}` whether it "
            "has ended well.",
        )
    with (
        full_disk_told(folder, "--runs"),
        reporter.bar("Downloading", sum(file.size for file in wanted), "byte") as bar,
    ):
        progress, doing = _Progress(folder, bar), f"downloading the output of {ref}"
        watch = Arrival(progress.measure, client.limits.file, progress.show, doing, wordings.OF_KERNELS)
        fault, most, idle = None, _kept(wanted, folder), 0
        while (wrong := _wrong(wanted, folder)) and idle < TRIES:
            _remove_damaged(wrong, folder)
            fault = _download(ref, folder, client, pattern, watch)
            kept = _kept(wanted, folder)
            most, idle = max(kept, most), 0 if kept > most else idle + 1
    if wrong:
        _remove_damaged(wrong, folder)
        if fault and fault.kind == failures.NETWORK:
            raise fault
        reason = f" ({fault.reason})" if fault else ""
        raise KaggleError(
            fault.kind if fault else failures.CORRUPT,
            f"{len(wrong)} of {len(wanted)} files of {ref} did not arrive whole, such as {wrong[0].name}{reason}: "
            "run the same command again; what arrived is kept.",
        )
    for file in wanted:
        clients.partial_path(folder / file.name).unlink(missing_ok=True)


def list_output(ref: str, client: Client) -> Listing:
    """Names and sizes of all files that the newest session of ``user/slug`` left, all pages."""
    end = time.monotonic() + client.limits.listing
    doing, about = f"listing the output of {ref}", wordings.kernel(ref)
    files: list[RemoteFile] = []
    seen, token = set(), ""
    while token not in seen:
        seen.add(token)
        page = {"ref": ref, "token": token, "size": clients.PAGE}
        answer = client.ask("list_kernel_files", page, doing, client.limits.call, about=about)
        files += [records.as_file(row) for row in answer["files"]]
        token = answer["next"]
        if not token:
            break
        if time.monotonic() > end:
            raise failures.timed_out(doing, client.limits.listing)
    for file in files:
        path = PurePosixPath(file.name)
        if not file.name or path.is_absolute() or ".." in path.parts:
            raise KaggleError(
                failures.CORRUPT,
                f"{ref} lists a file {file.name!r}, which is no plain name, so nothing was fetched: look at the "
                "kernel's page.",
            )
    return Listing(tuple(files))


def _download(ref: str, folder: Path, client: Client, pattern: str, watch: Arrival) -> KaggleError | None:
    """Run the client, which goes through all pages by itself; it keeps files that are there and large enough.

    Returns the failure where another run may do better, and raises any other.
    """
    wanted = {"ref": ref, "folder": str(folder), "pattern": pattern, "size": clients.PAGE}
    about = wordings.kernel(ref)
    try:
        client.ask("kernel_output", wanted, watch.doing, client.limits.output, watch=watch, about=about)
    except KaggleError as fault:
        if fault.kind not in PASSING:
            raise
        return fault
    watch("")
    return None


def _is_whole(file: RemoteFile, folder: Path) -> bool:
    """Whether a file is there with its listed size. A listed 0 may mean that Kaggle does not say."""
    path = folder / file.name
    if not path.is_file():
        return False
    return path.stat().st_size == file.size if file.size else not clients.partial_path(path).is_file()


def _is_resumable(file: RemoteFile, folder: Path) -> bool:
    """Whether the client, from 2.2.5 on, would go on from this part of a file: its note lies beside it."""
    path = folder / file.name
    is_part = path.is_file() and clients.partial_path(path).is_file()
    return is_part and (not file.size or path.stat().st_size < file.size)


def _wrong(wanted: list[RemoteFile], folder: Path) -> list[RemoteFile]:
    """Those that are missing or not whole."""
    return [file for file in wanted if not _is_whole(file, folder)]


def _kept(wanted: list[RemoteFile], folder: Path) -> int:
    """Bytes that do not have to come again, and one for each whole file, which may have none."""
    whole = [file for file in wanted if _is_whole(file, folder)]
    parts = [file for file in wanted if _is_resumable(file, folder)]
    return len(whole) + sum((folder / file.name).stat().st_size for file in [*whole, *parts])


def _remove_damaged(files: list[RemoteFile], folder: Path) -> None:
    for file in files:
        if not _is_resumable(file, folder):
            (folder / file.name).unlink(missing_ok=True)
            clients.partial_path(folder / file.name).unlink(missing_ok=True)


class _Progress:
    """Feeds a bar with the bytes of a folder's runs, which become fewer where a damaged file is removed."""

    def __init__(self, folder: Path, bar: Bar) -> None:
        self._runs, self._bar, self._most = folder / "runs", bar, 0

    def measure(self) -> int:
        """Bytes on disk, without the client's notes."""
        files = (path for path in self._runs.rglob("*") if path.suffix != clients.PARTIAL and path.is_file())
        return sum(path.stat().st_size for path in files)

    def show(self, size: int) -> None:
        """Advance the bar to ``size``, but never back."""
        if size > self._most:
            self._bar.update(size - self._most)
            self._most = size
