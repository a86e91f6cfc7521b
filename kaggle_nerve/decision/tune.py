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
from kaggle_nerve.decision.blends import BlendWay
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
from kaggle_nerve.decision.nested import Choice, Nested, choose, judge
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
    ``take``: choices that the user has made.
    """

    stored: Predictions
    texts: list[str]
    truths: Truths
    images: Images | None
    take: dict[str, str]
    seed: int
    call_options: dict[str, Any]


@dataclass(frozen=True)
class _Selection:
    """Outcome of one choice: the nested results of every option, and the rows of its table."""

    choice: Choice
    options: list[Nested]
    rows: tuple[Row, ...]

    def verdicts(self, refined: Nested) -> Nested:
        """Combine the options' results, with each frame's option chosen on the other subjects; ``refined`` are the
        results of the chosen option after the later choices.
        """
        options = [*self.options]
        options[self.choice.place] = refined
        picks, frames = self.choice.picks, np.arange(len(refined.cuts))
        names = [item.name for item in dataclasses.fields(Nested)]
        stacks = {name: np.stack([getattr(option, name) for option in options]) for name in names}
        return Nested(**{name: stack[picks, frames] for name, stack in stacks.items()})


def tune(
    stored: Predictions,
    frames: pd.DataFrame,
    *,
    images: Images | None = None,
    take: dict[str, str] | None = None,
    seed: int = 0,
    reporter: Reporter = SILENT,
    workers: int = 2,
) -> Decision:
    """Choose and learn the decision with the best mean Dice over the out-of-fold frames of ``stored``.

    ``frames`` has subject, img and pixels (the true masks). Every frame counts, contradictory ones too.
    With ``images``, compare the CRF, which needs the frames, too. ``take`` names a ``blend``, a
    ``rule`` or a ``shape`` to use regardless of the scores.

    Raise NerveError for frames without a row in ``frames``, and for an unknown name in ``take``.
    """
    # The work is parallel over frames and subjects already; more threads inside BLAS would only slow it down.
    with threadpool_limits(1, "blas"):
        texts = true_masks(stored, frames)
        call_options = {"reporter": reporter, "workers": workers}
        task = _Task(stored, texts, Truths(texts), images, take or {}, seed, call_options)
        way, evidence, blend_selection = _blend(task)
        rule_selection = _rule(task, evidence)
        shape_selection = _shape(task, way, evidence, rule_selection.options[rule_selection.choice.place])
        verdicts = rule_selection.verdicts(
            shape_selection.verdicts(shape_selection.options[shape_selection.choice.place])
        )
        if blend_selection:
            verdicts = blend_selection.verdicts(verdicts)
        selections = {"rules": rule_selection, "shapes": shape_selection}
        if blend_selection:
            selections = {"blends": blend_selection, **selections}
        return _learn_on_all(task, way, evidence, verdicts, selections)


def _learn_on_all(
    task: _Task, way: BlendWay, evidence: Evidence, verdicts: Nested, selections: dict[str, _Selection]
) -> Decision:
    """Learn the chosen options on all frames."""
    stored = dataclasses.replace(task.stored, blend=way.final)
    # A learned blend differs from the blends of the nested evidence, so measure again.
    final = measure(stored, task.truths, **task.call_options)[0] if way.is_learned else evidence
    candidate = candidates_for(stored.is_conditional)[selections["rules"].choice.place]
    learned = candidate.learn(final)
    shape = _shapes(task)[selections["shapes"].choice.place]
    prior = shaping.learn_prior(task.texts) if PRIOR in SHAPES[shape] else None
    shaper = Shaper(SHAPES[shape], prior, task.images)
    final_review = review(stored, task.truths, learned, shaper, evidence=final, **task.call_options)
    presence = reliability_of_presence(evidence, HEAD_ALONE if stored.is_conditional else ALL_NAMES)
    return Decision(
        candidate.name,
        learned,
        shape,
        way.final,
        figures(evidence, verdicts, float(final_review.frames.dice.mean()), task.seed),
        {kind: selection.rows for kind, selection in selections.items()},
        {"pixels": reliability_of_pixels(evidence), "presence": presence},
        stored.source,
        prior,
        task.take,
        final_review,
    )


def _blend(task: _Task) -> tuple[BlendWay, Evidence, _Selection | None]:
    """Choose how to combine the runs, judged by the baseline rule."""
    if len(task.stored.parts) == 1:
        if "blend" in task.take:
            raise NerveError(
                f"There is only run {task.stored.names[0]}, so nothing to blend; name others, too."
            )
        return blends.ALONE, measure(task.stored, task.truths, **task.call_options)[0], None
    ways = blends.ways(task.stored, task.truths, **task.call_options)
    evidences = measure(task.stored, task.truths, [way.way for way in ways], **task.call_options)
    rule = next(one for one in CANDIDATES if one.name == BASELINE)
    descriptions = [(way.name, way.meaning, way.rank) for way in ways]
    options = _judge_all(task, "Comparing blends", [(rule, evidence) for evidence in evidences])
    selection = _choose(task, "blend", evidences[0], descriptions, options, blends.BASELINE)
    return ways[selection.choice.place], evidences[selection.choice.place], selection


def _rule(task: _Task, evidence: Evidence) -> _Selection:
    candidates = candidates_for(task.stored.is_conditional)
    options = _judge_all(task, "Comparing rules", [(one, evidence) for one in candidates])
    descriptions = [(one.name, one.meaning, rank) for rank, one in enumerate(candidates)]
    return _choose(task, "rule", evidence, descriptions, options, BASELINE)


def _judge_all(task: _Task, label: str, pairs: list[tuple[Candidate, Evidence]]) -> list[Nested]:
    subjects = len(np.unique(pairs[0][1].subjects))
    with task.call_options["reporter"].bar(label, subjects * len(pairs), "subject") as bar:
        return [judge(*pair, bar=bar, workers=task.call_options["workers"]) for pair in pairs]


def _shape(task: _Task, way: BlendWay, evidence: Evidence, verdicts: Nested) -> _Selection:
    names = _shapes(task)
    priors = shaping.cross_fit_priors(task.texts, evidence.subjects)

    def shapers(row: int) -> list[Shaper]:
        return [Shaper(SHAPES[name], priors[row], task.images) for name in names]

    # Shape the dropped masks of frames with a true mask, too: the perfect-presence figure needs them.
    keeps_mask, empty_dice = verdicts.keeps_mask, dice_of_counts(0, task.truths.areas, 0)
    outlines = np.where(keeps_mask | evidence.present, verdicts.outlines, levels.NOTHING)
    scores = shaping.score(task.stored, task.truths, outlines, shapers, way=way.way, **task.call_options)
    options = [
        dataclasses.replace(verdicts, dice=np.where(keeps_mask, values, empty_dice), open_dice=values)
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
    options: list[Nested],
    baseline: str,
) -> _Selection:
    """Choose among ``options``; ``descriptions``: the name, meaning and rank of each."""
    names = [name for name, _, _ in descriptions]
    if kind in task.take:
        choice = _user_choice(kind, task.take[kind], names, len(evidence))
    else:
        ranks = [rank for _, _, rank in descriptions]
        choice = choose([option.dice for option in options], evidence.subjects, ranks, task.seed)
    baseline_dice = options[names.index(baseline)].dice
    rows = [
        comparison_row(
            name, meaning, option, baseline_dice, evidence, task.seed, chosen=place == choice.place
        )
        for place, ((name, meaning, _), option) in enumerate(zip(descriptions, options, strict=True))
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
