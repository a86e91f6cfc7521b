"""One request on its way through the rehearsal: what it may use, and the record that is kept of it."""

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
    """One line of the server's log. Credentials, signatures and upload tokens are not in it.

    ``host`` is whom the client wanted; ``call`` Kaggle's name or "" for none; ``received`` and ``sent`` count
    the bodies' bytes; ``span`` is the Range header; ``faults`` those that struck; ``aborted``: the client
    left.
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
class House:
    """What all requests to one server share."""

    served: ServedCompetition
    state: State
    kernels: Kernels
    datasets: Datasets
    links: Links
    faults: Faults
    token: str


@dataclass(frozen=True)
class Exchange:
    """A request, the house that answers it, and its record."""

    house: House
    request: Request
    record: Record

    def strike(self, name: str, suits: Callable[[Fault], bool] = lambda _: True) -> Fault | None:
        """The fault ``name`` if it is set for this call (it is then counted and recorded), or None."""
        fault = self.house.faults.take(name, self.record.call, suits)
        if fault is not None:
            self.record.faults.append(name)
        return fault

    def require_competition(self, slug: str) -> None:
        """Raise RefusedError 404 for another competition than the served one."""
        if slug != self.house.served.slug:
            raise RefusedError(404, f"There is no competition {slug!r}.")
