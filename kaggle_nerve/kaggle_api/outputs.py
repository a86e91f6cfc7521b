"""Download the output of a kernel's session, and check every size."""

import re
import shutil
import time
from pathlib import Path, PurePosixPath

from kaggle_nerve.disk import explain_disk_errors
from kaggle_nerve.kaggle_api import failures, records
from kaggle_nerve.kaggle_api.client import PAGE, PARTIAL, Client, partial_path
from kaggle_nerve.kaggle_api.download_watch import DownloadWatch
from kaggle_nerve.kaggle_api.failures import KaggleError
from kaggle_nerve.kaggle_api.records import Listing, RemoteFile
from kaggle_nerve.kaggle_api.subjects import KERNEL_FAILURES, about_kernel
from kaggle_nerve.progress import SILENT, Bar, Reporter
from kaggle_nerve.runs.adopting import adopt, check
from kaggle_nerve.runs.models import DamagedModelError
from kaggle_nerve.storage import COMPLETE, digest_text

TRIES = 3
"""Consecutive client calls without progress before giving up. The client up to 2.2.4 saves an error page as the
file and ends at the first broken connection; later ones end at the first refused address."""

TRANSIENT = (failures.NETWORK, failures.LINK, failures.SERVER, failures.CORRUPT)
"""Failures of one file that another client call, with new addresses, may overcome."""

RUN_FILES = "runs/[^/]+/"
"""Pattern for the start of the names of runs' files in a kernel's output."""

NO_TRAVERSAL = r"^(?!/)(?!(?s:.*/)?\.\.(?:/|\Z))"
"""Prefix of every pattern that is given to the client. It rejects absolute paths and "..": the client lists the
files again, and that list is not checked."""


def fetch_runs(ref: str, runs_dir: Path, client: Client, *, reporter: Reporter = SILENT) -> list[str]:
    """Download the runs in the output of the newest session of ``user/slug`` into ``runs_dir``; return a line
    per run.

    Folds that are complete in ``runs_dir`` are neither downloaded nor changed, see `adopting.adopt`. Raises
    NerveError, before the large files are downloaded, if a run of the same name has other settings or data. A
    second call resumes.
    """
    listing = list_output(ref, client)
    slug, key = ref.rpartition("/")[2], digest_text(*map(repr, listing.files))[:8]
    work = runs_dir / f".output-{slug}-{key}"
    for old in runs_dir.glob(f".output-{slug}-{'?' * len(key)}"):
        if old != work:
            shutil.rmtree(old)
    _fetch(ref, work, client, listing, f"{RUN_FILES}[^/]+$", reporter)
    runs = check(work / "runs", runs_dir)
    finished = [folder for run in runs for folder in _finished_folders(runs_dir / run.name)]
    exclusions = "".join(f"(?!runs/{re.escape(folder)}/)" for folder in finished)
    _fetch(ref, work, client, listing, f"{exclusions}{RUN_FILES}", reporter)
    with explain_disk_errors(runs_dir, "--runs"):
        lines = _adopt(ref, work / "runs", runs_dir)
    shutil.rmtree(work)
    return lines


def _adopt(ref: str, source: Path, runs_dir: Path) -> list[str]:
    """Do as `adopting.adopt`; delete a damaged model file, so that the next call downloads it again."""
    try:
        return adopt(source, runs_dir)
    except DamagedModelError as fault:
        fault.path.unlink(missing_ok=True)
        name = fault.path.relative_to(source)
        raise KaggleError(
            failures.CORRUPT,
            f"{name} of {ref} is not the file that its training left: run the same command again, and if it says the "
            "same again, train that fold anew.",
        ) from fault


def _finished_folders(run: Path) -> list[str]:
    """List ``<run>/<folder>`` for each finished folder of a run."""
    return [f"{run.name}/{marker.parent.name}" for marker in sorted(run.glob(f"*/{COMPLETE}"))]


def _fetch(
    ref: str, folder: Path, client: Client, listing: Listing, pattern: str, reporter: Reporter
) -> None:
    """Download the files of ``listing`` whose names start with ``pattern`` into ``folder``, keeping their
    folders.

    Files of the right size are kept, so a second call resumes. Raises KaggleError if files are missing or
    damaged.
    """
    pattern = NO_TRAVERSAL + pattern
    wanted = [file for file in listing.files if re.search(pattern, file.name)]
    if not wanted:
        raise KaggleError(
            failures.NOT_FOUND,
            f"The newest session of {ref} left no such files: see with `kaggle-nerve kernels status {ref}` whether it "
            "has ended well.",
        )
    with (
        explain_disk_errors(folder, "--runs"),
        reporter.bar("Downloading", sum(file.size for file in wanted), "byte") as bar,
    ):
        progress, doing = _ProgressBar(folder, bar), f"downloading the output of {ref}"
        watch = DownloadWatch(progress.measure, client.limits.file, progress.show, doing, KERNEL_FAILURES)
        fault, most, idle = None, _useful_bytes(wanted, folder), 0
        while (incomplete := _incomplete(wanted, folder)) and idle < TRIES:
            _remove_useless(incomplete, folder)
            fault = _download(ref, folder, client, pattern, watch)
            current = _useful_bytes(wanted, folder)
            most, idle = max(current, most), 0 if current > most else idle + 1
    if incomplete:
        _remove_useless(incomplete, folder)
        raise _explain_incomplete(ref, incomplete, len(wanted), fault)
    for file in wanted:
        partial_path(folder / file.name).unlink(missing_ok=True)


