"""A run and its folds as folders: the only place that knows the names of their files."""

import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kaggle_nerve.errors import NerveError
from kaggle_nerve.runs.facts import (
    FIGURES,
    FoldFacts,
    FoldResult,
    OofFacts,
    Progress,
    TestFacts,
    read_facts,
    stored_facts,
)
from kaggle_nerve.settings import Settings
from kaggle_nerve.settings.schema import ALL, FoldName
from kaggle_nerve.storage import completed, locked, mark_complete, read_json, reopen

SETTINGS = "settings.toml"
"""The file that makes a folder a run's."""

ENVIRONMENT = "environment.json"
DECISION = "decision.json"
LOCK = ".lock"
HISTORY = "history.csv"
"""A stage's epochs: in the fold's folder, and in its sub-folder `WARM`."""

WARM = "warm"
CHECKPOINT = "checkpoint"
_STATE = "state.json"


@dataclass(frozen=True)
class Run:
    """A run: its folder and settings. `create` makes it, `open_run` opens it.

    ``views``: empty, or what stands after the ``@`` of a name such as ``small@flips``: the same models predict
    with other views. Then ``settings.prediction`` says how, and the predictions lie apart from the run's own.
    """

    folder: Path
    settings: Settings
    views: str = ""

    @property
    def name(self) -> str:
        """The folder's name, and after an ``@`` the views."""
        return f"{self.folder.name}@{self.views}" if self.views else self.folder.name

    @property
    def settings_file(self) -> Path:
        """The settings that the run was made with."""
        return self.folder / SETTINGS

    @property
    def folds_csv(self) -> Path:
        """Which subject is held out in which fold."""
        return self.folder / "folds.csv"

    @property
    def environment(self) -> Path:
        """What the latest session ran on, and the digest of the training data, as JSON."""
        return self.folder / ENVIRONMENT

    @property
    def test_folder(self) -> Path:
        """The test probabilities."""
        return self.views_folder / "test"

    @property
    def test_table(self) -> Path:
        """The test frames, with their presence."""
        return self.test_folder / "index.csv"

    def test_array(self, name: str) -> Path:
        """An array of the test predictions, with a row for each frame: ``probabilities``, ``levels`` and others."""
        return self.test_folder / f"{name}.npy"

    @property
    def decision_file(self) -> Path:
        """The learned rule and the figures it was chosen on."""
        return self.views_folder / DECISION

    @property
    def report_file(self) -> Path:
        """The run's page."""
        return self.views_folder / "report.html"

    @property
    def views_folder(self) -> Path:
        """What depends on the views: the run's folder, or one inside it."""
        return self.folder / f"tta-{self.views}" if self.views else self.folder

    def session(self) -> dict[str, Any]:
        """What the latest session ran on: versions, devices, ``source`` (the data's digest). Empty if unknown."""
        return read_json(self.environment) if self.environment.is_file() else {}

    def fold(self, number: FoldName) -> "Fold":
        """The fold ``number``, finished or not."""
        return Fold(self, number)

    def begun_folds(self) -> list["Fold"]:
        """The folds that have a folder, by number, the fold of all subjects last."""
        matches = (re.fullmatch(r"fold-(\d+)", path.name) for path in self.folder.iterdir())
        folds = [self.fold(number) for number in sorted(int(match[1]) for match in matches if match)]
        every = self.fold(ALL)
        return [*folds, *([every] if every.folder.is_dir() else [])]

    def finished_folds(self) -> list["Fold"]:
        """The finished folds that hold somebody out, by number."""
        return [fold for fold in self.begun_folds() if fold.number != ALL and fold.facts()]

    def needs_finished_folds(self) -> list["Fold"]:
        """As `finished_folds`; NerveError where there is none."""
        folds = self.finished_folds()
        if not folds:
            raise NerveError(f"Run {self.name} has no finished fold; run `kaggle-nerve train-folds` first.")
        return folds

    def test_folds(self) -> list["Fold"]:
        """The folds whose models predict test frames: `finished_folds`, then the fold of all subjects if finished."""
        every = self.fold(ALL)
        return [*self.finished_folds(), *([every] if every.facts() else [])]

    def models(self) -> list[str]:
        """Identify the model of each of `test_folds`: fold number and file digest.

        The digest is left out where an earlier version finished the fold.
        """
        return [f"{fold.number} {fold.needs_facts().model}".strip() for fold in self.test_folds()]

    def test_facts(self) -> TestFacts | None:
        """What the test predictions were made from; None while they are unfinished."""
        stored = completed(self.test_folder)
        if not stored:
            return None
        # An early version did not say which models; it knew the folds' numbers alone.
        return read_facts(TestFacts, {"models": [str(fold) for fold in stored["folds"]], **stored})

    def finish_test(self, facts: TestFacts) -> None:
        """Mark the test predictions as finished."""
        mark_complete(self.test_folder, stored_facts(facts))

    def reopen_test(self) -> None:
        """Mark the test predictions as unfinished."""
        reopen(self.test_folder)


