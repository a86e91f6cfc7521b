"""Named faults: what can be made to go wrong, where, and how often.

``server.faults.add("cut", times=2, after=1_500_000)`` and ``parse("cut:times=2,after=1500000")`` mean the
same fault.
"""

import difflib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kaggle_nerve.errors import NerveError

CALLS = (
    "IntrospectToken",
    "ListDataFiles",
    "DownloadDataFiles",
    "DownloadDataFile",
    "StartSubmissionUpload",
    "CreateSubmission",
    "GetSubmission",
    "GetSubmissionLimits",
    "ListSubmissions",
    "GetLeaderboard",
    "DownloadLeaderboard",
    "archive",
    "file",
    "upload",
)
"""What a fault can strike: Kaggle's calls by their own names, then the GET of the zip, the GET of one file
and the PUT of a submission."""

DATA = ("archive", "file")
TOKEN_CHECK = CALLS[:1]
"""Every client's first call: faults strike it only when told by name, or no other call would be reached."""
COMPETITION, ALL = CALLS[1:11], CALLS[1:]
ALWAYS = None
"""As a number of times: until the fault is removed."""

USUAL = 0
"""As a number of times: what the sort of fault has unless told."""


@dataclass(frozen=True)
class Kind:
    """One sort of fault: its meaning, the calls it strikes, how often unless told, its options' defaults.

    ``by_name`` are calls that it strikes only if ``call`` names them.
    """

    meaning: str
    calls: tuple[str, ...]
    times: int | None = 1
    options: dict[str, Any] = field(default_factory=dict)
    by_name: tuple[str, ...] = ()


KINDS = {
    "cut": Kind("a download breaks off after `after` bytes of the answer", DATA, 1, {"after": 1_500_000}),
    "stall": Kind(
        "the answer stops after `after` bytes and never goes on; 0: not even headers",
        ALL,
        1,
        {"after": 0},
        TOKEN_CHECK,
    ),
    "slow": Kind("the answer comes `seconds` late", ALL, 1, {"seconds": 3.0}, TOKEN_CHECK),
    "status": Kind(
        "the call answers HTTP `status`, as Kaggle's JSON error or, with json=0, as a bare page",
        ALL,
        1,
        {"status": 503, "json": True, "message": "The rehearsal was told to answer so."},
        TOKEN_CHECK,
    ),
    "rules": Kind(
        "403: the rules are not accepted, for downloads and submissions",
        ("DownloadDataFiles", "DownloadDataFile", "StartSubmissionUpload", "CreateSubmission"),
        ALWAYS,
    ),
    "unauthorized": Kind("401 to every call but the token check", COMPETITION, ALWAYS, {}, TOKEN_CHECK),
    "unknown-competition": Kind("404: there is no such competition", COMPETITION, ALWAYS),
    "daily-limit": Kind(
        "CreateSubmission refuses with 400: no submissions left today", ("CreateSubmission",), ALWAYS
    ),
    "expired-link": Kind(
        "the signed download address answers 403; resume=1: only to a request that resumes",
        DATA,
        1,
        {"resume": False},
    ),
    "corrupt": Kind(
        "the download has its full length, but 64 bytes from offset `at` on are wrong; at=-1: in the middle",
        DATA,
        1,
        {"at": -1},
    ),
    "zip-wrapped": Kind(
        "a single file comes as NAME.zip, as Kaggle does with large ones", ("DownloadDataFile",), ALWAYS
    ),
    "short-listing": Kind(
        "the list of files lacks its last `missing` ones", ("ListDataFiles",), ALWAYS, {"missing": 1}
    ),
    "upload-fails": Kind("the upload of a submission answers 500", ("upload",)),
    "upload-uncertain": Kind(
        "CreateSubmission is carried out, but the connection drops before the answer", ("CreateSubmission",)
    ),
    "late-listing": Kind(
        "the newest submission is not shown yet, for `times` polls", ("ListSubmissions", "GetSubmission"), 2
    ),
    "pending-forever": Kind(
        "the newest submission shows as PENDING", ("ListSubmissions", "GetSubmission"), ALWAYS
    ),
    "scoring-fails": Kind("a good submission ends with status ERROR", ("CreateSubmission",)),
}

