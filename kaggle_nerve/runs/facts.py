"""What a run's folder says of its work, as values: the contents of complete.json and state.json."""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Protocol, TypeVar

from kaggle_nerve.settings.schema import ALL, FoldName

FIGURES = ("dice", "pixel_dice", "iou", "pixel_accuracy")
"""The score of a finished fold: fields of an epoch's score."""


@dataclass(frozen=True)
class OofFacts:
    """What a fold's out-of-fold predictions were made from: digests of the training data, settings and model file.

    Folds that an early version finished have no digest of the model.
    """

    source: str = ""
    settings: str = ""
    model: str = ""


@dataclass(frozen=True)
class FoldFacts:
    """What a finished fold was made from (see `OofFacts`), and how its training ended.

    ``dice`` and what follows are the final model's score on the held-out subjects; None where it is not known, as
    for the fold that holds nobody out. ``best_dice`` was the best epoch's.
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
    """What the test predictions were made from. ``key``: digest of everything; ``folds``: whose models; ``models``:
    these models, as `Run.models` identifies them; ``frames``: how many.
    """

    __test__ = False  # pytest takes a class of this name for tests

    key: str
    source: str
    folds: list[FoldName]
    models: list[str]
    frames: int = 0


@dataclass(frozen=True)
class Progress:
    """How far an unfinished fold's checkpoint is. ``precision``: the dtype policy that its network was built under."""

    epoch: int = 0
    best_epoch: int = 0
    best_dice: float = -1.0
    precision: str = "float32"


@dataclass(frozen=True)
class FoldResult:
    """How far a fold is: finished, or stopped after ``epochs`` epochs. ``fold``: its number, or `ALL`.

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
        """The same in a sentence."""
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
    """``stored`` as a ``kind``; keys of other versions are ignored, and a missing key leaves the default."""
    return kind(**{item.name: stored[item.name] for item in fields(kind) if item.name in stored})


def stored_facts(facts: _Dataclass) -> dict[str, Any]:
    """What `read_facts` reads, ready for JSON: without what is None or no finite number."""
    return {
        key: value
        for key, value in asdict(facts).items()
        if value is not None and not (isinstance(value, float) and not math.isfinite(value))
    }
