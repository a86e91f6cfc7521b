"""Learn a decision on out-of-fold predictions, and estimate its score on new patients.

Three choices follow each other: how to combine the runs (if there are several), which rule decides, and
how to refine the mask. Each takes the simplest option within noise of the best. For the reported figures,
each patient is scored by choices and rules learned on the other patients only; docs/decision.md describes
the leakage that remains.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from kaggle_nerve.competition.metric import dice_of_counts
from kaggle_nerve.decision import blends, shaping
from kaggle_nerve.decision.blends import BlendMethod
from kaggle_nerve.decision.candidates import BASELINE, CANDIDATES, Candidate, candidates_for
from kaggle_nerve.decision.decision import Decision
from kaggle_nerve.decision.evidence import Evidence, measure
from kaggle_nerve.decision.figures import (
    Row,
    comparison_row,
    figures,
    reliability_of_pixels,
    reliability_of_presence,
)
from kaggle_nerve.decision.nested import Choice, NestedResults, choose, judge
from kaggle_nerve.decision.presence import ALL_NAMES, HEAD_ALONE
from kaggle_nerve.decision.review import review
from kaggle_nerve.decision.shaping import CRF, PRIOR, SHAPES, Images, Shaper
from kaggle_nerve.errors import NerveError
from kaggle_nerve.maps import levels
from kaggle_nerve.maps.fullsize import Truths
from kaggle_nerve.prediction.stored import Predictions
from kaggle_nerve.progress import SILENT, Reporter


@dataclass(frozen=True)
class _Task:
    """Inputs that all steps share. ``texts`` and ``truths``: the true masks of the rows of ``stored``;
    ``user_choices``: as in `tune`.
    """

    stored: Predictions
    texts: list[str]
    truths: Truths
    images: Images | None
    user_choices: dict[str, str]
    seed: int
    call_options: dict[str, Any]


@dataclass(frozen=True)
class _Selection:
    """Outcome of one choice. ``options``: the nested results of every option; ``rows``: those of its table."""

    choice: Choice
    options: list[NestedResults]
    rows: tuple[Row, ...]

    @property
    def chosen(self) -> NestedResults:
        """Results of the option chosen on all subjects."""
        return self.options[self.choice.index]

    def nested_results(self, chosen_results: NestedResults) -> NestedResults:
        """Return each frame's result under the option chosen on the other subjects.

        ``chosen_results`` replaces the results of the option chosen on all subjects: those after the later choices.
        """
        options = [*self.options]
        options[self.choice.index] = chosen_results
        index_by_frame, frames = self.choice.index_by_frame, np.arange(len(chosen_results.cuts))
        names = [item.name for item in dataclasses.fields(NestedResults)]
        stacks = {name: np.stack([getattr(option, name) for option in options]) for name in names}
        return NestedResults(**{name: stack[index_by_frame, frames] for name, stack in stacks.items()})


def tune(
    stored: Predictions,
    frames: pd.DataFrame,
    *,
    images: Images | None = None,
    user_choices: dict[str, str] | None = None,
    seed: int = 0,
    reporter: Reporter = SILENT,
    workers: int = 2,
) -> Decision:
    """Choose and learn the decision with the best mean Dice over the out-of-fold frames of ``stored``.

    ``frames`` has subject, img and pixels (the true masks). All frames count, including near-duplicates with
    contradictory masks. With ``images``, compare the CRF, which needs the frames, too. ``user_choices`` names a
    ``blend``, a ``rule`` or a ``shape`` to use regardless of the scores.

    Raise NerveError for frames without a row in ``frames``, and for an unknown name in ``user_choices``.
    """
    # The work is parallel over frames and subjects already; more threads inside BLAS would only slow it down.
    with threadpool_limits(1, "blas"):
        texts = true_masks(stored, frames)
        call_options = {"reporter": reporter, "workers": workers}
        task = _Task(stored, texts, Truths(texts), images, user_choices or {}, seed, call_options)
        method, evidence, blend_selection = _blend(task)
        rule_selection = _rule(task, evidence)
        shape_selection = _shape(task, method, evidence, rule_selection.chosen)
        selections = {"rules": rule_selection, "shapes": shape_selection}
        if blend_selection:
            selections = {"blends": blend_selection, **selections}
        results = shape_selection.chosen
        for selection in reversed(selections.values()):
            results = selection.nested_results(results)
        return _learn_on_all(task, method, evidence, results, selections)


def _learn_on_all(
    task: _Task,
    method: BlendMethod,
    evidence: Evidence,
    results: NestedResults,
    selections: dict[str, _Selection],
) -> Decision:
    """Learn the chosen options on all frames; ``results``: the nested ones, for the figures."""
    stored = dataclasses.replace(task.stored, blend=method.final)
    # A learned blend differs from the blends of the nested evidence, so measure again.
    final = measure(stored, task.truths, **task.call_options)[0] if method.is_learned else evidence
    candidate = candidates_for(stored.is_conditional)[selections["rules"].choice.index]
    learned = candidate.learn(final)
    shape = _shapes(task)[selections["shapes"].choice.index]
    prior = shaping.learn_prior(task.texts) if PRIOR in SHAPES[shape] else None
    shaper = Shaper(SHAPES[shape], prior, task.images)
    final_review = review(stored, task.truths, learned, shaper, evidence=final, **task.call_options)
    presence = reliability_of_presence(evidence, HEAD_ALONE if stored.is_conditional else ALL_NAMES)
    return Decision(
        candidate.name,
        learned,
        shape,
        method.final,
        figures(evidence, results, float(final_review.frames.dice.mean()), task.seed),
        {kind: selection.rows for kind, selection in selections.items()},
        {"pixels": reliability_of_pixels(evidence), "presence": presence},
        stored.source,
        prior,
        task.user_choices,
        final_review,
    )


def _blend(task: _Task) -> tuple[BlendMethod, Evidence, _Selection | None]:
    """Choose how to combine the runs, judged by the baseline rule."""
    if len(task.stored.parts) == 1:
        if "blend" in task.user_choices:
            raise NerveError(
                f"There is only run {task.stored.names[0]}, so nothing to blend; name others, too."
            )
        return blends.ALONE, measure(task.stored, task.truths, **task.call_options)[0], None
    methods = blends.methods(task.stored, task.truths, **task.call_options)
    blends_by_row = [method.by_row for method in methods]
    evidences = measure(task.stored, task.truths, blends_by_row, **task.call_options)
    rule = next(one for one in CANDIDATES if one.name == BASELINE)
    descriptions = [(method.name, method.meaning, method.rank) for method in methods]
    options = _judge_all(task, "Comparing blends", [(rule, evidence) for evidence in evidences])
    selection = _choose(task, "blend", evidences[0], descriptions, options, blends.BASELINE)
    return methods[selection.choice.index], evidences[selection.choice.index], selection


def _rule(task: _Task, evidence: Evidence) -> _Selection:
    candidates = candidates_for(task.stored.is_conditional)
    options = _judge_all(task, "Comparing rules", [(one, evidence) for one in candidates])
    descriptions = [(one.name, one.meaning, rank) for rank, one in enumerate(candidates)]
    return _choose(task, "rule", evidence, descriptions, options, BASELINE)


def _judge_all(task: _Task, label: str, pairs: list[tuple[Candidate, Evidence]]) -> list[NestedResults]:
    subjects = len(np.unique(pairs[0][1].subjects))
    with task.call_options["reporter"].bar(label, subjects * len(pairs), "subject") as bar:
        return [judge(*pair, bar=bar, workers=task.call_options["workers"]) for pair in pairs]


def _shape(task: _Task, method: BlendMethod, evidence: Evidence, results: NestedResults) -> _Selection:
    names = _shapes(task)
    priors = shaping.cross_fit_priors(task.texts, evidence.subjects)

    def shapers(row: int) -> list[Shaper]:
        return [Shaper(SHAPES[name], priors[row], task.images) for name in names]

    # Also refine masks that the rule drops on frames with a true mask: the perfect-presence figure needs them.
    keeps_mask, empty_dice = results.keeps_mask, dice_of_counts(0, task.truths.areas, 0)
    cuts = np.where(keeps_mask | evidence.present, results.kept_cuts, levels.NOTHING)
    scores = shaping.score(
        task.stored, task.truths, cuts, shapers, blend_by_row=method.by_row, **task.call_options
    )
    options = [
        dataclasses.replace(results, dice=np.where(keeps_mask, values, empty_dice), kept_dice=values)
        for values in scores
    ]
    descriptions = [
        (name, ", then ".join(SHAPES[name]) or "the pixels as they are", rank)
        for rank, name in enumerate(names)
    ]
    return _choose(task, "shape", evidence, descriptions, options, names[0])


def _choose(
    task: _Task,
    kind: str,
    evidence: Evidence,
    descriptions: list[tuple[str, str, int]],
    options: list[NestedResults],
    baseline: str,
) -> _Selection:
    """Choose among ``options``; ``descriptions``: the name, meaning and rank of each."""
    names = [name for name, _, _ in descriptions]
    if kind in task.user_choices:
        choice = _user_choice(kind, task.user_choices[kind], names, len(evidence))
    else:
        ranks = [rank for _, _, rank in descriptions]
        choice = choose([option.dice for option in options], evidence.subjects, ranks, task.seed)
    baseline_dice = options[names.index(baseline)].dice
    rows = [
        comparison_row(
            name, meaning, option, baseline_dice, evidence, task.seed, chosen=index == choice.index
        )
        for index, ((name, meaning, _), option) in enumerate(zip(descriptions, options, strict=True))
    ]
    return _Selection(choice, options, tuple(rows))


def _user_choice(kind: str, name: str, names: list[str], frames: int) -> Choice:
    """Return the choice that the user has made."""
    if name not in names:
        raise NerveError(f"There is no {kind} {name!r} here; there are {', '.join(names)}.")
    return Choice(names.index(name), np.full(frames, names.index(name)))


def _shapes(task: _Task) -> list[str]:
    return [name for name in SHAPES if name != CRF or task.images is not None]


def true_masks(stored: Predictions, frames: pd.DataFrame) -> list[str]:
    """Return the true masks (run-length encoding) of the rows of ``stored``; raise NerveError if one is missing."""
    keys = ["subject", "img"]
    pixels = stored.table[keys].merge(frames[[*keys, "pixels"]], on=keys, how="left").pixels
    if pixels.isna().any():
        raise NerveError("The data has no mask rows for some out-of-fold frames; name the run's own --data.")
    return list(pixels)
