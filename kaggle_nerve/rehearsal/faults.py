"""Fault injection: what can be made to go wrong, where, and how often.

``server.faults.add("cut", times=2, after=1_500_000)`` and ``parse("cut:times=2,after=1500000")`` mean the
same fault.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kaggle_nerve.errors import NerveError
from kaggle_nerve.rehearsal.fault_kinds import ALWAYS, KINDS
from kaggle_nerve.settings.text import nearest

DEFAULT = 0
"""As a number of times: the default of the kind of fault."""

FAULTS = {name: kind.meaning for name, kind in KINDS.items()}
"""Every fault's name and what it does, in one line."""


@dataclass
class Fault:
    """A pending fault: it will be injected ``left`` more times (None: always), in ``calls``."""

    name: str
    left: int | None
    calls: tuple[str, ...]
    options: dict[str, Any]

    def __getitem__(self, option: str) -> Any:
        return self.options[option]


def make(name: str, /, times: int | None = DEFAULT, call: str = "", **options: Any) -> Fault:
    """Make a fault of kind ``name``; ``times`` None means always, ``call`` restricts it to one call.

    Raises NerveError for an unknown name, call or option.
    """
    kind = KINDS.get(name)
    if kind is None:
        raise NerveError(
            f"There is no fault {name!r}{nearest(name, list(KINDS))}; the faults are: {', '.join(KINDS)}."
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
        kind.times if times == DEFAULT else times,
        (call,) if call else kind.calls,
        {
            key: _convert(kind.options[key], options.get(key, kind.options[key]), name, key)
            for key in kind.options
        },
    )


def parse(text: str) -> Fault:
    """Parse ``name`` or ``name:option=value,option=value``, such as ``cut:times=2,after=1500000``.

    ``times=always`` never stops. Raises NerveError that says what is wrong.
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
    """The active faults. They can be added while the server runs; thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pending: list[Fault] = []

    def add(self, name: str, /, times: int | None = DEFAULT, call: str = "", **options: Any) -> Fault:
        """Add a fault; see ``make``."""
        return self.put(make(name, times, call, **options))

    def put(self, fault: Fault) -> Fault:
        """Add a fault from ``parse`` or ``make``."""
        with self._lock:
            self._pending.append(fault)
        return fault

    def clear(self) -> None:
        """Remove every pending fault."""
        with self._lock:
            self._pending.clear()

    @property
    def pending(self) -> list[Fault]:
        """The faults that are still to be injected."""
        with self._lock:
            return list(self._pending)

    def trigger(
        self, name: str, call: str, applies: Callable[[Fault], bool] = lambda _: True
    ) -> Fault | None:
        """Return the first pending fault ``name`` that affects ``call``, and count it; None if there is none.

        A fault that does not apply to this request, such as a cut beyond the answer's end, remains pending.
        """
        with self._lock:
            for fault in self._pending:
                if fault.name == name and call in fault.calls and applies(fault):
                    self._count(fault)
                    return fault
        return None

    def _count(self, fault: Fault) -> None:
        if fault.left is None:
            return
        fault.left -= 1
        if fault.left == 0:
            self._pending.remove(fault)


def _times(value: str, text: str) -> int | None:
    if value == "always":
        return ALWAYS
    if not value.isdigit() or int(value) == 0:
        raise NerveError(f"Fault {text!r}: times must be a whole number from 1 on, or 'always'.")
    return int(value)


def _convert(default: Any, value: Any, name: str, key: str) -> Any:
    """Convert ``value`` to the type of ``default``; text is parsed as on the command line."""
    try:
        if isinstance(default, bool):
            return bool(int(value))
        return type(default)(value)
    except ValueError as fault:
        raise NerveError(f"Fault {name}: {key}={value!r} is not a {type(default).__name__}.") from fault
