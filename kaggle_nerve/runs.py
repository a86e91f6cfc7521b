"""A run's folder: where each stage leaves its work and finds that of the stage before."""

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kaggle_nerve.errors import NerveError
from kaggle_nerve.settings import Settings, load_settings, save_settings
from kaggle_nerve.settings.schema import ALL, COMBINE, TTA, FoldName
from kaggle_nerve.storage import completed, completed_facts, read_json, write_json

NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,80}$")


@dataclass(frozen=True)
class Run:
    """A run: its folder and settings. Made by `create`, found again by `open_run`.

    ``views``: empty, or, as in ``small@flips``, what stands after the ``@``: the same models predict with
    other views. Then ``settings.prediction`` says how, and the predictions lie apart from the run's own.
    """

    folder: Path
    settings: Settings
    views: str = ""

    @property
    def name(self) -> str:
        """The folder's name, and after an ``@`` the views."""
        return f"{self.folder.name}@{self.views}" if self.views else self.folder.name

    @property
    def folds_csv(self) -> Path:
        """Which subject is held out in which fold."""
        return self.folder / "folds.csv"

    @property
    def test_folder(self) -> Path:
        """Where the test probabilities lie."""
        return self.views_folder / "test"

    @property
    def decision_file(self) -> Path:
        """The learned rule and the figures it was chosen on."""
        return self.views_folder / "decision.json"

    @property
    def views_folder(self) -> Path:
        """Where all that depends on the views lies: the run's folder, or one inside it."""
        return self.folder / f"tta-{self.views}" if self.views else self.folder

    def fold_folder(self, fold: FoldName) -> Path:
        """Where fold ``fold`` (a number, or `schema.ALL`) leaves its model and history."""
        return self.folder / f"fold-{fold}"

    def oof_folder(self, fold: int) -> Path:
        """Where the out-of-fold predictions of fold ``fold`` lie: beside its model, or with other views apart."""
        return self.views_folder / f"fold-{fold}"

    def finished_folds(self) -> list[int]:
        """The numbers of the folds that are complete, rising."""
        found = (re.fullmatch(r"fold-(\d+)", path.name) for path in self.folder.iterdir())
        numbers = sorted(int(match[1]) for match in found if match)
        return [number for number in numbers if completed(self.fold_folder(number))]

    def needs_finished_folds(self) -> list[int]:
        """As `finished_folds`; NerveError where there is none."""
        folds = self.finished_folds()
        if not folds:
            raise NerveError(f"Run {self.name} has no finished fold; run `kaggle-nerve train-folds` first.")
        return folds

    def test_folds(self) -> list[FoldName]:
        """Whose models predict test frames: `finished_folds`, then the fold of all subjects if it is finished."""
        with_all = completed(self.fold_folder(ALL)) is not None
        return [*self.finished_folds(), ALL] if with_all else [*self.finished_folds()]

    def models(self) -> list[str]:
        """What tells the models of `test_folds` from others: of each the fold's number and the file's digest.

        The digest is left out where an earlier version finished the fold.
        """
        folds = self.test_folds()
        return [
            f"{fold} {completed_facts(self.fold_folder(fold)).get('model', '')}".strip() for fold in folds
        ]


def create(runs_dir: Path, name: str, settings: Settings, environment: dict[str, Any], source: str) -> Run:
    """The run ``name``, made or found again.

    ``source`` is the digest of the training data. A run that was made with other settings or from
    other data is left alone: NerveError names the first difference.
    """
    if not NAME.match(name):
        raise NerveError(f"--run {name!r} must be a plain name of letters, digits, '.', '_', '+' and '-'.")
    run = Run(runs_dir / name, settings)
    if (run.folder / "settings.toml").is_file():
        _refuse_difference(run, source)
    else:
        save_settings(settings, run.folder / "settings.toml")
    # Written anew at each start: it tells of the latest session, and carries the data's digest along.
    write_json(run.folder / "environment.json", {"source": source, **environment})
    return run


def open_run(runs_dir: Path, name: str) -> Run:
    """The existing run ``name``; NerveError names those there are.

    ``small@flips`` is run ``small`` predicting with other views (`PredictionSettings.tta`), and
    ``small@flips-logits`` with these combined in another way; NerveError names the known ones. Where this
    is what the run does anyway, it is the run itself.
    """
    plain, at, views = name.partition("@")
    folder = runs_dir / plain
    if not NAME.match(plain) or not (folder / "settings.toml").is_file():
        there = sorted(path.parent.name for path in runs_dir.glob("*/settings.toml"))
        hint = f"there are {', '.join(there)}" if there else "there are none yet: `kaggle-nerve train-folds`"
        raise NerveError(f"No run is called {plain!r} in {runs_dir}; {hint}.")
    run = Run(folder, load_settings(folder / "settings.toml"))
    return _with_views(run, views) if at else run


def joined_name(runs: list[Run]) -> str:
    """The runs' names in one, for files and messages."""
    return "+".join(run.name for run in runs)


def _with_views(run: Run, views: str) -> Run:
    own = run.settings.prediction
    tta, dash, combine = views.partition("-")
    combine = combine if dash else own.combine
    if tta not in TTA or combine not in COMBINE:
        raise NerveError(
            f"There are no views {views!r} for run {run.name}@{views}: known are {', '.join(TTA)}, each alone or "
            f"followed by one of -{', -'.join(COMBINE)}."
        )
    prediction = dataclasses.replace(own, tta=tta, combine=combine)
    if prediction == own:
        return run
    # One spelling for one thing, or it would be predicted twice.
    views = tta if combine == own.combine else f"{tta}-{combine}"
    return Run(run.folder, dataclasses.replace(run.settings, prediction=prediction), views)


def _refuse_difference(run: Run, source: str) -> None:
    if found := run.settings.difference(load_settings(run.folder / "settings.toml")):
        key, wanted, stored = found
        raise NerveError(
            f"Run {run.name} was made with {key} = {stored!r}, not {wanted!r}; "
            f"use the same settings to go on with it, or another --run for another run."
        )
    environment = run.folder / "environment.json"
    if environment.is_file() and read_json(environment).get("source") != source:
        raise NerveError(
            f"Run {run.name} was made from other training data; use another --run for this data."
        )
