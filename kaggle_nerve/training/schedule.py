"""What changes over a run, as plain functions of progress (0 at its start, 1 at its end)."""

import math

from kaggle_nerve.settings import OptimiserSettings, TrainingSettings


def learning_rate(progress: float, settings: OptimiserSettings) -> float:
    """The learning rate: a straight warm-up, then constant or half a cosine down to 0.

    Cosine annealing after Loshchilov and Hutter 2017 (arXiv:1608.03983), without restarts.
    """
    if progress < settings.warmup:
        return settings.learning_rate * progress / settings.warmup
    if settings.schedule == "constant":
        return settings.learning_rate
    done = min(1.0, (progress - settings.warmup) / (1 - settings.warmup))
    return settings.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


def positive_rate(progress: float, natural: float, settings: TrainingSettings) -> float | None:
    """The share of frames with a mask in an epoch that begins at ``progress``; None: as they come."""
    if not settings.positive_rate or progress >= settings.positive_share:
        return None
    rest = 1 - progress / settings.positive_share
    return natural + (settings.positive_rate - natural) * rest


class Pace:
    """How far a run is, and how far one step takes it.

    Without a deadline each of ``epochs`` is an equal part. With one, the rest of the way is dealt
    anew at each epoch over the epochs that still fit, so that the schedule ends with the time even
    if the machine is slower or faster than was measured.
    """

    def __init__(self, epochs: int, steps: int, *, epoch: int = 0, progress: float = 0.0):
        self.limit, self.epochs, self.steps = epochs, epochs, steps
        self.epoch, self.progress = epoch, progress
        self.step_size = 1 / (epochs * steps)

    def start_epoch(self, seconds_left: float | None, epoch_seconds: float) -> None:
        """Deal the rest of the way over the epochs left, fewer if ``seconds_left`` holds fewer."""
        epochs_left = self.limit - self.epoch
        if seconds_left is not None:
            epochs_left = max(1, min(epochs_left, int(seconds_left / epoch_seconds)))
        self.epochs = self.epoch + epochs_left
        self.step_size = (1 - self.progress) / (epochs_left * self.steps)

    def step(self) -> float:
        """Take one step; returns the progress at its start."""
        before = self.progress
        self.progress = min(1.0, before + self.step_size)
        return before

    def finish_epoch(self) -> None:
        """Count an epoch as done."""
        self.epoch += 1
