"""One request to the rehearsal's server: the services that answer it, and its log record."""

from collections.abc import Callable
from dataclasses import dataclass, field

from kaggle_nerve.rehearsal.competitions.served import ServedCompetition
from kaggle_nerve.rehearsal.competitions.state import State
from kaggle_nerve.rehearsal.datasets.state import Datasets
from kaggle_nerve.rehearsal.faults import Fault, Faults
from kaggle_nerve.rehearsal.incoming import Request
from kaggle_nerve.rehearsal.kernels.state import Kernels
from kaggle_nerve.rehearsal.links import Links
from kaggle_nerve.rehearsal.wire import RefusedError


@dataclass
class Record:
    """One line of the server's log, without credentials, signatures and upload tokens.

    ``host`` is the host the client wanted; ``call`` Kaggle's name of the call, or ""; ``received`` and
    ``sent`` count the bodies' bytes; ``span`` is the Range header; ``faults`` those injected; ``aborted``:
    whether the client disconnected.
    """

    method: str
    host: str
    path: str
    span: str = ""
    call: str = ""
    status: int = 0
    received: int = 0
    sent: int = 0
    faults: list[str] = field(default_factory=list)
    aborted: bool = False


@dataclass(frozen=True)
class Services:
    """Everything that the requests to one server share."""

    served: ServedCompetition
    state: State
    kernels: Kernels
    datasets: Datasets
    links: Links
    faults: Faults
    token: str


@dataclass(frozen=True)
class Exchange:
    """A request, the server's services, and its record."""

    services: Services
    request: Request
    record: Record

    def trigger(self, name: str, applies: Callable[[Fault], bool] = lambda _: True) -> Fault | None:
        """Return fault ``name`` if it is set for this call, or None. A returned fault is counted and
        recorded."""
        fault = self.services.faults.trigger(name, self.record.call, applies)
        if fault is not None:
            self.record.faults.append(name)
        return fault

    def require_competition(self, slug: str) -> None:
        """Raise RefusedError 404 unless ``slug`` is the served competition."""
        if slug != self.services.served.slug:
            raise RefusedError(404, f"There is no competition {slug!r}.")
