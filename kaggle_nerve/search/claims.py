"""Which trials of a study count, which are surplus, and which were left by a worker that died.

A trial that is left by its worker is continued by a new one with the same parameters, which goes on with the same run.
These rules only read the list of trials, so that every worker draws the same conclusions without another lock than the
storage's own.
"""

import time
from collections.abc import Callable, Sequence

from optuna.trial import FrozenTrial, TrialState

RUN, PLACE, BEAT, SURPLUS, CONTINUES = "run", "place", "beat", "surplus", "continues"
"""User attributes of a trial: name of its run; the worker's machine and folder; the latest sign of life (seconds since
1970); whether it is one too many; number of the trial that it continues."""

GRACE = 600.0
"""Seconds without a sign of life after which a worker elsewhere counts as dead."""


def successors(trials: Sequence[FrozenTrial]) -> dict[int, int]:
    """Return for each continued trial the number of the first trial that continues it."""
    first: dict[int, int] = {}
    for trial in trials:
        if CONTINUES in trial.user_attrs:
            first.setdefault(trial.user_attrs[CONTINUES], trial.number)
    return first


def is_void(trial: FrozenTrial, trials: Sequence[FrozenTrial]) -> bool:
    """Return whether ``trial`` is not to be trained or counted.

    Either it is surplus; or the trial that it continues was finished after all; or another one continues that.
    """
    attributes = trial.user_attrs
    if attributes.get(SURPLUS):
        return True
    if CONTINUES not in attributes:
        return False
    earlier = trials[attributes[CONTINUES]]
    return (
        earlier.state in (TrialState.COMPLETE, TrialState.PRUNED)
        or successors(trials)[earlier.number] != trial.number
    )


def counted(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """List the trials that count: all but void ones and unfinished ones that another trial continues."""
    continued = successors(trials)
    return [
        trial
        for trial in trials
        if not is_void(trial, trials)
        and not (trial.number in continued and trial.state in (TrialState.RUNNING, TrialState.FAIL))
    ]


def is_full(trials: Sequence[FrozenTrial], count: int) -> bool:
    """Return whether there are ``count`` trials, none of which waits for a worker."""
    those = counted(trials)
    waiting = any(trial.state == TrialState.WAITING for trial in trials)
    return len(those) >= count and not waiting


def is_surplus(trial: FrozenTrial, trials: Sequence[FrozenTrial], count: int) -> bool:
    """Return whether ``count`` trials with lower numbers than that of ``trial`` count already."""
    return sum(one.number < trial.number for one in counted(trials)) >= count


def left(
    trials: Sequence[FrozenTrial], place: str, is_held: Callable[[str], bool | None], shared: bool
) -> list[FrozenTrial]:
    """List the running trials whose worker is dead.

    ``place``: this worker's machine and folder. There, the lock of the trial's run decides: ``is_held`` returns whether
    a process holds it, None if the lock file is missing. Elsewhere the last sign of life decides if the lock is not
    held here. ``shared``: all workers use this worker's folder and take one trial at a time, so a running trial without
    a place has lost its worker before it could say where it is.
    """

    def is_left(trial: FrozenTrial) -> bool:
        attributes = trial.user_attrs
        if PLACE not in attributes and shared:
            return True
        held = is_held(run_name(trial))
        if held or (held is False and attributes.get(PLACE) == place):
            return not held
        started = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
        return time.time() - attributes.get(BEAT, started) > GRACE

    return [trial for trial in counted(trials) if trial.state == TrialState.RUNNING and is_left(trial)]


def run_name(trial: FrozenTrial) -> str:
    """Return the name of the trial's run: its own, or the one that it goes on with."""
    return trial.user_attrs.get(RUN, f"trial-{trial.number:04d}")


def ranked(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """List the complete trials, the best first; of equal ones the earlier."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    return sorted(complete, key=lambda trial: (-(trial.value or 0.0), trial.number))


def shown_number(trial: FrozenTrial) -> int:
    """Return the number to show: that of the trial's run, which stays the same when the trial is continued."""
    return number(run_name(trial))


def number(name: str) -> int:
    """Return the number in the name of a trial's run."""
    return int(name.rpartition("-")[2])
