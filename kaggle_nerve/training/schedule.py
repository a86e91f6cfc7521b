"""What changes over a run, as plain functions of progress (0 at its start, 1 at its end)."""

import math
from collections.abc import Iterable

from kaggle_nerve.settings import OptimiserSettings, Settings, TrainingSettings

CLOSE = 1e-6
"""Progress is a sum of many steps: this close to a boundary is on it."""

LEAST = 0.1
"""The share of an epoch's steps for which a last one is worth its score."""


def learning_rate(progress: float, settings: OptimiserSettings, plateau_factor: float = 1.0) -> float:
    """The learning rate: a straight warm-up, then what ``schedule`` says.

    ``cosine`` falls from the full rate to 0 as half a cosine; ``cyclic`` does so ``cycles`` times, each
    restart at the full rate (SGDR, Loshchilov and Hutter 2017, arXiv:1608.03983). ``plateau_factor``
    counts for the schedule ``plateau`` only.
    """
    if progress < settings.warmup:
        return settings.learning_rate * progress / settings.warmup
    done = _done(progress, settings)
    if settings.schedule == "constant":
        share = 1.0
    elif settings.schedule == "plateau":
        share = plateau_factor
    elif settings.schedule == "step":
        share = settings.factor ** min(int(done * settings.steps + CLOSE), settings.steps - 1)
    elif settings.schedule == "cyclic":
        share = _half_cosine((done * settings.cycles + CLOSE) % 1 if done < 1 else 1.0)
    else:
        share = _half_cosine(min(done, 1.0))
    return settings.learning_rate * share


def ends_cycle(progress: float, next_progress: float, settings: OptimiserSettings) -> bool:
    """Whether the epoch that ends at ``progress`` is the last whole one of its learning-rate cycle.

    ``next_progress`` is where one more epoch would end. The ends of cycles are where snapshot
    ensembles take their members (Huang and others 2017, arXiv:1704.00109).
    """
    before = math.floor(_done(progress, settings) * settings.cycles - CLOSE)
    after = math.floor(_done(next_progress, settings) * settings.cycles - CLOSE)
    return after > before >= 0


def plateau_factor(scores: Iterable[float | None], settings: OptimiserSettings) -> float:
    """The factor on the learning rate after epochs with ``scores``, one an epoch.

    After ``plateau`` epochs without a better score the rate is multiplied by ``factor``, and the count
    begins again. A whole history gives what it gave step by step, so that a resumed run has it too.
    """
    best, waited, factor = -math.inf, 0, 1.0
    for score in scores:
        if score is not None and score > best:
            best, waited = score, 0
            continue
        waited += 1
        if waited >= settings.plateau:
            factor, waited = factor * settings.factor, 0
    return factor


def is_scored(epoch: int, progress: float, settings: Settings) -> bool:
    """Whether epoch number ``epoch`` (from 1), that ends at ``progress``, is scored on the held-out subjects.

    A score at full resolution costs up to a tenth of an epoch. Every one is scored where patience or the
    learning rate counts epochs without a better score, and in the second half where epochs are chosen
    by it (``best`` and ``top``); else every second one, for watching. The last is scored whatever this
    says.
    """
    training = settings.training
    if training.patience or settings.optimiser.schedule == "plateau":
        return True
    choosing = training.average in ("best", "top") and progress >= 0.5 - CLOSE
    return choosing or epoch % 2 == 0


def positive_rate(progress: float, natural: float, settings: TrainingSettings) -> float | None:
    """The share of frames with a mask in an epoch that begins at ``progress``; None: as they come."""
    if not settings.positive_rate or progress >= settings.positive_share:
        return None
    rest = 1 - progress / settings.positive_share
    return natural + (settings.positive_rate - natural) * rest


class Pace:
    """How far a run is, and how far one step takes it.

    Without a deadline each of ``epochs`` is an equal part. With one, the rest of the way is dealt
    anew at each epoch over the steps that still fit, so that the schedule ends with the time even
    if the machine is slower or faster than was measured. The last epoch may then be a shorter one.
    """

    def __init__(self, epochs: int, steps: int, *, epoch: int = 0, progress: float = 0.0):
        """``steps``: those of a whole epoch."""
        self.limit, self.epochs, self.steps = epochs, epochs, steps
        self.epoch, self.progress = epoch, progress
        self.left = (epochs - epoch) * steps
        self.step_size = 1 / (epochs * steps)

    @property
    def next_steps(self) -> int:
        """The steps of the next epoch; those of a whole one after the last."""
        return min(self.left, self.steps) or self.steps

    def start_epoch(self, seconds_left: float | None, step: float, score: float) -> int:
        """Deal the rest of the way over the steps left, fewer if ``seconds_left`` holds fewer.

        ``step`` and ``score``: the seconds of one step and of the score after an epoch, for which
        ``seconds_left`` needs room between epochs only. Returns the steps of this epoch.
        """
        self.left = (self.limit - self.epoch) * self.steps
        if seconds_left is not None:
            self.left = min(self.left, self._fitting(seconds_left, step, score))
        self.epochs = self.epoch + math.ceil(self.left / self.steps)
        self.step_size = (1 - self.progress) / self.left
        return self.next_steps

    def step(self) -> float:
        """Take one step; returns the progress at its start."""
        before = self.progress
        self.progress = min(1.0, before + self.step_size)
        self.left -= 1
        return before

    def finish_epoch(self) -> None:
        """Count an epoch as done."""
        self.epoch += 1

    def end(self) -> None:
        """The time is over: no epoch follows."""
        self.epochs, self.left = self.epoch, 0

    def after_next_epoch(self) -> float:
        """The progress that one more epoch would reach; beyond 1 after the last one."""
        return self.progress + self.step_size * self.next_steps

    def _fitting(self, seconds: float, step: float, score: float) -> int:
        epoch = self.steps * step + score
        whole = int(seconds / epoch)
        more = min(self.steps, int((seconds - whole * epoch) / step))
        if whole and more < LEAST * self.steps:
            more = 0
        return max(1, whole * self.steps + more)


def _done(progress: float, settings: OptimiserSettings) -> float:
    """The share of the way after the warm-up."""
    return (progress - settings.warmup) / (1 - settings.warmup)


def _half_cosine(share: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * share))