def _explain_incomplete(
    ref: str, incomplete: list[RemoteFile], wanted: int, fault: KaggleError | None
) -> KaggleError:
    """Return the error for files that did not arrive; ``fault`` is that of the last client call."""
    if fault and fault.kind == failures.NETWORK:
        return fault
    reason = f" ({fault.reason})" if fault else ""
    return KaggleError(
        fault.kind if fault else failures.CORRUPT,
        f"{len(incomplete)} of {wanted} files of {ref} did not arrive whole, such as {incomplete[0].name}{reason}: "
        "run the same command again; what arrived is kept.",
    )


def list_output(ref: str, client: Client) -> Listing:
    """List names and sizes of all output files of the newest session of ``user/slug``, all pages."""
    end = time.monotonic() + client.limits.listing
    doing, about = f"listing the output of {ref}", about_kernel(ref)
    files: list[RemoteFile] = []
    used_tokens, token = set(), ""
    while token not in used_tokens:
        used_tokens.add(token)
        page = {"ref": ref, "token": token, "size": PAGE}
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


def _download(
    ref: str, folder: Path, client: Client, pattern: str, watch: DownloadWatch
) -> KaggleError | None:
    """Call the client once for all pages; it skips files that exist and are large enough.

    Returns a failure that another call may overcome, and raises any other.
    """
    arguments = {"ref": ref, "folder": str(folder), "pattern": pattern, "size": PAGE}
    about = about_kernel(ref)
    try:
        client.ask("kernel_output", arguments, watch.doing, client.limits.output, watch=watch, about=about)
    except KaggleError as fault:
        if fault.kind not in TRANSIENT:
            raise
        return fault
    watch("")
    return None


def _is_whole(file: RemoteFile, folder: Path) -> bool:
    """Tell whether a file exists with its listed size. A listed 0 may mean that Kaggle does not report it."""
    path = folder / file.name
    if not path.is_file():
        return False
    return path.stat().st_size == file.size if file.size else not partial_path(path).is_file()


def _is_resumable(file: RemoteFile, folder: Path) -> bool:
    """Tell whether the client, from 2.2.5 on, would resume this file: its resume file lies beside it."""
    path = folder / file.name
    is_part = path.is_file() and partial_path(path).is_file()
    return is_part and (not file.size or path.stat().st_size < file.size)


def _incomplete(wanted: list[RemoteFile], folder: Path) -> list[RemoteFile]:
    """Return the files that are missing or incomplete."""
    return [file for file in wanted if not _is_whole(file, folder)]


def _useful_bytes(wanted: list[RemoteFile], folder: Path) -> int:
    """Return the bytes that need not be downloaded again, plus one per complete file, so that an empty file
    counts as progress."""
    whole = [file for file in wanted if _is_whole(file, folder)]
    parts = [file for file in wanted if _is_resumable(file, folder)]
    return len(whole) + sum((folder / file.name).stat().st_size for file in [*whole, *parts])


def _remove_useless(files: list[RemoteFile], folder: Path) -> None:
    """Remove what is there of ``files``, unless the client would resume it."""
    for file in files:
        if not _is_resumable(file, folder):
            (folder / file.name).unlink(missing_ok=True)
            partial_path(folder / file.name).unlink(missing_ok=True)


class _ProgressBar:
    """Progress bar of a folder's runs; the bytes on disk may decrease when a damaged file is removed."""

    def __init__(self, folder: Path, bar: Bar) -> None:
        self._runs, self._bar, self._most = folder / "runs", bar, 0

    def measure(self) -> int:
        """Return the bytes on disk, without the client's resume files."""
        files = (path for path in self._runs.rglob("*") if path.suffix != PARTIAL and path.is_file())
        return sum(path.stat().st_size for path in files)

    def show(self, size: int) -> None:
        """Advance the bar to ``size``; never move it back."""
        if size > self._most:
            self._bar.update(size - self._most)
            self._most = size
