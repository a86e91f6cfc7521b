"""Learning a decision on out-of-fold predictions, and what it may be expected to score on new patients.

Three choices, one after the other: how to combine the runs (where there are several), by which rule
to decide, and how to finish the mask. Each takes the simplest way within noise of the best. What is
reported leaves all three choices, and all learning, to the patients that are not scored by them; for what
of a patient is left in them nonetheless, see docs/decision.md.
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
from kaggle_nerve.decision.candidates import BASELINE, CANDIDATES, Candidate, offered
from kaggle_nerve.decision.decision import Decision
from kaggle_nerve.decision.evidence import Evidence, measure
from kaggle_nerve.decision.figures import (
    Row,
    compared,
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
    """What all steps share. ``texts`` and ``truths``: the true masks of the rows of ``stored``; ``take``:
    choices that the user has made.
    """

    stored: Predictions
    texts: list[str]
    truths: Truths
    images: Images | None
    take: dict[str, str]
    seed: int
    how: dict[str, Any]


@dataclass(frozen=True)
class _Chosen:
    """The outcome of one choice: what every way scores, nested, and the rows to tell of it."""

    choice: Choice
    options: list[Nested]
    rows: tuple[Row, ...]

    def verdicts(self, refined: Nested) -> Nested:
        """The verdicts with the choice left to the other subjects; ``refined`` are those of the way taken
        after the later choices, too.
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
    With ``images`` the CRF, which looks at the frames, is compared too. ``take`` names a ``blend``, a
    ``rule`` or a ``shape`` to take whatever the others score.

    Raises NerveError for frames without a row in ``frames``, and an unknown name in ``take``.
    """
    # The work is spread over frames and subjects; threads inside each piece would only get in its way.
    with threadpool_limits(1, "blas"):
        texts = true_masks(stored, frames)
        how = {"reporter": reporter, "workers": workers}
        task = _Task(stored, texts, Truths(texts), images, take or {}, seed, how)
        way, evidence, blended = _blend(task)
        ruled = _rule(task, evidence)
        shaped = _shape(task, way, evidence, ruled.options[ruled.choice.place])
        verdicts = ruled.verdicts(shaped.verdicts(shaped.options[shaped.choice.place]))
        if blended:
            verdicts = blended.verdicts(verdicts)
        chosen = {"rules": ruled, "shapes": shaped}
        if blended:
            chosen = {"blends": blended, **chosen}
        return _learned(task, way, evidence, verdicts, chosen)


def _learned(
    task: _Task, way: BlendWay, evidence: Evidence, verdicts: Nested, chosen: dict[str, _Chosen]
) -> Decision:
    """What was chosen, learned on all frames."""
    stored = dataclasses.replace(task.stored, blend=way.final)
    # Where the blend was learned, nested evidence differs from what the learned blend gives.
    final = measure(stored, task.truths, **task.how)[0] if way.is_learned else evidence
    candidate = offered(stored.is_conditional)[chosen["rules"].choice.place]
    learned = candidate.learn(final)
    shape = _shapes(task)[chosen["shapes"].choice.place]
    prior = shaping.learn_prior(task.texts) if PRIOR in SHAPES[shape] else None
    shaper = Shaper(SHAPES[shape], prior, task.images)
    reviewed = review(stored, task.truths, learned, shaper, evidence=final, **task.how)
    presence = reliability_of_presence(evidence, HEAD_ALONE if stored.is_conditional else ALL_NAMES)
    return Decision(
        candidate.name,
        learned,
        shape,
        way.final,
        figures(evidence, verdicts, float(reviewed.frames.dice.mean()), task.seed),
        {what: found.rows for what, found in chosen.items()},
        {"pixels": reliability_of_pixels(evidence), "presence": presence},
        stored.source,
        prior,
        task.take,
        reviewed,
    )


def _blend(task: _Task) -> tuple[BlendWay, Evidence, _Chosen | None]:
    """How to combine the runs, judged by the baseline rule."""
    if len(task.stored.parts) == 1:
        if "blend" in task.take:
            raise NerveError(
                f"There is only run {task.stored.names[0]}, so nothing to blend; name others, too."
            )
        return blends.ALONE, measure(task.stored, task.truths, **task.how)[0], None
    ways = blends.ways(task.stored, task.truths, **task.how)
    found = measure(task.stored, task.truths, [way.way for way in ways], **task.how)
    rule = next(one for one in CANDIDATES if one.name == BASELINE)
    told = [(way.name, way.meaning, way.rank) for way in ways]
    options = _judged(task, "Comparing blends", [(rule, evidence) for evidence in found])
    chosen = _choose(task, "blend", found[0], told, options, blends.BASELINE)
    return ways[chosen.choice.place], found[chosen.choice.place], chosen


def _rule(task: _Task, evidence: Evidence) -> _Chosen:
    candidates = offered(task.stored.is_conditional)
    options = _judged(task, "Comparing rules", [(one, evidence) for one in candidates])
    told = [(one.name, one.meaning, rank) for rank, one in enumerate(candidates)]
    return _choose(task, "rule", evidence, told, options, BASELINE)


def _judged(task: _Task, label: str, pairs: list[tuple[Candidate, Evidence]]) -> list[Nested]:
    subjects = len(np.unique(pairs[0][1].subjects))
    with task.how["reporter"].bar(label, subjects * len(pairs), "subject") as bar:
        return [judge(*pair, bar=bar, workers=task.how["workers"]) for pair in pairs]


def _shape(task: _Task, way: BlendWay, evidence: Evidence, verdicts: Nested) -> _Chosen:
    names = _shapes(task)
    priors = shaping.cross_fitted_priors(task.texts, evidence.subjects)

    def shapers(row: int) -> list[Shaper]:
        return [Shaper(SHAPES[name], priors[row], task.images) for name in names]

    # Masks that were there but dropped are shaped, too: what perfect presence would give is asked of them.
    kept, dropped = verdicts.kept, dice_of_counts(0, task.truths.areas, 0)
    outlines = np.where(kept | evidence.present, verdicts.outlines, levels.NOTHING)
    scores = shaping.score(task.stored, task.truths, outlines, shapers, way=way.way, **task.how)
    options = [
        dataclasses.replace(verdicts, dice=np.where(kept, values, dropped), open_dice=values)
        for values in scores
    ]
    told = [
        (name, ", then ".join(SHAPES[name]) or "the pixels as they are", rank)
        for rank, name in enumerate(names)
    ]
    return _choose(task, "shape", evidence, told, options, names[0])


def _choose(
    task: _Task,
    what: str,
    evidence: Evidence,
    told: list[tuple[str, str, int]],
    options: list[Nested],
    baseline: str,
) -> _Chosen:
    """Choose among ``options``; ``told``: the name, meaning and rank of each."""
    names = [name for name, _, _ in told]
    if what in task.take:
        choice = _taken(what, task.take[what], names, len(evidence))
    else:
        ranks = [rank for _, _, rank in told]
        choice = choose([option.dice for option in options], evidence.subjects, ranks, task.seed)
    against = options[names.index(baseline)].dice
    rows = [
        compared(name, meaning, option, against, evidence, task.seed, chosen=place == choice.place)
        for place, ((name, meaning, _), option) in enumerate(zip(told, options, strict=True))
    ]
    return _Chosen(choice, options, tuple(rows))


def _taken(what: str, name: str, names: list[str], frames: int) -> Choice:
    """The choice that the user has made."""
    if name not in names:
        raise NerveError(f"There is no {what} {name!r} here; there are {', '.join(names)}.")
    return Choice(names.index(name), np.full(frames, names.index(name)))


def _shapes(task: _Task) -> list[str]:
    return [name for name in SHAPES if name != CRF or task.images is not None]


def true_masks(stored: Predictions, frames: pd.DataFrame) -> list[str]:
    """The true masks (run-length encoding) of the rows of ``stored``; NerveError where ``frames`` lacks one."""
    keys = ["subject", "img"]
    pixels = stored.table[keys].merge(frames[[*keys, "pixels"]], on=keys, how="left").pixels
    if pixels.isna().any():
        raise NerveError("The data has no mask rows for some out-of-fold frames; name the run's own --data.")
    return list(pixels)
