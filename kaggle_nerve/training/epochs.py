"""The epochs of a stage of training: pace, scores, logs, checkpoint, reasons to stop."""

import time
from dataclasses import asdict
from typing import Any

import keras

from kaggle_nerve.progress import Bar
from kaggle_nerve.runs.run import HISTORY
from kaggle_nerve.training import averaging, logs, schedule
from kaggle_nerve.training.checkpoint import Checkpoint, State
from kaggle_nerve.training.device_steps import steps_for
from kaggle_nerve.training.job import Stage
from kaggle_nerve.training.steps import Speed, measure
from kaggle_nerve.training.validation import EpochScore, check_collapse, rank, score_epoch

RESERVE = 1.1
"""Safety factor on the measured time of the last validation and the work after it."""

SHORT_SAVE = 0.5
"""Seconds of a checkpoint that is saved after every epoch."""

WORTH = 20
"""A longer checkpoint is saved when this many times its duration has passed since the latest one."""


class Epochs:
    """Run the remaining epochs of ``stage``, each from sampling frames to its history row.

    A checkpoint follows, except after short epochs of a large network, where saving would take more time than
    training: a killed run then loses less than a minute.

    Afterwards ``model`` and ``state`` hold the result.
    """

    def __init__(self, stage: Stage, model: keras.Model, state: State):
        self.stage, self.settings, self.model, self.state = stage, stage.settings, model, state
        self.checkpoint = Checkpoint(stage.folder)
        self.batches, self.held_frames = stage.batches(model), stage.held_frames
        self.steps = steps_for(model, self.batches, self.settings.training)
        self.overlays = logs.Overlays(
            self.held_frames, stage.truths, stage.names, self.settings.loss.is_conditional
        )
        self.mean = self.checkpoint.mean(state)
        self.pace = schedule.Pace(
            self.settings.training.epochs,
            len(self.batches),
            finished_epochs=state.epoch,
            progress=state.progress,
        )
        self.deadline, self.bar = stage.deadline, Bar()
        # Measured by `run`, then by each epoch.
        self.step_seconds = self.score_seconds = 0.0
        # Duration of the latest checkpoint, and when it was finished.
        self.save_seconds = self.last_save = 0.0
        # Steps in the earlier epochs of this session, and in the current epoch.
        self.earlier_steps = self.epoch_steps = 0

    def run(self) -> None:
        """Train until the schedule, patience, the deadline or the job's ``stop`` (called after each epoch) ends it.

        Do not begin if the time suffices for less than an epoch: the schedule would end after a few steps, for good.
        """
        if self.state.ended(self.settings):
            return
        stage = self.stage
        speed = measure(self.model, self.steps, self.held_frames, self.settings)
        self._announce(speed)
        self.step_seconds, self.score_seconds = speed.step, speed.validation
        if stage.deadline is not None and stage.is_last:
            self.deadline = stage.deadline - RESERVE * (speed.finish + speed.validation)
        epoch_seconds, left = speed.step * len(self.batches), self._left()
        if not self.state.epoch and left is not None and left < epoch_seconds:
            stage.job.reporter.say(
                f"{stage.label} stays untrained: its part of the time budget is shorter than one epoch of "
                f"{epoch_seconds:.1f} s; the same command with a longer budget trains it."
            )
            return
        with stage.job.reporter.bar(stage.label, self.pace.steps_left, "step") as self.bar:
            self._run()

    def _run(self) -> None:
        board = logs.BoardLog(self.stage.folder / "tensorboard")
        try:
            while not self.state.ended(self.settings):
                board.add(self._epoch(), self.overlays.pop_pictures())
                is_stopped = self.stage.job.stop()
                self._keep(now=is_stopped or self.state.ended(self.settings))
                if is_stopped:
                    return
        finally:
            board.close()

    def _announce(self, speed: Speed) -> None:
        state, deadline, steps = self.state, self.stage.deadline, len(self.batches)
        epochs = self.settings.training.epochs - state.epoch
        seconds = epochs * speed.epoch(steps)
        resumed = f", going on after epoch {state.epoch}" if state.epoch else ""
        budget = ""
        if deadline is not None:
            seconds_left = deadline - time.monotonic()
            count = max(0.0, min(epochs, (seconds_left - speed.finish) / speed.epoch(steps)))
            minutes = max(0.0, seconds_left) / 60
            budget = (
                f"; the remaining {minutes:.1f} min of the time budget suffice for about {count:.1f} epochs"
            )
        self.stage.job.reporter.say(
            f"{self.stage.label}{resumed}: {speed.step * 1000:.0f} ms a step, {epochs} epochs of {steps} steps would "
            f"take about {seconds / 60:.1f} min{budget}"
        )

    def _left(self) -> float | None:
        """Return the seconds until the deadline; None without one."""
        return None if self.deadline is None else self.deadline - time.monotonic()

    def _is_over(self) -> bool:
        """Return whether the deadline has passed."""
        return self.deadline is not None and time.monotonic() >= self.deadline

    def _epoch(self) -> dict[str, Any]:
        """Train, score and save one epoch; return its history row."""
        started = time.monotonic()
        loss = self._train()
        seconds = time.monotonic() - started
        self.step_seconds = seconds / self.epoch_steps
        if self._is_over():
            self.pace.end()
        self.state.epoch, self.state.progress = self.pace.finished_epochs, self.pace.progress
        self.state.epochs = self.pace.planned_epochs
        score = self._score()
        row = {
            "epoch": self.state.epoch,
            "learning_rate": float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate)),
            "loss": loss,
            **(asdict(score) if score else {}),
            "train_frames": self.epoch_steps * self.batches.batch,
            "train_seconds": seconds,
            "seconds": time.monotonic() - started,
        }
        self._record(row, score)
        return row

    def _train(self) -> float:
        pace, settings = self.pace, self.settings
        count = pace.start_epoch(self._left(), self.step_seconds, self.score_seconds)
        self.earlier_steps, self.epoch_steps = self.earlier_steps + self.epoch_steps, 0
        self.bar.expect(self.earlier_steps + pace.steps_left)
        rate = schedule.positive_rate(pace.progress, self.batches.natural_rate, settings.training)
        self.batches.start_epoch(pace.finished_epochs, rate)
        factor = schedule.plateau_factor(map(rank, self.state.history), settings.optimiser)
        loss = self.steps.run(
            count,
            next_rate=lambda: schedule.learning_rate(pace.step(), settings.optimiser, factor),
            after_steps=self._after_steps,
        )
        pace.finish_epoch()
        return loss

    def _after_steps(self, count: int) -> bool:
        self.bar.update(count)
        self.epoch_steps += count
        return self._is_over()

    def _score(self) -> EpochScore | None:
        state, started = self.state, time.monotonic()
        if not len(self.held_frames):
            return None
        last = state.epoch >= state.epochs
        if not last and not schedule.is_scored(state.epoch, state.progress, self.settings):
            return None
        with averaging.scoring_weights(self.model, self.settings):
            score = score_epoch(
                self.model,
                self.held_frames,
                self.stage.truths,
                batch=self.settings.prediction.batch,
                conditional=self.settings.loss.is_conditional,
                on_prediction=self.overlays.draw,
            )
        self.score_seconds = time.monotonic() - started
        return score

    def _record(self, row: dict[str, Any], score: EpochScore | None) -> None:
        """Add an epoch to the state, the files and the bar; raise CollapseError if training has collapsed."""
        state = self.state
        if score and all(rank(row) > rank(earlier) for earlier in state.history):
            state.best_epoch, state.best_dice = state.epoch, score.dice
        state.seconds += row["seconds"]
        state.history.append(row)
        logs.write_history(state.history, self.stage.folder / HISTORY)
        mask_share = float((self.stage.truths.areas > 0).mean()) if len(self.held_frames) else 0.0
        check_collapse(state.history, self.settings.training.collapse_epochs, mask_share)
        score_text = f" dice {score.dice:.4f} (best {state.best_dice:.4f})" if score else ""
        self.bar.note(f"epoch {state.epoch} loss {row['loss']:.3f}{score_text}")

    def _keep(self, now: bool) -> None:
        """Update what is kept of the epoch; save the checkpoint ``now``, or as soon as that is worth its time."""
        state, kept = self.state, self.state.kept
        cycle_ended = schedule.ends_cycle(
            self.pace.progress, self.pace.after_next_epoch(), self.settings.optimiser
        )
        state.kept = averaging.epochs_to_keep(state, self.settings, cycle_ended)
        if averaging.joins_mean(state, self.settings):
            self.mean = averaging.running_mean(self.mean, state.averaged, self.model.get_weights())
            state.averaged += 1
        started = time.monotonic()
        is_due = self.save_seconds < SHORT_SAVE or started - self.last_save >= WORTH * self.save_seconds
        if now or is_due or state.kept != kept:
            self.checkpoint.save(self.model, state, self.mean)
            self.last_save = time.monotonic()
            self.save_seconds = self.last_save - started
