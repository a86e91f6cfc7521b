"""A search without networks: runs that a formula scores, and studies of hand-made trials."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, TrialState, create_trial

from kaggle_nerve.errors import NerveError
from kaggle_nerve.progress import SILENT, Reporter
from kaggle_nerve.runs import Run
from kaggle_nerve.search.space import parse_space
from kaggle_nerve.search.storage import parse_place
from kaggle_nerve.search.study import Search, Study, open_study
from kaggle_nerve.search.trial import Trainer
from kaggle_nerve.settings import Settings, apply_changes, load_preset, save_settings
from kaggle_nerve.storage import write_text

SPACE = """
optimiser.learning_rate = {low = 1e-4, high = 1e-1, log = true}
training.batch = [8, 16, 32]
"""


def settings(*changes: str) -> Settings:
    return apply_changes(load_preset("tiny"), ("folds=2", "training.epochs=4", *changes))


def search(folder: Path, space: str = SPACE, **changes: Any) -> Search:
    """A search of preset tiny in ``folder``."""
    values = {
        "preset": settings(),
        "folds": "2",
        "objective": "dice",
        "pruner": "none",
        "source": "made",
    } | changes
    return Search(folder.parent, folder.name, space=parse_space(space, "mine.toml"), **values)


def study(folder: Path, storage: str = "sqlite", **changes: Any) -> Study:
    """The open study of `search`."""
    return open_study(search(folder, **changes), parse_place(storage, folder), side_by_side=1)


class FakeTrainer(Trainer):
    """Writes the histories of two folds, and scores settings by their learning rate: the nearer to 1e-2, the
    better. ``epoch(run, number)`` is called before each epoch.
    """

    def __init__(
        self,
        reporter: Reporter = SILENT,
        stop: Callable[[], bool] = lambda: False,
        epoch: Callable[[Run, int], None] = lambda run, number: None,
    ):
        super().__init__(Path(), lambda *_, **__: None, reporter, stop)  # pyright: ignore[reportArgumentType]
        object.__setattr__(self, "epoch", epoch)
        object.__setattr__(self, "trained", [])

    def train_run(
        self, runs_dir: Path, name: str, settings: Settings, stop: Callable[[], bool]
    ) -> tuple[Run, bool]:
        run = Run(runs_dir / name, settings)
        save_settings(settings, run.settings_file)
        self.trained.append(name)
        for fold in (run.fold(0), run.fold(1)):
            rows = fold.history.read_text().splitlines() if fold.history.is_file() else ["epoch,dice"]
            for number in range(len(rows), settings.training.epochs + 1):
                self.epoch(run, number)
                rows.append(f"{number},{score(settings) * number / settings.training.epochs}")
                write_text(fold.history, "\n".join(rows))
                if stop():
                    return run, False
            write_text(fold.model, "a model")
            write_text(fold.log, "a log")
        return run, True

    def figures(self, run: Run) -> dict[str, Any]:
        value = round(score(run.settings) - 0.01 * run.settings.seed, 6)
        return {
            "dice": value,
            "low": value - 0.02,
            "high": value + 0.02,
            "all_empty": 0.6,
            "present_dice": value - 0.2,
            "kept_present_dice": value - 0.1,
            "presence_auc": 0.9,
        }

    def origin(self) -> str:
        return "The data is made up."


def score(settings: Settings) -> float:
    return round(0.9 - abs(settings.optimiser.learning_rate - 1e-2), 6)


def fail(run: Run, number: int) -> None:
    raise NerveError(f"Fold 0: The loss became nan in epoch {number}; train another run.")


def trial(number: int, state: str, value: float | None = None, **attributes: Any) -> FrozenTrial:
    """A trial as a storage has it, without parameters."""
    made = create_trial(state=TrialState[state], value=value, user_attrs=attributes)
    made.number = number
    return made


def old() -> float:
    """A sign of life from an hour ago."""
    return time.time() - 3600
