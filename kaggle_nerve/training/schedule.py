"""Schedules of a stage of training, as plain functions of progress (0 at the start, 1 at the end)."""

import math
from collections.abc import Iterable

from kaggle_nerve.settings import OptimiserSettings, Settings, TrainingSettings

TOLERANCE = 1e-6
"""Rounding tolerance: progress is a sum of many steps, so this close to a boundary counts as on it."""

SHORTEST_EPOCH = 0.1
"""Smallest share of an epoch's steps that still makes a last, shortened epoch."""


def learning_rate(progress: float, settings: OptimiserSettings, plateau_factor: float = 1.0) -> float:
    """Return the learning rate: a linear warm-up, then according to ``schedule``.

    ``cosine`` falls from the full rate to 0 as half a cosine; ``cyclic`` does so ``cycles`` times, each
    restart at the full rate (SGDR, Loshchilov and Hutter 2017, arXiv:1608.03983). ``step`` multiplies by
    ``factor`` after each of ``steps`` equal parts but the last; ``plateau`` multiplies by ``plateau_factor``,
    which no other schedule uses; ``constant`` keeps the full rate.
    """
    if progress < settings.warmup:
        return settings.learning_rate * progress / settings.warmup
    share_done = _done(progress, settings)
    if settings.schedule == "constant":
        share = 1.0
    elif settings.schedule == "plateau":
        share = plateau_factor
    elif settings.schedule == "step":
        share = settings.factor ** min(int(share_done * settings.steps + TOLERANCE), settings.steps - 1)
    elif settings.schedule == "cyclic":
        share = _half_cosine((share_done * settings.cycles + TOLERANCE) % 1 if share_done < 1 else 1.0)
    else:
        share = _half_cosine(min(share_done, 1.0))
    return settings.learning_rate * share


def ends_cycle(progress: float, next_progress: float, settings: OptimiserSettings) -> bool:
    """Return whether the epoch that ends at ``progress`` is the last complete one of its learning-rate cycle.

    ``next_progress`` is where one more epoch would end. Snapshot ensembles take their members at the
    ends of cycles (Huang and others 2017, arXiv:1704.00109).
    """
    before = math.floor(_done(progress, settings) * settings.cycles - TOLERANCE)
    after = math.floor(_done(next_progress, settings) * settings.cycles - TOLERANCE)
    return after > before >= 0


def plateau_factor(ranks: Iterable[tuple[float, float]], settings: OptimiserSettings) -> float:
    """Return the factor on the learning rate after epochs of ``ranks`` (see `validation.rank`), one per epoch.

    After ``plateau`` epochs without a better score, multiply the rate by ``factor`` and restart the count.
    The factor depends on the history alone, so that a resumed run gets the same one.
    """
    best, waited, factor = (-math.inf, 0.0), 0, 1.0
    for rank in ranks:
        if rank > best:
            best, waited = rank, 0
            continue
        waited += 1
        if waited >= settings.plateau:
            factor, waited = factor * settings.factor, 0
    return factor


def is_scored(epoch: int, progress: float, settings: Settings) -> bool:
    """Return whether to score epoch number ``epoch`` (from 1), which ends at ``progress``, on held-out subjects.

    A score at full resolution costs up to a tenth of an epoch. Every epoch is scored if patience or the
    learning rate counts epochs without a better score, and in the second half if the score selects epochs
    (``best`` and ``top``); otherwise every second one, for monitoring. The last epoch is always scored,
    regardless of the value returned here.
    """
    training = settings.training
    if training.patience or settings.optimiser.schedule == "plateau":
        return True
    choosing = training.average in ("best", "top") and progress >= 0.5 - TOLERANCE
    return choosing or epoch % 2 == 0


def positive_rate(progress: float, natural: float, settings: TrainingSettings) -> float | None:
    """Return the share of frames with a mask in an epoch that begins at ``progress``; None: the natural share.

    It falls linearly from the setting ``positive_rate`` to ``natural`` over ``positive_share`` of the schedule. None
    after that, and always if the setting is 0.
    """
    if not settings.positive_rate or progress >= settings.positive_share:
        return None
    rest = 1 - progress / settings.positive_share
    return natural + (settings.positive_rate - natural) * rest


class Pace:
    """Progress of a stage of training, and the progress per step.

    Without a deadline, each of ``max_epochs`` is an equal part. With one, each epoch redistributes the
    remaining progress over the steps that still fit, so that the schedule ends with the time even if
    the machine is slower or faster than measured. The last epoch may then be shorter.
    """

    def __init__(self, max_epochs: int, steps: int, *, finished_epochs: int = 0, progress: float = 0.0):
        """Start at ``progress`` after ``finished_epochs``; ``steps`` is the number of steps in a full epoch."""
        self.max_epochs, self.planned_epochs, self.steps = max_epochs, max_epochs, steps
        self.finished_epochs, self.progress = finished_epochs, progress
        self.steps_left = (max_epochs - finished_epochs) * steps
        self.step_size = 1 / (max_epochs * steps)

    @property
    def next_steps(self) -> int:
        """Number of steps in the next epoch; after the last epoch, that of a full one."""
        return min(self.steps_left, self.steps) or self.steps

    def start_epoch(self, seconds_left: float | None, step_seconds: float, score_seconds: float) -> int:
        """Distribute the remaining progress over the steps left that fit into ``seconds_left``.

        ``seconds_left``: time for steps and for all scores but the last; None: without a deadline.
        ``step_seconds`` and ``score_seconds``: time of one step, and of the score after an epoch. Return the
        number of steps in this epoch.
        """
        self.steps_left = (self.max_epochs - self.finished_epochs) * self.steps
        if seconds_left is not None:
            self.steps_left = min(self.steps_left, self._fitting(seconds_left, step_seconds, score_seconds))
        self.planned_epochs = self.finished_epochs + math.ceil(self.steps_left / self.steps)
        self.step_size = (1 - self.progress) / self.steps_left
        return self.next_steps

    def step(self) -> float:
        """Advance by one step; return the progress at its start."""
        before = self.progress
        self.progress = min(1.0, before + self.step_size)
        self.steps_left -= 1
        return before

    def finish_epoch(self) -> None:
        """Count one more finished epoch."""
        self.finished_epochs += 1

    def end(self) -> None:
        """End training here: no epoch follows."""
        self.planned_epochs, self.steps_left = self.finished_epochs, 0

    def after_next_epoch(self) -> float:
        """Return the progress after one more epoch; above 1 after the last one."""
        return self.progress + self.step_size * self.next_steps

    def _fitting(self, seconds: float, step_seconds: float, score_seconds: float) -> int:
        """Return how many steps fit into ``seconds``, at least 1: whole epochs, and perhaps a shortened one."""
        epoch_seconds = self.steps * step_seconds + score_seconds
        whole_epochs = int(seconds / epoch_seconds)
        more = min(self.steps, int((seconds - whole_epochs * epoch_seconds) / step_seconds))
        if whole_epochs and more < SHORTEST_EPOCH * self.steps:
            more = 0
        return max(1, whole_epochs * self.steps + more)


def _done(progress: float, settings: OptimiserSettings) -> float:
    """Return the progress after the warm-up, rescaled to end at 1."""
    return (progress - settings.warmup) / (1 - settings.warmup)


def _half_cosine(share: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * share))
