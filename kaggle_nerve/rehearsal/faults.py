"""Named faults: what can be made to go wrong, where, and how often.

``server.faults.add("cut", times=2, after=1_500_000)`` and ``parse("cut:times=2,after=1500000")`` mean the
same fault.
"""

import difflib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kaggle_nerve.errors import NerveError
from kaggle_nerve.rehearsal.fault_kinds import ALWAYS, KINDS, Kind

USUAL = 0
"""As a number of times: what the sort of fault has unless told."""

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
