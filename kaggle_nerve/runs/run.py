"""A run and its folds as folders: the only module that knows their file names."""

import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kaggle_nerve.errors import NerveError
from kaggle_nerve.locks import hold_lock
from kaggle_nerve.runs.facts import (
    FIGURES,
    FoldFacts,
    FoldResult,
    OofFacts,
    Progress,
    TestFacts,
    facts_to_json,
    read_facts,
)
from kaggle_nerve.settings import Settings
from kaggle_nerve.settings.schema import ALL, FoldName
from kaggle_nerve.storage import mark_complete, read_completion, read_json, reopen

SETTINGS = "settings.toml"
"""File that marks a folder as a run's."""

SEARCH = "search.json"
"""File that marks a folder as a search's."""

ENVIRONMENT = "environment.json"
DECISION = "decision.json"
LOCK = ".lock"
HISTORY = "history.csv"
"""History of a stage's epochs: in the fold's folder, and in its sub-folder `WARM`."""

WARM = "warm"
"""Sub-folder of a fold's warm stage: the first one, at the smaller ``training.warm_size``."""

CHECKPOINT = "checkpoint"
STATE = "state.json"
"""Checkpoint's pointer."""


@dataclass(frozen=True)
class Run:
    """A run: its folder and settings. Use `create` or `open_run` to get one.

    ``views``: empty, or the part after the ``@`` of a name such as ``small@flips``: the same models with another
    test-time augmentation, given by ``settings.prediction``. Their predictions are stored apart from the run's own.
    """

    folder: Path
    settings: Settings
    views: str = ""

    @property
    def name(self) -> str:
        """The folder's name, and after an ``@`` the views if there are any."""
        return f"{self.folder.name}@{self.views}" if self.views else self.folder.name

    @property
    def settings_file(self) -> Path:
        """File with the run's settings."""
        return self.folder / SETTINGS

    @property
    def folds_csv(self) -> Path:
        """Table of the fold in which each subject is held out."""
        return self.folder / "folds.csv"

    @property
    def environment(self) -> Path:
        """Hardware and software of the latest session, and the digest of the training data, as JSON."""
        return self.folder / ENVIRONMENT

    @property
    def test_folder(self) -> Path:
        """Folder of the test probabilities."""
        return self.views_folder / "test"

    @property
    def test_table(self) -> Path:
        """Table of the test frames, with their presence."""
        return self.test_folder / "index.csv"

    def test_array(self, name: str) -> Path:
        """Return the path of an array of the test predictions, such as ``probabilities``, one row per frame."""
        return self.test_folder / f"{name}.npy"

    @property
    def decision_file(self) -> Path:
        """File with the learned decision and its figures."""
        return self.views_folder / DECISION

    @property
    def report_file(self) -> Path:
        """The run's HTML report."""
        return self.views_folder / "report.html"

    @property
    def views_folder(self) -> Path:
        """Folder of everything that depends on the views: the run's own, or one inside it."""
        return self.folder / f"tta-{self.views}" if self.views else self.folder

    def session(self) -> dict[str, Any]:
        """Read the latest session's versions, devices and ``source`` (the data's digest). Empty if unknown."""
        return read_json(self.environment) if self.environment.is_file() else {}

    def fold(self, number: FoldName) -> "Fold":
        """Return the fold ``number``, finished or not."""
        return Fold(self, number)

    def begun_folds(self) -> list["Fold"]:
        """List the folds that have a folder, by number, the fold of all subjects last."""
        matches = (re.fullmatch(r"fold-(\d+)", path.name) for path in self.folder.iterdir())
        folds = [self.fold(number) for number in sorted(int(match[1]) for match in matches if match)]
        all_subjects = self.fold(ALL)
        return [*folds, *([all_subjects] if all_subjects.folder.is_dir() else [])]

    def finished_folds(self) -> list["Fold"]:
        """List the finished folds with held-out subjects, by number."""
        return [fold for fold in self.begun_folds() if fold.number != ALL and fold.facts()]

    def require_finished_folds(self) -> list["Fold"]:
        """List the `finished_folds`; raise NerveError if there are none."""
        folds = self.finished_folds()
        if not folds:
            raise NerveError(f"Run {self.name} has no finished fold; run `kaggle-nerve train-folds` first.")
        return folds

    def test_folds(self) -> list["Fold"]:
        """List the folds whose models predict test frames: the finished ones, the fold of all subjects last."""
        all_subjects = self.fold(ALL)
        return [*self.finished_folds(), *([all_subjects] if all_subjects.facts() else [])]

    def missing_folds(self) -> list[FoldName]:
        """List the folds of the settings that are not finished, the fold of all subjects last."""
        return [number for number in self.settings.fold_names if not self.fold(number).facts()]

    def models(self) -> list[str]:
        """Identify the model of each of `test_folds`: fold number and file digest.

        The digest is omitted if an earlier version finished the fold.
        """
        return [f"{fold.number} {fold.require_facts().model}".strip() for fold in self.test_folds()]

    def test_facts(self) -> TestFacts | None:
        """Read the inputs of the test predictions; None while they are unfinished, or if they are not recorded."""
        stored = read_completion(self.test_folder)
        if not stored or not {"key", "source", "folds"} <= stored.keys():
            return None
        # An early version recorded the folds' numbers only, not their models.
        return read_facts(TestFacts, {"models": [str(fold) for fold in stored["folds"]], **stored})

    def finish_test(self, facts: TestFacts) -> None:
        """Mark the test predictions as finished."""
        mark_complete(self.test_folder, facts_to_json(facts))

    def reopen_test(self) -> None:
        """Mark the test predictions as unfinished."""
        reopen(self.test_folder)


