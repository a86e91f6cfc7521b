"""A learned decision: `tune` saves it and `submit` applies it."""

from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kaggle_nerve.competition.facts import SMALLEST_MASK
from kaggle_nerve.decision import shape_prior
from kaggle_nerve.decision.calibration import Calibration, Reliability
from kaggle_nerve.decision.candidates import Learned
from kaggle_nerve.decision.figures import Figures, Row
from kaggle_nerve.decision.presence import Classifier
from kaggle_nerve.decision.review import Review, Surface
from kaggle_nerve.decision.rule import ExpectedDice, Rule, Thresholds
from kaggle_nerve.decision.shape_prior import ShapePrior
from kaggle_nerve.decision.shaping import PRIOR, SHAPES
from kaggle_nerve.errors import NerveError
from kaggle_nerve.prediction.stored import Blend
from kaggle_nerve.storage import digest_file, read_json, write_json, write_text

VERSION = 2

KEYS = {"raw": "given", "calibrated": "meant", "mean_mask": "prior"}
"""Keys of decision.json for the fields of `Calibration` and `Classifier` that have another name."""


class UnreadableDecisionError(NerveError):
    """The file decision.json is damaged, or of another version."""


@dataclass(frozen=True)
class Decision:
    """How to turn probabilities into masks, and the figures behind that choice.

    ``blend`` combines the runs. ``learned``: the rule, called ``rule_name``, and the classifier that pick each
    frame's cut. ``shape`` (of `SHAPES`) finishes the mask. ``comparison``: the rows of `figures.Row` for rules,
    shapes and blends. ``reliability``: for pixels and for presence, raw and with each calibration. ``source``:
    digest of the predictions that it was learned on. ``prior``: set if the shape needs one. ``user_choices``:
    the choices that the user made, as in `tune`. ``review``: areas, presence and Dice of each frame that the decision
    was learned on; None for files of earlier versions, or if the review beside the file is missing or that of
    another decision.
    """

    rule_name: str
    learned: Learned
    shape: str
    blend: Blend
    figures: Figures
    comparison: dict[str, tuple[Row, ...]]
    reliability: dict[str, dict[str, Reliability]]
    source: str
    prior: ShapePrior | None = None
    user_choices: dict[str, str] = field(default_factory=dict)
    review: Review | None = field(default=None, repr=False, compare=False)

    def save(self, path: Path) -> None:
        """Write the decision as JSON, atomically; first write its review and its shape prior beside it."""
        if self.prior is not None:
            self.prior.save(_prior_file(path))
        stored = self.as_dict()
        if self.review is not None:
            table = self.review.frames.round({"presence": 6, "dice": 6}).to_csv(index=False)
            write_text(_review_file(path), table)
            stored["review"] = {"sha256": digest_file(_review_file(path)), **self.review.surface.as_dict()}
        write_json(path, stored)

    def as_dict(self) -> dict[str, Any]:
        """Convert everything but the shape prior and the review to plain values for JSON."""
        rule = self.learned.rule
        rule_kind = next(name for name, rule_class in RULES.items() if isinstance(rule, rule_class))
        return {
            "version": VERSION,
            "name": self.rule_name,
            "rule": {"kind": rule_kind, **asdict(rule, dict_factory=_with_keys)},
            "shape": self.shape,
            "blend": asdict(self.blend),
            "figures": asdict(self.figures),
            "comparison": {kind: [asdict(row) for row in rows] for kind, rows in self.comparison.items()},
            "reliability": {
                kind: {method: asdict(reliability) for method, reliability in by_method.items()}
                for kind, by_method in self.reliability.items()
            },
            "source": self.source,
            "taken": self.user_choices,
            "classifier": self.learned.classifier
            and asdict(self.learned.classifier, dict_factory=_with_keys),
        }


@dataclass(frozen=True)
class DefaultDecision:
    """Decision to use when none could be learned: see `default_decision`."""

    learned: Learned
    rule_name: str = "default"
    shape: str = "none"
    blend: Blend = field(default_factory=Blend)
    prior: ShapePrior | None = None
    user_choices: dict[str, str] = field(default_factory=dict)


def default_decision(conditional: bool) -> DefaultDecision:
    """Build the default: pixels from probability 0.5, and no mask smaller than the smallest of the training data.

    ``conditional``: the maps are P(pixel | frame has a mask), so a mask also needs a presence of 0.5.
    """
    return DefaultDecision(Learned(Thresholds(0.5, SMALLEST_MASK, 0.5 if conditional else 0.0)))


RULES: dict[str, type] = {"thresholds": Thresholds, "expected": ExpectedDice}


def load(path: Path) -> Decision:
    """Read decision.json; raise UnreadableDecisionError if it is damaged or of another version."""
    try:
        return _read(read_json(path), path)
    except (KeyError, TypeError, ValueError, AttributeError, NerveError) as fault:
        raise UnreadableDecisionError(
            f"{path} is not a decision of this version ({str(fault).rstrip('.')})."
        ) from fault


def _read(stored: dict[str, Any], path: Path) -> Decision:
    if stored["version"] != VERSION:
        raise ValueError(f"version {stored['version']}")
    classifier = stored["classifier"] and Classifier(**_from_json(stored["classifier"]))
    steps = SHAPES[stored["shape"]]
    return Decision(
        stored["name"],
        Learned(_rule(stored["rule"]), classifier),
        stored["shape"],
        Blend(**_from_json(stored["blend"])),
        Figures(**stored["figures"]),
        {kind: tuple(Row(**row) for row in rows) for kind, rows in stored["comparison"].items()},
        {
            kind: {
                method: Reliability(**_from_json(reliability)) for method, reliability in by_method.items()
            }
            for kind, by_method in stored["reliability"].items()
        },
        stored["source"],
        shape_prior.load(_prior_file(path)) if PRIOR in steps else None,
        stored.get("taken", {}),
        _read_review(stored.get("review"), _review_file(path)),
    )


def _read_review(stored: dict[str, Any] | None, path: Path) -> Review | None:
    """Read the review; return None if it is missing, or if its digest differs (an interrupted save)."""
    if stored is None or not path.is_file() or digest_file(path) != stored["sha256"]:
        return None
    surface = Surface(np.array(stored["dice"]), tuple(stored["columns"]), stored["label"])
    return Review(pd.read_csv(path), surface)


def _rule(stored: dict[str, Any]) -> Rule:
    values = dict(stored)
    rule = RULES[values.pop("kind")]
    for item in fields(rule):
        if isinstance(values[item.name], dict):
            values[item.name] = Calibration(**_from_json(values[item.name]))
    return rule(**values)


def _with_keys(items: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dict of a dataclass's items, with the keys of decision.json."""
    return {KEYS.get(name, name): value for name, value in items}


def _from_json(values: dict[str, Any]) -> dict[str, Any]:
    """Convert keys to the names of fields, and lists at any depth to tuples: JSON has only lists, and frozen
    dataclasses hold tuples.
    """
    names = {key: name for name, key in KEYS.items()}

    def to_tuple(value: Any) -> Any:
        return tuple(map(to_tuple, value)) if isinstance(value, list) else value

    return {names.get(key, key): to_tuple(value) for key, value in values.items()}


def _review_file(path: Path) -> Path:
    return path.with_name("frames.csv")


def _prior_file(path: Path) -> Path:
    return path.with_name("shape-prior.npz")
