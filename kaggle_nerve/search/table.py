"""The trials of a search as a table and a sentence."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from kaggle_nerve.search import claims
from kaggle_nerve.search.objectives import OBJECTIVES
from kaggle_nerve.search.study import PRESET, Search
from kaggle_nerve.search.trial import ERROR, FIGURES, fault

STATES = {TrialState.COMPLETE: "finished", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
"""Names of the states of ended trials, in the order of the table."""

LONGEST = 20
"""Largest number of trials to print."""


@dataclass(frozen=True)
class Row:
    """A trial. ``number``: that of its run; ``state``: of `STATES`; ``value``: the objective, for a pruned trial the
    score that it was pruned at, None for a failed one.

    ``figures``: as in `objectives.SHOWN`, empty unless finished. ``values``: each searched setting. ``error``: why it
    failed, or ''.
    """

    number: int
    state: str
    value: float | None
    figures: dict[str, Any]
    values: dict[str, Any]
    error: str
    is_preset: bool


@dataclass(frozen=True)
class Outcome:
    """The end of a search. ``rows``: finished trials from the best to the worst, then pruned and failed ones.

    ``again``: figures of the best trial's settings, trained with another seed.
    """

    search: Search
    rows: list[Row]
    again: dict[str, Any]

    @property
    def best(self) -> Row:
        """The best trial."""
        return self.rows[0]

    @property
    def preset(self) -> Row | None:
        """The trial with the preset's own settings, finished or not; None if they lie outside of the space."""
        return next((row for row in self.rows if row.is_preset), None)

    def as_dict(self) -> dict[str, Any]:
        """Convert the outcome to plain values for JSON."""
        return {
            "search": self.search.name,
            "objective": self.search.objective,
            "best": self.best.number,
            "preset": self.preset.number if self.preset else None,
            "again": self.again,
            "trials": [asdict(row) for row in self.rows],
        }


def rows_of(trials: Sequence[FrozenTrial]) -> list[Row]:
    """Return the rows of an `Outcome` for ended trials."""
    order = list(STATES)

    def key(trial: FrozenTrial) -> tuple[float, ...]:
        value = trial.value if trial.value is not None else 0.0
        return order.index(trial.state), -value, trial.number

    return [
        Row(
            claims.shown_number(trial),
            STATES[trial.state],
            trial.value,
            trial.user_attrs.get(FIGURES, {}),
            trial.params,
            trial.user_attrs.get(ERROR, ""),
            trial.user_attrs.get(PRESET, False),
        )
        for trial in sorted(trials, key=key)
    ]


def table(outcome: Outcome) -> str:
    """Format the trials: rank, number, figures, and the settings that differ from the preset's."""
    words = OBJECTIVES[outcome.search.objective].words
    extra = outcome.search.objective == "present_dice"
    heading = f"rank trial  {'mean Dice (95 %)':<25} none dropped    AUC  {'with mask  ' * extra}settings"
    lines = [heading]
    for rank, row in enumerate(outcome.rows[:LONGEST], 1):
        changes = differences(outcome.search, row) or ("the preset" if row.is_preset else "")
        if row.state == "finished":
            with_mask = f"{row.figures['present_dice']:9.4f}  " * extra
            text = f"{figures_text(row.figures)}  {with_mask}{changes}"
            lines.append(f"{rank:>4} {row.number:>5}  {text}")
        elif row.state == "pruned":
            lines.append(f"   - {row.number:>5}  pruned at {row.value or 0:.4f}; {changes}")
        else:
            lines.append(f"   - {row.number:>5}  failed ({fault(row.error)}); {changes}")
    if len(outcome.rows) > LONGEST:
        lines.append(f"... and {len(outcome.rows) - LONGEST} more on the page.")
    return "\n".join([*lines, f"{counts(outcome.rows)}; ranked by {words}."])


def figures_text(figures: dict[str, Any]) -> str:
    """Format a trial's figures in the columns of the table."""
    auc = "-" if figures["presence_auc"] is None else f"{figures['presence_auc']:.3f}"
    dice = f"{figures['dice']:.4f} ({figures['low']:.4f} to {figures['high']:.4f})"
    return f"{dice:<25} {figures['kept_present_dice']:12.4f}  {auc:>5}"


def differences(search: Search, row: Row) -> str:
    """List the trial's settings that differ from the preset's, such as ``batch=8 learning_rate=0.0021``."""
    preset = search.preset.flat()
    changed = {
        key: value
        for key, value in row.values.items()
        if value != search.space.parts[key].encode(preset[key])
    }
    return search.space.text(changed)


def _preset_sentence(outcome: Outcome) -> str:
    """Say how the preset's own settings compare."""
    preset, objective = outcome.preset, outcome.search.objective
    if preset is None:
        return "The preset lies outside of the space, so there is nothing to compare with."
    if preset is outcome.best:
        return "No trial was better than the preset itself."
    if not preset.figures:
        ending = "failed" if preset.state == "failed" else "was pruned"
        return f"The preset's own trial {preset.number} {ending}, so there is nothing to compare with."
    value = preset.figures[objective]
    gain = outcome.again[objective] - value
    verdict = f"a gain of {gain:.4f}" if gain > 0 else "so the search has gained nothing"
    return f"The preset itself: {value:.4f}; against the second training, {verdict}."


def counts(rows: Sequence[Row]) -> str:
    """Say how many trials ended in which way."""
    numbers = {state: sum(row.state == state for row in rows) for state in STATES.values()}
    parts = [f"{number} {state}" for state, number in numbers.items() if number]
    return f"{len(rows)} trials: {', '.join(parts)}"


def sentence(outcome: Outcome) -> str:
    """Say what the best trial scored, and how much of that is selection and chance."""
    objective = outcome.search.objective
    words, best, again = OBJECTIVES[objective].words, outcome.best, outcome.again
    value, other = best.figures[objective], again[objective]
    interval = f" ({again['low']:.4f} to {again['high']:.4f})" if objective == "dice" else ""
    excess = f"so {value - other:.4f} of it is selection and chance" if value > other else "no less than that"
    lines = [
        f"Best of {len(outcome.rows)} trials by {words}: {value:.4f} (trial {best.number}); trained again with another "
        f"seed: {other:.4f}{interval}, {excess}.",
    ]
    lines.append(_preset_sentence(outcome))
    auc = "-" if again["presence_auc"] is None else f"{again['presence_auc']:.3f}"
    lines.append(
        f"The second training: mean Dice {again['dice']:.4f} (95 % over patients {again['low']:.4f} to "
        f"{again['high']:.4f}), frames with a mask, none dropped {again['kept_present_dice']:.4f}, presence AUC {auc}; "
        f"all-empty {again['all_empty']:.4f}."
    )
    return "\n".join(lines)
