"""The epochs of a stage of training: pace, scores, logs, checkpoint, reasons to stop."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras

from kaggle_nerve.data.batches import Batches
from kaggle_nerve.progress import Bar
from kaggle_nerve.settings import Settings
from kaggle_nerve.training import averaging, logs, schedule, watch
from kaggle_nerve.training.checkpoint import Checkpoint, State
from kaggle_nerve.training.overlays import Held, Overlays
from kaggle_nerve.training.steps import run_steps
from kaggle_nerve.training.validation import EpochScore, score_epoch


@dataclass
class Clock:
    """When a stage has to end (None: never), and what a step and the score of late took, in seconds."""

    deadline: float | None
    step: float
    score: float

    def left(self) -> float | None:
        """Seconds until the deadline; None without one."""
        return None if self.deadline is None else self.deadline - time.monotonic()

    def over(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and time.monotonic() >= self.deadline


class Epochs:
    """Runs the epochs that are left, each from its frames' draw to its checkpoint."""

    def __init__(
        self,
        folder: Path,
        model: keras.Model,
        state: State,
        settings: Settings,
        batches: Batches,
        held: Held,
        clock: Clock,
        bar: Bar,
    ):
        self.model, self.state, self.settings, self.batches = model, state, settings, batches
        self.held, self.overlays = held, Overlays(held, settings.loss.is_conditional)
        self.clock, self.bar = clock, bar
        self.history_csv = folder / "history.csv"
        self.board_folder = folder / "tensorboard"
        self.checkpoint = Checkpoint(folder)
        self.mean = self.checkpoint.mean(state)
        self.done = self.taken = 0  # steps, in earlier epochs of this session and in this epoch
        self.pace = schedule.Pace(
            settings.training.epochs, len(batches), epoch=state.epoch, progress=state.progress
        )

    def run(self, stop: Callable[[], bool]) -> None:
        """Train until the schedule, patience or the deadline ends it, or ``stop``, asked after each epoch, does."""
        board = logs.BoardLog(self.board_folder)
        try:
            while not self.state.ended(self.settings):
                board.add(self._epoch(), self.overlays.taken())
                if stop():
                    return
        finally:
            board.close()

    def _epoch(self) -> dict[str, Any]:
        """One epoch, stored; returns its row of the history."""
        started = time.monotonic()
        loss = self._train()
        seconds = time.monotonic() - started
        self.clock.step = seconds / self.taken
        if self.clock.over():
            self.pace.end()
        self.state.epoch, self.state.progress = self.pace.epoch, self.pace.progress
        self.state.epochs = self.pace.epochs
        score = self._score()
        row = {
            "epoch": self.state.epoch,
            "learning_rate": float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)),
            "loss": loss,
            **(asdict(score) if score else {}),
            "train_frames": self.taken * self.batches.batch,
            "train_seconds": seconds,
            "seconds": time.monotonic() - started,
        }
        self._record(row, score)
        return row

    def _train(self) -> float:
        pace, settings = self.pace, self.settings
        count = pace.start_epoch(self.clock.left(), self.clock.step, self.clock.score)
        self.done, self.taken = self.done + self.taken, 0
        self.bar.expect(self.done + pace.left)
        rate = schedule.positive_rate(pace.progress, self.batches.natural_rate, settings.training)
        self.batches.start_epoch(pace.epoch, rate)
        scores = [row.get("dice") for row in self.state.history]
        factor = schedule.plateau_factor(scores, settings.optimiser)
        loss = run_steps(
            self.model,
            self.batches,
            count,
            rate=lambda: schedule.learning_rate(pace.step(), settings.optimiser, factor),
            after=self._after_step,
        )
        pace.finish_epoch()
        return loss

    def _after_step(self) -> bool:
        self.bar.update()
        self.taken += 1
        return self.clock.over()

    def _score(self) -> EpochScore | None:
        state, started = self.state, time.monotonic()
        if not len(self.held.frames):
            return None
        last = state.epoch >= state.epochs
        if not last and not schedule.is_scored(state.epoch, state.progress, self.settings):
            return None
        with averaging.scored_weights(self.model, self.settings):
            frames, truths, _ = self.held
            batch, look = self.settings.prediction.batch, self.overlays.look
            conditional = self.settings.loss.is_conditional
            score = score_epoch(self.model, frames, truths, batch=batch, conditional=conditional, look=look)
        self.clock.score = time.monotonic() - started
        return score

    def _record(self, row: dict[str, Any], score: EpochScore | None) -> None:
        """Add an epoch to the state, the files and the bar; CollapseError where it is no use to go on."""
        state = self.state
        if score and score.dice > state.best_dice:
            state.best_epoch, state.best_dice = state.epoch, score.dice
        state.seconds += row["seconds"]
        state.history.append(row)
        logs.write_history(state.history, self.history_csv)
        watch.check(state.history, self.settings.training.collapse_epochs)
        self._keep()
        told = f" dice {score.dice:.4f} (best {state.best_dice:.4f})" if score else ""
        self.bar.note(f"epoch {state.epoch} loss {row['loss']:.3f}{told}")

    def _keep(self) -> None:
        state = self.state
        cycle_ended = schedule.ends_cycle(
            self.pace.progress, self.pace.after_next_epoch(), self.settings.optimiser
        )
        state.kept = averaging.kept_epochs(state, self.settings, cycle_ended)
        if averaging.joins_mean(state, self.settings):
            self.mean = averaging.running_mean(self.mean, state.averaged, self.model.get_weights())
            state.averaged += 1
        self.checkpoint.save(self.model, state, self.mean)
