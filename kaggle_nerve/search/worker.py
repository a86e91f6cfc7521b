"""A search's worker: takes trials until the search has as many as wanted, and goes on with those of dead workers."""

import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from optuna.trial import FrozenTrial, Trial, TrialState

from kaggle_nerve.errors import NerveError
from kaggle_nerve.locks import hold_lock, wait_for_lock
from kaggle_nerve.search import claims
from kaggle_nerve.search.study import LOCK, PRESET, Study
from kaggle_nerve.search.trial import ERROR, Trainer, fault, train_trial
from kaggle_nerve.training.parallel import MachinesLostError

LOCKS = "locks"
"""Folder of the locks of trials, held while a worker trains them."""

FAILURES = 3
"""Trials that may fail in a row before the first success; a worker gives up after twice as many later."""


class SearchError(NerveError):
    """One trial after the other failed."""


@dataclass(frozen=True)
class Claim:
    """A trial that this worker has taken, and the name of its run."""

    trial: Trial
    name: str


class Worker:
    """Takes and trains trials. ``keep``: of how many of the best trials the runs are kept."""

    def __init__(self, study: Study, trainer: Trainer, keep: int = 1):
        self._study, self._trainer, self._keep = study, trainer, keep
        self._folder = study.search.folder
        self._place = f"{socket.gethostname()}:{self._folder.resolve()}"

    def run(self, count: int) -> bool:
        """Train trials until the search has ``count``; return False if the worker was stopped before.

        Trials that other workers train may be unfinished then. Raise SearchError if too many fail in a row, and
        MachinesLostError if the cluster that trains them has gone; the same call goes on with the trial.
        """
        failures = 0
        while not self._trainer.stop():
            with self._claim(count) as claim:
                if claim is None:
                    return True
                parameters = self._study.search.space.text(claim.trial.params)
                self._trainer.reporter.say(f"Trial {claims.number(claim.name)} with {parameters}")
                try:
                    state = train_trial(self._study, claim.trial, claim.name, self._trainer)
                except MachinesLostError:
                    self._hand_over(claim.trial, claim.name)
                    raise
                if state is None:
                    self._hand_over(claim.trial, claim.name)
                    return False
            self._report(claim, count)
            self._discard()
            failures = failures + 1 if state == TrialState.FAIL else 0
            self._check(failures)
        return False

    @contextmanager
    def _claim(self, count: int) -> Iterator[Claim | None]:
        """Take the next trial and hold its lock; yield None if the search has ``count``."""
        with ExitStack() as held:
            with wait_for_lock(
                self._folder / LOCK, "opens the search or takes a trial", self._trainer.reporter
            ):
                self._take_over()
                claim = self._next(count)
                if claim:
                    message = f"Another process trains {self._folder / claim.name}; end it, or wait for it."
                    held.enter_context(hold_lock(self._lock(claim.name), message))
                    attributes = {claims.RUN: claim.name, claims.PLACE: self._place, claims.BEAT: time.time()}
                    self._study.note(claim.trial, **attributes)
            yield claim

    def _next(self, count: int) -> Claim | None:
        """Take a waiting trial or a new one; None if ``count`` trials are taken."""
        while not claims.is_full(self._study.trials(), count):
            trial = self._study.ask(count)
            trials = self._study.trials()
            taken = trials[trial.number]
            if not claims.is_void(taken, trials) and not claims.is_surplus(taken, trials, count):
                return Claim(trial, claims.run_name(taken))
            # Workers with folders of their own took trials at the same moment.
            self._study.note(trial, **{claims.SURPLUS: True})
            self._study.finish(trial, TrialState.FAIL)
        return None

    def _take_over(self) -> None:
        """Have the trials of dead workers continued."""
        trials = self._study.trials()
        left = claims.left(trials, self._place, self._is_held, self._study.place.is_shared)
        trials = self._study.trials() if left else trials
        for trial in left:
            if trials[trial.number].state != TrialState.RUNNING:
                continue  # its worker ended it, and then released the lock
            self._trainer.reporter.say(f"Trial {claims.shown_number(trial)} was interrupted and goes on.")
            self._hand_over(trial, claims.run_name(trial))
        for number in claims.successors(trials):
            if trials[number].state == TrialState.RUNNING:  # killed between the two steps of _hand_over
                self._study.finish(number, TrialState.FAIL)

    def _hand_over(self, trial: Trial | FrozenTrial, name: str) -> None:
        """Enqueue a trial that continues ``trial``, which is unfinished, in its run ``name``; end it."""
        attributes = {claims.CONTINUES: trial.number, claims.RUN: name}
        if PRESET in trial.user_attrs:
            attributes[PRESET] = True
        self._study.enqueue(trial.params, attributes)
        self._study.finish(trial.number, TrialState.FAIL)

    def _lock(self, name: str) -> Path:
        return self._folder / LOCKS / name

    def _is_held(self, name: str) -> bool | None:
        """Return whether a process holds the lock of run ``name``; None if there is no such file."""
        if not self._lock(name).is_file():
            return None
        try:
            with hold_lock(self._lock(name), "held"):
                return False
        except NerveError:
            return True

    def _report(self, claim: Claim, count: int) -> None:
        trials = self._study.trials()
        trial, those = trials[claim.trial.number], claims.counted(trials)
        done = sum(one.state.is_finished() for one in those)
        best = claims.ranked(those)[:1]
        text = f"; best so far {best[0].value:.4f}, trial {claims.shown_number(best[0])}" if best else ""
        self._trainer.reporter.say(
            f"Trial {claims.shown_number(trial)}: {_result(trial)}. {done} of {count} trials are finished{text}"
        )

    def _discard(self) -> None:
        """Delete the runs of finished trials, but for the best; of failed ones leave logs, histories and settings."""
        those = claims.counted(self._study.trials())
        kept = claims.ranked(those)[: self._keep]
        for trial in those:
            folder = self._folder / claims.run_name(trial)
            if trial in kept or not trial.state.is_finished() or not folder.is_dir():
                continue
            if trial.state == TrialState.FAIL:
                for path in folder.rglob("*"):
                    if path.is_file() and path.suffix not in (".log", ".csv", ".toml"):
                        path.unlink(missing_ok=True)
            else:
                shutil.rmtree(folder, ignore_errors=True)

    def _check(self, failures: int) -> None:
        """Raise SearchError after too many ``failures`` in a row."""
        those = claims.counted(self._study.trials())
        is_proven = any(trial.state in (TrialState.COMPLETE, TrialState.PRUNED) for trial in those)
        if failures >= FAILURES * (2 if is_proven else 1):
            errors = [trial.user_attrs[ERROR] for trial in those if ERROR in trial.user_attrs]
            raise SearchError(
                f"{failures} trials failed one after the other, the last one with: {''.join(errors[-1:])} The same "
                "command goes on with other trials."
            )


def _result(trial: FrozenTrial) -> str:
    """Say how an ended trial ended."""
    if trial.state == TrialState.COMPLETE:
        return f"{trial.value:.4f}"
    if trial.state == TrialState.PRUNED:
        return "pruned"
    return f"failed: {fault(trial.user_attrs.get(ERROR, 'another worker has taken it over'))}"
