"""The rehearsal's server as one object: start, use, stop."""

import shlex
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

from kaggle_nerve.errors import NerveError
from kaggle_nerve.rehearsal.competitions.served import ServedCompetition
from kaggle_nerve.rehearsal.competitions.state import State, Submission
from kaggle_nerve.rehearsal.datasets.state import Dataset, Datasets
from kaggle_nerve.rehearsal.exchange import Record, Services
from kaggle_nerve.rehearsal.faults import Faults
from kaggle_nerve.rehearsal.handler import Listener
from kaggle_nerve.rehearsal.kernels.state import Kernel, Kernels
from kaggle_nerve.rehearsal.links import Links

FOREIGN = (
    "KAGGLE_USERNAME",
    "KAGGLE_KEY",
    "KAGGLE_COMPETITION",
    "KAGGLE_PATH",
    "KAGGLE_PROXY",
    "KAGGLE_SSL_CA_CERT",
    "KAGGLE_API_ENDPOINT",
    "KAGGLE_API_V1_TOKEN",
    "KAGGLE_KERNEL_RUN_TYPE",
    "KAGGLE_DATA_PROXY_URL",
    "VERBOSE",
    "VERBOSE_OUTPUT",
)
"""Variables of a real account or a Kaggle notebook, which a rehearsal's shell must not have."""

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


class RehearsalServer:
    """A loopback Kaggle that serves one competition. Use as a context manager, or ``start`` and ``close``.

    Args:
        served: the competition from ``competitions.served.pack``.
        state_dir: keeps submissions, kernels and datasets; a later server on the same folder restores them.
            The files in ``outputs/<slug>/`` are the output of the kernel of that name: no kernel is run.
        token: the valid access token.
        pending_polls: number of polls that see a submission PENDING before its result, a kernel QUEUED and
            then RUNNING, and a dataset not ready.
        pending_seconds: seconds that a submission stays PENDING at least.
        daily_limit: submissions per day before CreateSubmission refuses.
        port: 0 for any free one. The address is always 127.0.0.1.

    Attributes:
        faults: the faults to inject; add to it before or while the server runs.
        log: a Record per request, oldest first, created when the request comes and completed as it is
            answered.
        errors: exceptions of the server's own threads: defects. ``close`` raises them.
    """

    def __init__(
        self,
        served: ServedCompetition,
        state_dir: Path,
        token: str = "rehearsal-token",
        *,
        pending_polls: int = 1,
        pending_seconds: float = 0.0,
        daily_limit: int = 100,
        port: int = 0,
    ) -> None:
        self.served, self.state_dir, self.token = served, state_dir, token
        self.faults = Faults()
        self.log: list[Record] = []
        self.errors: list[Exception] = []
        self._state = State(served, state_dir, pending_polls, pending_seconds, daily_limit)
        self._kernels = Kernels(state_dir, pending_polls)
        self._datasets = Datasets(state_dir, pending_polls)
        self._port = port
        self._listener: Listener | None = None

    def start(self) -> Self:
        """Listen and answer, in threads. Raises NerveError if the port cannot be used."""
        try:
            self._listener = Listener(self.log, self.errors, self._port)
        except OSError as error:
            raise NerveError(f"Port {self._port} of 127.0.0.1 cannot be used: {error}.") from error
        self.errors.clear()
        links = Links(self.url)
        self._listener.services = Services(
            self.served, self._state, self._kernels, self._datasets, links, self.faults, self.token
        )
        threading.Thread(
            target=self._listener.serve_forever, kwargs={"poll_interval": 0.05}, name="rehearsal", daemon=True
        ).start()
        return self

    def close(self) -> None:
        """Stop, close open connections, and raise the exceptions of the server's threads."""
        if self._listener is None:
            return
        self._listener.end()
        self._listener = None
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            raise ExceptionGroup("the rehearsal server met several defects", self.errors)

    @property
    def url(self) -> str:
        """``http://127.0.0.1:PORT`` of the running server."""
        if self._listener is None:
            raise NerveError("The rehearsal server is not running.")
        return f"http://127.0.0.1:{self._listener.server_address[1]}"

    @property
    def submissions(self) -> list[Submission]:
        """All submissions, newest first; reading them does not count as a poll."""
        return self._state.submissions

    @property
    def kernels(self) -> list[Kernel]:
        """Every pushed version of every kernel, newest first."""
        return self._kernels.versions

    @property
    def datasets(self) -> list[Dataset]:
        """All datasets, in order of creation."""
        return self._datasets.all

    def finish_kernel(self, ref: str, folder: Path, log: str = "") -> None:
        """End the session of a pushed kernel now, with the files of ``folder`` as its output."""
        self._kernels.finish(ref, folder, log)

    def environment(self, home: Path) -> dict[str, str]:
        """Return every variable that the client needs to find this server and no other; ``home`` is created
        if needed.

        A subprocess should get exactly these, without the parent's Kaggle or proxy variables. The client's
        base address can only be set to http://localhost, without a port, so the server also acts as the
        proxy. As such it refuses all other hosts, so a client that was not redirected fails at once.
        """
        home = home.resolve()
        home.mkdir(parents=True, exist_ok=True)
        return {
            "HOME": str(home),
            "USERPROFILE": str(home),
            "KAGGLE_CONFIG_DIR": str(home / "kaggle"),
            "KAGGLE_API_TOKEN": self.token,
            "KAGGLE_API_ENVIRONMENT": "LOCALHOST",
            **dict.fromkeys(PROXIES, self.url),
            **dict.fromkeys(("no_proxy", "NO_PROXY"), ""),
        }

    def exports(self, home: Path | None = None) -> str:
        """Return the variables as lines for a POSIX shell; a real account's variables are unset."""
        variables = self.environment(home or self.state_dir / "home")
        lines = [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]
        return "\n".join([*lines, f"unset {' '.join(FOREIGN)}"]) + "\n"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except Exception as defect:
            if error is None:
                raise
            error.add_note(f"The rehearsal server also met a defect: {defect!r}")
