"""Contents of complete.json and state.json in a run's folder, as dataclasses."""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Protocol, TypeVar

from kaggle_nerve.settings.schema import ALL, FoldName

FIGURES = ("dice", "pixel_dice", "iou", "pixel_accuracy")
"""Score of a finished fold: fields of an epoch's score."""


@dataclass(frozen=True)
class OofFacts:
    """Inputs of a fold's out-of-fold predictions: digests of the training data, settings and model file.

    Folds finished by an early version have no digest of the model.
    """

    source: str = ""
    settings: str = ""
    model: str = ""


@dataclass(frozen=True)
class FoldFacts:
    """Inputs of a finished fold (see `OofFacts`), and the result of its training.

    ``dice`` to ``pixel_accuracy`` are the final model's score on the held-out subjects; None if unknown, as for the
    fold without held-out subjects. ``best_dice`` was the best epoch's.
    """

    source: str = ""
    settings: str = ""
    model: str = ""
    epochs: int = 0
    best_epoch: int = 0
    best_dice: float = -1.0
    average: str = "best"
    dice: float | None = None
    pixel_dice: float | None = None
    iou: float | None = None
    pixel_accuracy: float | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class TestFacts:
    """Inputs of the test predictions. ``key``: digest of everything; ``folds``: the models' folds; ``models``: the
    models, as identified by `Run.models`; ``frames``: number of frames.
    """

    __test__ = False  # pytest would collect a class of this name

    key: str
    source: str
    folds: list[FoldName]
    models: list[str]
    frames: int = 0


@dataclass(frozen=True)
class Progress:
    """Progress of an unfinished fold's checkpoint. ``precision``: the dtype policy of its network."""

    epoch: int = 0
    best_epoch: int = 0
    best_dice: float = -1.0
    precision: str = "float32"


@dataclass(frozen=True)
class FoldResult:
    """Status of a fold: finished, or stopped after ``epochs`` epochs. ``fold``: its number, or `ALL`.

    The figures are those of `FoldFacts`; all are None while the fold is unfinished.
    """

    fold: FoldName
    finished: bool
    epochs: int
    best_epoch: int
    best_dice: float
    average: str
    dice: float | None = None
    pixel_dice: float | None = None
    iou: float | None = None
    pixel_accuracy: float | None = None

    @property
    def sentence(self) -> str:
        """The status in a sentence."""
        if not self.finished:
            best = f"; the best so far has {self.best_dice:.4f}" if self.best_epoch else ""
            return f"Fold {self.fold} stopped after {self.epochs} epochs{best}"
        if self.fold == ALL:
            return f"Fold {ALL} finished after {self.epochs} epochs; it holds nobody out, so it has no score of its own"
        best = self.average == "best"
        weights = f"epoch {self.best_epoch}" if best else self.average
        return (
            f"Fold {self.fold} finished after {self.epochs} epochs: {'best ' * best}mean Dice on its held-out "
            f"subjects {self.dice:.4f} ({weights}); over all pixels Dice {self.pixel_dice:.4f}, IoU {self.iou:.4f}, "
            f"accuracy {self.pixel_accuracy:.4f}"
        )


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


Facts = TypeVar("Facts", bound=_Dataclass)


def read_facts(kind: type[Facts], stored: dict[str, Any]) -> Facts:
    """Build a ``kind`` from ``stored``; ignore unknown keys, and use the default for missing ones."""
    return kind(**{item.name: stored[item.name] for item in fields(kind) if item.name in stored})


def facts_to_json(facts: _Dataclass) -> dict[str, Any]:
    """Convert facts to a dictionary for JSON, without None and non-finite numbers; `read_facts` reads it."""
    return {
        key: value
        for key, value in asdict(facts).items()
        if value is not None and not (isinstance(value, float) and not math.isfinite(value))
    }