@dataclass(frozen=True)
class Fold:
    """A fold of a run: its files and its status. ``number`` is `ALL` for the fold without held-out subjects."""

    run: Run
    number: FoldName

    @property
    def label(self) -> str:
        """Name of the fold in progress bars and messages."""
        return f"Fold {self.number}"

    @property
    def folder(self) -> Path:
        """The fold's folder."""
        return self.run.folder / f"fold-{self.number}"

    @property
    def model(self) -> Path:
        """The trained network."""
        return self.folder / "model.keras"

    @property
    def history(self) -> Path:
        """CSV file with a row for each epoch."""
        return self.folder / HISTORY

    @property
    def environment(self) -> Path:
        """Hardware and software of the fold's latest session, as JSON."""
        return self.folder / ENVIRONMENT

    @property
    def log(self) -> Path:
        """Log of the worker process that trained the fold, if there was one."""
        return self.folder / "worker.log"

    @property
    def oof_folder(self) -> Path:
        """Folder of the out-of-fold predictions: beside the model, or apart for other views."""
        return self.run.views_folder / self.folder.name

    @property
    def oof_maps(self) -> Path:
        """Out-of-fold probability maps, float16 (n, height, width)."""
        return self.oof_folder / "oof.npy"

    @property
    def oof_table(self) -> Path:
        """Table of the frames of the out-of-fold maps, with their presence."""
        return self.oof_folder / "oof.csv"

    def facts(self) -> FoldFacts | None:
        """Read the facts of the finished fold; None while it is unfinished."""
        facts = read_completion(self.folder)
        return read_facts(FoldFacts, facts) if facts else None

    def require_facts(self) -> FoldFacts:
        """Read the `facts`; raise NerveError for an unfinished fold."""
        facts = self.facts()
        if facts is None:
            raise NerveError(
                f"Fold {self.number} of run {self.run.name} is not finished; `kaggle-nerve train-folds` goes on."
            )
        return facts

    def finish(self, facts: FoldFacts) -> None:
        """Mark the fold as finished."""
        mark_complete(self.folder, facts_to_json(facts))

    def progress(self) -> Progress | None:
        """Read the progress from the fold's checkpoint; None without a checkpoint."""
        state = read_state(self.folder)
        return read_facts(Progress, state) if state else None

    def result(self) -> FoldResult:
        """Return the status of the fold, finished or not."""
        if facts := self.facts():
            figures = {name: getattr(facts, name) for name in FIGURES}
            best = facts.best_epoch, facts.best_dice
            return FoldResult(self.number, True, facts.epochs, *best, facts.average, **figures)
        state, average = self.progress() or Progress(), self.run.settings.training.average
        return FoldResult(
            self.number, False, state.epoch, state.best_epoch, max(0.0, state.best_dice), average
        )

    def lock(self) -> AbstractContextManager[None]:
        """Lock the fold against training by other processes; raise NerveError if one trains it already."""
        who = f"fold {self.number} of run {self.run.name}"
        return hold_lock(
            self.folder / LOCK, f"Another process trains {who}; wait for it, or name another --fold."
        )

    def oof_facts(self) -> OofFacts | None:
        """Read the inputs of the out-of-fold predictions; None while they are unfinished."""
        facts = read_completion(self.oof_folder)
        return read_facts(OofFacts, facts) if facts else None

    def require_oof_facts(self) -> OofFacts:
        """Read the `oof_facts`; raise NerveError if the predictions are unfinished."""
        facts = self.oof_facts()
        if facts is None:
            raise NerveError(
                f"Run {self.run.name} has no out-of-fold predictions of fold {self.number}; run `kaggle-nerve "
                f"predict --run {self.run.name}`."
            )
        return facts

    def finish_oof(self, facts: OofFacts) -> None:
        """Mark predictions with other views as finished."""
        mark_complete(self.oof_folder, facts_to_json(facts))

    def reopen_oof(self) -> None:
        """Mark predictions with other views as unfinished."""
        reopen(self.oof_folder)


def is_run(folder: Path) -> bool:
    """Return whether ``folder`` is a run's."""
    return (folder / SETTINGS).is_file()


def state_file(folder: Path) -> Path:
    """Return the path of the checkpoint's state file for the stage trained in ``folder``."""
    return folder / CHECKPOINT / STATE


def read_state(folder: Path) -> dict[str, Any] | None:
    """Read the checkpoint's state of the stage trained in ``folder``; None without a checkpoint.

    Raise ValueError if the file is damaged.
    """
    path = state_file(folder)
    return read_json(path) if path.is_file() else None


def is_begun(folder: Path) -> bool:
    """Return whether the fold in ``folder`` has a checkpoint or a finished first stage."""
    stages = folder, folder / WARM
    return any(state_file(stage).is_file() for stage in stages) or read_completion(folder / WARM) is not None
