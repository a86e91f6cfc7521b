"""What happens beside the steps of a fold: pace, validation, logs, checkpoint, reasons to stop."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import keras
import numpy as np

from kaggle_nerve.data.batches import Batches
from kaggle_nerve.data.fullsize import Truths
from kaggle_nerve.progress import Bar
from kaggle_nerve.settings import Settings
from kaggle_nerve.training import logs, schedule
from kaggle_nerve.training.checkpoint import Checkpoint, State
from kaggle_nerve.training.validation import score_epoch
from kaggle_nerve.training.watch import CollapseDetector


@dataclass
class Clock:
    """When a fold has to end (None: never) and how long an epoch with its validation takes, in seconds."""

    deadline: float | None
    epoch_seconds: float

    def left(self) -> float | None:
        """Seconds until the deadline; None without one."""
        return None if self.deadline is None else self.deadline - time.monotonic()

    def over(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and time.monotonic() >= self.deadline


class PaceKeeper(keras.callbacks.Callback):
    """Sets the learning rate at each step and the share of frames with a mask at each epoch."""

    def __init__(self, pace: schedule.Pace, batches: Batches, settings: Settings, clock: Clock, bar: Bar):
        super().__init__()
        self.pace, self.batches, self.settings, self.clock, self.bar = pace, batches, settings, clock, bar
        self.first_epoch = pace.epoch

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Deal the way that is left and draw the epoch's frames."""
        self.pace.start_epoch(self.clock.left(), self.clock.epoch_seconds)
        self.bar.expect((self.pace.epochs - self.first_epoch) * self.pace.steps)
        rate = schedule.positive_rate(self.pace.progress, self.batches.natural_rate, self.settings.training)
        self.batches.start_epoch(epoch, rate)

    def on_train_batch_begin(self, batch: int, logs: dict | None = None) -> None:
        """Set this step's learning rate."""
        rate = schedule.learning_rate(self.pace.step(), self.settings.optimiser)
        self.model.optimizer.learning_rate = rate

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Count the step; stop where the time is over."""
        self.bar.update()
        if self.clock.over():
            self.model.stop_training = True

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Count the epoch."""
        self.pace.finish_epoch()


class EpochKeeper(keras.callbacks.Callback):
    """Scores each epoch at full resolution, logs it, stores the checkpoint and decides whether to go on."""

    def __init__(
        self,
        folder: Path,
        state: State,
        pace: schedule.Pace,
        settings: Settings,
        held: tuple[np.ndarray, Truths],
        clock: Clock,
        bar: Bar,
        stop: Callable[[], bool],
    ):
        """``held``: frames (uint8, n x height x width) and truths of the held-out subjects."""
        super().__init__()
        self.state, self.pace, self.settings = state, pace, settings
        self.clock, self.bar, self.stop = clock, bar, stop
        self.frames, self.truths = held
        self.history_csv = folder / "history.csv"
        self.checkpoint = Checkpoint(folder)
        self.board = logs.BoardLog(folder / "tensorboard")
        self.detector = CollapseDetector(settings.training.collapse_epochs)
        self.interrupted = False
        self._started = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Start the epoch's watch."""
        self._started = time.monotonic()

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Score, record, store; then stop if there is a reason to."""
        score = score_epoch(self.model, self.frames, self.truths, batch=self.settings.prediction.batch)
        loss = float((logs or {}).get("loss", float("nan")))
        self.detector.check(epoch + 1, loss, score)
        self._record(epoch + 1, loss, asdict(score))
        self.checkpoint.save(self.model, self.state)
        best = self.state.best_epoch
        self.bar.note(
            f"epoch {epoch + 1} loss {loss:.3f} dice {score.dice:.4f} (best {self.state.best_dice:.4f})"
        )
        patience = self.settings.training.patience
        self.interrupted = self.stop()
        if (
            self.interrupted
            or self.pace.epoch >= self.pace.epochs
            or (patience and epoch + 1 - best >= patience)
        ):
            self.model.stop_training = True

    def on_train_end(self, logs: dict | None = None) -> None:
        """Close the log."""
        self.board.close()

    def _record(self, number: int, loss: float, score: dict) -> None:
        state, seconds = self.state, time.monotonic() - self._started
        if score["dice"] > state.best_dice:
            state.best_epoch, state.best_dice = number, score["dice"]
        row = {
            "epoch": number,
            "learning_rate": float(self.model.optimizer.learning_rate),
            "loss": loss,
            **score,
            "seconds": seconds,
        }
        state.epoch, state.epochs, state.progress = number, self.pace.epochs, self.pace.progress
        state.seconds += seconds
        state.history.append(row)
        logs.write_history(state.history, self.history_csv)
        self.board.add(row)
        # The latest epoch tells best how fast the machine is now.
        self.clock.epoch_seconds = seconds