FAULTS = {name: kind.meaning for name, kind in KINDS.items()}
"""Every fault's name and what it does, in one line."""


@dataclass
class Fault:
    """A fault that waits to strike: ``left`` more times (None: always), on ``calls``."""

    name: str
    left: int | None
    calls: tuple[str, ...]
    options: dict[str, Any]

    def __getitem__(self, option: str) -> Any:
        return self.options[option]


def make(name: str, /, times: int | None = USUAL, call: str = "", **options: Any) -> Fault:
    """A fault of sort ``name``; ``times`` None for always, ``call`` narrows it to one call.

    Raises NerveError for an unknown name, call or option.
    """
    kind = KINDS.get(name)
    if kind is None:
        raise NerveError(
            f"There is no fault {name!r}{_nearest(name, KINDS)}; the faults are: {', '.join(KINDS)}."
        )
    possible = (*kind.by_name, *kind.calls)
    if call and call not in possible:
        raise NerveError(f"Fault {name} cannot strike {call!r}; it strikes: {', '.join(possible)}.")
    unknown = set(options) - set(kind.options)
    if unknown:
        known = ("times", "call", *kind.options)
        raise NerveError(f"Fault {name} has no option {sorted(unknown)[0]!r}; it has: {', '.join(known)}.")
    if times is not None and times < 0:
        raise NerveError(f"Fault {name} cannot strike {times} times.")
    return Fault(
        name,
        kind.times if times == USUAL else times,
        (call,) if call else kind.calls,
        {
            key: _like(kind.options[key], options.get(key, kind.options[key]), name, key)
            for key in kind.options
        },
    )


def parse(text: str) -> Fault:
    """Read ``name`` or ``name:option=value,option=value``, such as ``cut:times=2,after=1500000``.

    ``times=always`` repeats it for ever. Raises NerveError that says what is wrong.
    """
    name, _, rest = text.strip().partition(":")
    options: dict[str, Any] = {}
    for part in filter(None, (piece.strip() for piece in rest.split(","))):
        key, equals, value = part.partition("=")
        if not equals:
            raise NerveError(f"Fault {text!r}: {part!r} is not of the form option=value.")
        options[key.strip()] = value.strip()
    if "times" in options:
        options["times"] = _times(options["times"], text)
    return make(name, **options)


class Faults:
    """The faults that are set, to be added to while the server runs; safe between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._set: list[Fault] = []

    def add(self, name: str, /, times: int | None = USUAL, call: str = "", **options: Any) -> Fault:
        """Set a fault; see ``make``."""
        return self.put(make(name, times, call, **options))

    def put(self, fault: Fault) -> Fault:
        """Set a fault that ``parse`` or ``make`` made."""
        with self._lock:
            self._set.append(fault)
        return fault

    def clear(self) -> None:
        """Remove every fault that has not struck yet."""
        with self._lock:
            self._set.clear()

    @property
    def waiting(self) -> list[Fault]:
        """Those that can still strike."""
        with self._lock:
            return list(self._set)

    def take(self, name: str, call: str, suits: Callable[[Fault], bool] = lambda _: True) -> Fault | None:
        """Let the first set fault ``name`` strike ``call``: it is returned and counted, or None.

        A fault that does not suit this request, such as a cut beyond the answer's end, goes on waiting.
        """
        with self._lock:
            for fault in self._set:
                if fault.name == name and call in fault.calls and suits(fault):
                    self._count(fault)
                    return fault
        return None

    def _count(self, fault: Fault) -> None:
        if fault.left is None:
            return
        fault.left -= 1
        if fault.left == 0:
            self._set.remove(fault)


def _times(value: str, text: str) -> int | None:
    if value == "always":
        return ALWAYS
    if not value.isdigit() or int(value) == 0:
        raise NerveError(f"Fault {text!r}: times must be a whole number from 1 on, or 'always'.")
    return int(value)


def _like(default: Any, value: Any, name: str, key: str) -> Any:
    """``value`` as the type of ``default``; text is read as the command line gives it."""
    try:
        if isinstance(default, bool):
            return bool(int(value))
        return type(default)(value)
    except ValueError as fault:
        raise NerveError(f"Fault {name}: {key}={value!r} is not a {type(default).__name__}.") from fault


def _nearest(name: str, known: dict[str, Kind]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
