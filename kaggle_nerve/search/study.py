"""A search and its Optuna study: what it is, how it is opened again, what proposes and prunes its trials."""

import dataclasses
import json
import socket
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.samplers import TPESampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from kaggle_nerve.errors import NerveError
from kaggle_nerve.locks import wait_for_lock
from kaggle_nerve.progress import SILENT, Reporter
from kaggle_nerve.runs.opening import NAME
from kaggle_nerve.runs.run import SEARCH, is_run
from kaggle_nerve.search.pruning import COUNTS, Plan
from kaggle_nerve.search.space import Choices, Range, Space
from kaggle_nerve.search.storage import Place, patiently
from kaggle_nerve.settings import Settings, dump, parse
from kaggle_nerve.settings.schema import AND_ALL
from kaggle_nerve.storage import read_json, write_json

LOCK = ".lock"
"""File in the search's folder, locked while a worker opens the study or takes a trial."""

PRESET = "preset"
"""User attribute of the trial that has the preset's own settings."""

STARTUP = 5
"""Finished trials without which none is pruned."""

UNIFORM = 10
"""Largest number of trials that are drawn before others are proposed by what they showed."""

Result = TypeVar("Result")


@dataclass(frozen=True)
class Search:
    """What a search is; all its workers agree on it.

    ``name``: that of its folder in ``runs_dir``, and of the study. ``preset``: settings to start from. ``folds``: as
    the setting of that name, for the trials. ``objective``: a key of `objectives.OBJECTIVES`. ``pruner``: ``median``,
    ``hyperband`` or ``none``. ``source``: digest of the training data.
    """

    runs_dir: Path
    name: str
    preset: Settings
    folds: str
    space: Space
    objective: str
    pruner: str
    source: str

    @property
    def folder(self) -> Path:
        """The search's folder, which holds the runs of its trials."""
        return self.runs_dir / self.name

    @property
    def settings(self) -> Settings:
        """The preset with the trials' folds, without that of all subjects, which has no score."""
        return dataclasses.replace(self.preset, folds=self.folds.removesuffix(AND_ALL))

    def plan(self, side_by_side: int) -> Plan:
        """Return the steps of a trial, if ``side_by_side`` folds are trained at a time."""
        folds = 1 if "/" in self.settings.folds else int(self.settings.folds)
        return Plan(folds, self.preset.training.epochs, min(side_by_side, folds))

    def record(self) -> dict[str, Any]:
        """Return as plain values what must stay the same while the search goes on."""
        return {
            "settings": dump(self.preset),
            "folds": self.settings.folds,
            "space": self.space.as_toml(),
            "objective": self.objective,
            "pruner": self.pruner,
            "source": self.source,
        }

    def require_same(self, stored: dict[str, Any]) -> None:
        """Raise NerveError, naming the first difference, if ``stored`` is the record of another search."""
        if sentence := self._difference(stored):
            raise NerveError(
                f"Search {self.name} was begun {sentence}; use the same to go on with it, or another --name for "
                "another search."
            )

    def _difference(self, stored: dict[str, Any]) -> str | None:
        if difference := self.preset.difference(parse(stored["settings"], self.name)):
            key, value, other = difference
            return f"with {key} = {other!r}, not {value!r}"
        spaces = stored["space"], self.space.as_toml()
        for key in sorted(spaces[0].keys() | spaces[1].keys()):
            other, value = (json.dumps(space.get(key, "nothing")) for space in spaces)
            if other != value:
                return f"with {other} for {key} in its space, not {value}"
        for key in ("folds", "objective", "pruner"):
            if stored[key] != self.record()[key]:
                return f"with --{key} {stored[key]}, not {self.record()[key]}"
        return "on other training data" if stored["source"] != self.source else None


