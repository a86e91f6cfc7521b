"""The client under guard, a reporter that remembers, and processes that are killed. For several test files."""

import json
import signal
import subprocess
import sys
from pathlib import Path

from processes import is_gone, wait_until
from rehearsal_support import GUARD, hosts_tried

from kaggle_nerve.kaggle_api.client import Client, Limits, archive_path
from kaggle_nerve.kaggle_api.records import Listing
from kaggle_nerve.progress import Bar, Reporter
from kaggle_nerve.rehearsal.server import RehearsalServer

LIMITS = Limits(call=20, submit=20, download=60, stall=20)


class Notes(Reporter):
    """Remembers every line, and what each bar counted to."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.bars: list[tuple[str, int | None, Counted]] = []

    def say(self, text: str) -> None:
        """Remember."""
        self.lines.append(text)

    def bar(self, label: str, total: int | None, unit: str = "frame") -> Bar:
        """A bar that counts."""
        bar = Counted()
        self.bars.append((label, total, bar))
        return bar

    @property
    def text(self) -> str:
        """All of it."""
        return "\n".join([*self.lines, *(note for _, _, bar in self.bars for note in bar.notes)])


class Counted(Bar):
    """Counts."""

    def __init__(self) -> None:
        self.count = 0
        self.notes: list[str] = []

    def update(self, steps: int = 1) -> None:
        """Count."""
        self.count += steps

    def note(self, text: str) -> None:
        """Remember."""
        self.notes.append(text)


class ShelfClient(Client):
    """Takes the archive from a shelf: for what happens after the download, without the second that it takes.

    ``spoil`` changes the bytes of each delivery, by its number from 0 on.
    """

    def __init__(self, archive: str, listing: Listing | None = None, spoil=lambda data, number: data) -> None:
        proxies = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
        super().__init__(
            {"HOME": "/", "KAGGLE_API_TOKEN": "none", "KAGGLE_API_ENVIRONMENT": "LOCALHOST", **proxies}
        )
        self.shelf, self.listing, self.spoil, self.deliveries = Path(archive), listing or Listing(), spoil, 0

    def list_files(self, on_page=lambda count: None) -> Listing:
        """What it was told to list."""
        return self.listing

    def download_all(self, folder: Path, *, force: bool = False, on_progress=None) -> Path:
        """A copy, unless there is one."""
        path = archive_path(folder, self.slug)
        if force or not path.is_file():
            path.write_bytes(self.spoil(self.shelf.read_bytes(), self.deliveries))
            self.deliveries += 1
        return path


def guarded(server: RehearsalServer, home: Path) -> dict[str, str]:
    """The server's environment, with every socket noted and refused unless it goes to 127.0.0.1."""
    folder = home / "guard"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text(GUARD)
    return {**server.environment(home), "PYTHONPATH": str(folder), "GUARD_LOG": str(folder / "hosts.log")}


def client_of(server: RehearsalServer, home: Path, limits: Limits = LIMITS) -> Client:
    """A client of this server that can reach nothing else."""
    return Client(guarded(server, home), limits=limits)


def assert_only_loopback(home: Path) -> None:
    """The guard saw the client go to 127.0.0.1, and nowhere else."""
    assert hosts_tried(home) == ("127.0.0.1",)


def calls(server: RehearsalServer, name: str) -> list[int]:
    """The statuses that this call was answered with."""
    return [record.status for record in server.log if record.call == name]


def start_python(code: str, *arguments: object) -> subprocess.Popen[bytes]:
    """A process of its own, to be killed; ``arguments`` come as JSON in ``args``."""
    program = f"import json, sys\nargs = json.loads(sys.argv[1])\n{code}"
    words = [sys.executable, "-c", program, json.dumps(arguments, default=str)]
    return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def kill(process: subprocess.Popen[bytes]) -> None:
    """kill -9, as a full memory or a user does it; what it started must go with it."""
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    children = [int(word) for word in listed.read_text().split()] if listed.is_file() else []
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    for child in children:
        wait_until(lambda child=child: is_gone(child), f"process {child} lives on")


def everything_under(folder: Path) -> bytes:
    """The bytes of all files, one after the other, their names before them."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return b"\n".join(str(path).encode() + b"\n" + path.read_bytes() for path in files)