@dataclass(frozen=True)
class Fold:
    """A fold of a run: its files, and how far it is. ``number`` is `ALL` for the fold that holds nobody out."""

    run: Run
    number: FoldName

    @property
    def label(self) -> str:
        """What bars and messages call it."""
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
        """A row for each epoch."""
        return self.folder / HISTORY

    @property
    def environment(self) -> Path:
        """What the latest session of this fold ran on, as JSON."""
        return self.folder / ENVIRONMENT

    @property
    def log(self) -> Path:
        """What the process wrote that trained the fold, if it had one of its own."""
        return self.folder / "worker.log"

    @property
    def oof_folder(self) -> Path:
        """The out-of-fold predictions: beside the model, or with other views apart."""
        return self.run.views_folder / self.folder.name

    @property
    def oof_maps(self) -> Path:
        """The out-of-fold maps, float16 (n, height, width)."""
        return self.oof_folder / "oof.npy"

    @property
    def oof_table(self) -> Path:
        """The frames of the out-of-fold maps, with their presence."""
        return self.oof_folder / "oof.csv"

    def facts(self) -> FoldFacts | None:
        """The facts of the finished fold; None while it is unfinished."""
        facts = completed(self.folder)
        return read_facts(FoldFacts, facts) if facts else None

    def needs_facts(self) -> FoldFacts:
        """As `facts`; NerveError for an unfinished fold."""
        facts = self.facts()
        if facts is None:
            raise NerveError(
                f"Fold {self.number} of run {self.run.name} is not finished; `kaggle-nerve train-folds` goes on."
            )
        return facts

    def finish(self, facts: FoldFacts) -> None:
        """Mark the fold as finished."""
        mark_complete(self.folder, stored_facts(facts))

    def progress(self) -> Progress | None:
        """How far the fold's checkpoint is; None without a checkpoint."""
        state = stored_state(self.folder)
        return read_facts(Progress, state) if state else None

    def result(self) -> FoldResult:
        """How far the fold is, finished or not."""
        if facts := self.facts():
            figures = {name: getattr(facts, name) for name in FIGURES}
            best = facts.best_epoch, facts.best_dice
            return FoldResult(self.number, True, facts.epochs, *best, facts.average, **figures)
        state, average = self.progress() or Progress(), self.run.settings.training.average
        return FoldResult(
            self.number, False, state.epoch, state.best_epoch, max(0.0, state.best_dice), average
        )

    def locked(self) -> AbstractContextManager[None]:
        """Keep other processes from training the fold; NerveError where one does so already."""
        who = f"fold {self.number} of run {self.run.name}"
        return locked(
            self.folder / LOCK, f"Another process trains {who}; wait for it, or name another --fold."
        )

    def oof_facts(self) -> OofFacts | None:
        """What the out-of-fold predictions were made from; None while they are unfinished."""
        facts = completed(self.oof_folder)
        return read_facts(OofFacts, facts) if facts else None

    def needs_oof_facts(self) -> OofFacts:
        """As `oof_facts`; NerveError where the predictions are unfinished."""
        facts = self.oof_facts()
        if facts is None:
            raise NerveError(
                f"Run {self.run.name} has no out-of-fold predictions of fold {self.number}; run `kaggle-nerve "
                f"predict --run {self.run.name}`."
            )
        return facts

    def finish_oof(self, facts: OofFacts) -> None:
        """Mark predictions with other views as finished."""
        mark_complete(self.oof_folder, stored_facts(facts))

    def reopen_oof(self) -> None:
        """Mark predictions with other views as unfinished."""
        reopen(self.oof_folder)


def is_run(folder: Path) -> bool:
    """Whether ``folder`` is a run's."""
    return (folder / SETTINGS).is_file()


def state_file(folder: Path) -> Path:
    """The pointer of the checkpoint of a stage that is trained in ``folder``."""
    return folder / CHECKPOINT / _STATE


def stored_state(folder: Path) -> dict[str, Any] | None:
    """The checkpoint's state of the stage that is trained in ``folder``; None without a checkpoint.

    ValueError where the file is damaged.
    """
    path = state_file(folder)
    return read_json(path) if path.is_file() else None


def is_begun(folder: Path) -> bool:
    """Whether the fold in ``folder`` has a checkpoint, or a finished first stage."""
    stages = folder, folder / WARM
    return any(state_file(stage).is_file() for stage in stages) or completed(folder / WARM) is not None