@dataclass(frozen=True)
class Study:
    """An open study: every access to its storage tries again for a while if that fails."""

    search: Search
    place: Place
    plan: Plan
    optuna: optuna.Study

    def trials(self) -> list[FrozenTrial]:
        """Return all trials by their number, counted or not."""
        return self._patiently(lambda: self.optuna.get_trials(deepcopy=False))

    def ask(self, count: int) -> Trial:
        """Take a waiting trial, or propose a new one; ``count``: how many trials the search has in all."""
        # A sampler of its own for each trial: a resumed search would otherwise propose its first trials once more.
        self.optuna.sampler = _sampler(self.search.preset.seed, len(self.trials()), self.place, count)
        return self._patiently(lambda: self.optuna.ask(distributions(self.search.space)))

    def enqueue(self, parameters: dict[str, Any], attributes: dict[str, Any]) -> None:
        """Add a waiting trial with these parameters; others that it lacks are proposed."""
        self._patiently(lambda: self.optuna.enqueue_trial(parameters, attributes))

    def note(self, trial: Trial, **attributes: Any) -> None:
        """Set user attributes of a trial; do nothing if another worker ended it meanwhile."""
        for name, value in attributes.items():
            with suppress(optuna.exceptions.UpdateFinishedTrialError):
                self._patiently(lambda name=name, value=value: trial.set_user_attr(name, value))

    def finish(self, trial: Trial | int, state: TrialState, value: float | None = None) -> None:
        """End a trial; do nothing if another worker ended it meanwhile."""

        def tell() -> None:
            try:
                self.optuna.tell(trial, value, state)
            except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
                number = trial if isinstance(trial, int) else trial.number
                if self.trials()[number].state == TrialState.RUNNING:
                    raise

        self._patiently(tell)

    def _patiently(self, call: Callable[[], Result]) -> Result:
        return patiently(self.place, call)


def open_study(search: Search, place: Place, side_by_side: int, reporter: Reporter = SILENT) -> Study:
    """Open the search's study, or create it with the preset's own settings as its first trial.

    ``side_by_side``: how many folds this worker trains at a time; that of the first worker decides. Raise NerveError if
    the folder is a run's, if the search was begun in another way, or if the storage cannot be used.
    """
    if not NAME.match(search.name):
        raise NerveError(
            f"--name {search.name!r} must be a plain name of letters, digits, '.', '_', '+' and '-'."
        )
    if is_run(search.folder):
        raise NerveError(f"{search.folder} is a run and no search; name another --name.")
    with wait_for_lock(search.folder / LOCK, "opens the search or takes a trial", reporter):
        path = search.folder / SEARCH
        stored = read_json(path) if path.is_file() else None
        if stored and stored["storage"] != place.name:
            raise NerveError(
                f"Search {search.name} was begun with --storage {stored['storage']}, not {place.name}; name the "
                "same, or another --name."
            )
        storage = place.open()
        study, shared = patiently(place, lambda: _create(search, storage, side_by_side))
        search.require_same(shared)
        write_json(path, {"storage": place.name, **shared})
    plan = search.plan(shared["side_by_side"])
    study.pruner = _pruner(search.pruner, plan)
    return Study(search, place, plan, study)


def _create(search: Search, storage: BaseStorage, side_by_side: int) -> tuple[optuna.Study, dict[str, Any]]:
    """Open or create the study; return it and the record of the search that it belongs to."""
    study = optuna.create_study(
        storage=storage, study_name=search.name, direction="maximize", load_if_exists=True
    )
    shared = study.user_attrs.get("search")
    if shared is None:
        shared = {**search.record(), "side_by_side": side_by_side}
        if (parameters := search.space.encode(search.preset)) is not None:
            study.enqueue_trial(parameters, {PRESET: True}, skip_if_exists=True)
        # Last: a study without it is begun once more.
        study.set_user_attr("search", shared)
    return study, shared


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """Return Optuna's distribution of each setting of ``space``."""
    return {key: _distribution(part) for key, part in space.parts.items()}


def _distribution(part: Range | Choices) -> BaseDistribution:
    if isinstance(part, Choices):
        return CategoricalDistribution(part.stored)
    if part.is_integer:
        return IntDistribution(int(part.low), int(part.high), log=part.log, step=int(part.step or 1))
    return FloatDistribution(part.low, part.high, log=part.log, step=part.step)


def _sampler(seed: int, number: int, place: Place, count: int) -> TPESampler:
    """Build the sampler of the trial ``number``.

    Workers that share a folder take trials one after the other, so their numbers differ; others differ by machine.
    """
    machine = 0 if place.is_shared else zlib.crc32(socket.gethostname().encode())
    state = np.random.SeedSequence([seed, number, machine]).generate_state(1)
    return TPESampler(
        n_startup_trials=min(UNIFORM, max(STARTUP, count // 3)),
        multivariate=True,
        constant_liar=True,
        seed=int(state[0]),
    )


def _pruner(name: str, plan: Plan) -> BasePruner:
    if name == "median":
        return MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=0)
    if name == "hyperband":
        first = max(1, round(COUNTS * plan.epochs) * plan.side_by_side)
        return HyperbandPruner(min_resource=min(first, plan.steps), max_resource=plan.steps)
    return NopPruner()
