"""Show the data and an attached run in pictures, one method per cell."""

import io
from typing import Any

import pandas as pd
from IPython.display import Image, display
from matplotlib.figure import Figure

from kaggle_nerve import pipeline
from kaggle_nerve.audit import contradictions, twins
from kaggle_nerve.audit.sheets import doubts_sheet
from kaggle_nerve.competition import rle
from kaggle_nerve.data.cache import open_training
from kaggle_nerve.data.frames import locate, training_frames
from kaggle_nerve.data.overlay import PREDICTED, TRUE
from kaggle_nerve.data.tiff import read_grey
from kaggle_nerve.pictures import charts
from kaggle_nerve.pictures.sheet import Tile, sheet
from kaggle_nerve.runs import Run, open_run
from kaggle_nerve.session.console import ConsoleReporter
from kaggle_nerve.session.places import attached_runs, copy_attached_runs, find_data, find_places


class Exploration:
    """The data and, if one is attached, a run: ``run`` names it, None takes the first.

    Every method shows a figure, and some print a line about it.
    """

    def __init__(self, run: str | None = None, seed: int = 0):
        self.places, self.reporter, self.seed = find_places(), ConsoleReporter(), seed
        self.data = find_data(self.places)
        self.layout = locate(self.data)
        self.frames = training_frames(self.layout)
        self.run = self._open_run(run)
        present = self.frames.has_mask
        self.reporter.say(
            f"{len(self.frames)} training frames of {self.frames.subject.nunique()} subjects in {self.data}; "
            f"{present.mean():.1%} have a mask, so an empty submission scores {1 - present.mean():.4f} on them."
        )

    def show_frames(self, count: int = 12) -> None:
        """Show random frames, half of them with a mask, which is outlined."""
        halves = [
            group.sample(min(len(group), count // 2), random_state=self.seed)
            for _, group in self.frames.groupby("has_mask")
        ]
        rows = pd.concat(halves).sort_values(["subject", "img"])
        tiles = [self._tile(row, f"{row.subject}_{row.img}, {row.area} pixels") for row in rows.itertuples()]
        self._show(sheet(tiles, "Training frames; the nerve outlined where it is marked"))

    def show_balance(self) -> None:
        """Show how many frames of each subject have a mask."""
        self._show(charts.balance(self.frames))

    def show_contradictions(self, count: int = 4) -> None:
        """Show the most similar pairs of frames of which one has a mask and the other has none."""
        cache = open_training(self.layout, twins.SIZE, reporter=self.reporter)
        pairs = contradictions.compare_labels(twins.twins(cache, reporter=self.reporter), self.frames)
        conflicts = contradictions.contradictions(pairs, self.frames)
        conflicts = conflicts[conflicts.kind == contradictions.AGAINST_NONE]
        count_with_twin = conflicts.row.nunique()
        self.reporter.say(
            f"{count_with_twin} of {self.frames.has_mask.sum()} frames with a mask have a twin without one (grey "
            f"levels correlate by {twins.LEAST:g} or more)."
        )
        if len(conflicts):
            self._show(doubts_sheet(conflicts, self.frames, read_grey, 2 * count))

    def show_curves(self) -> None:
        """Show the run's loss and score by epoch, also of unfinished folds."""
        run = self._run_or_hint()
        if run is None:
            return
        all_histories = {str(fold.number): charts.read_history(fold.history) for fold in run.begun_folds()}
        histories = {name: history for name, history in all_histories.items() if history is not None}
        if histories:
            self._show(charts.curves(histories))
        else:
            self.reporter.say(f"Run {run.name} has no finished epoch yet, so there are no curves.")

    def show_worst(self, count: int = 12) -> None:
        """Show out-of-fold frames with the lowest Dice: false negatives, false positives, and misplaced
        masks."""
        run = self._run_or_hint()
        if run is None:
            return
        if not run.finished_folds():
            self.reporter.say(f"Run {run.name} has no finished fold yet, so there are no out-of-fold frames.")
            return
        decision = pipeline.learn_decision([run], self.data, reporter=self.reporter)
        frames = pipeline.review_of(decision, run, self.layout, reporter=self.reporter).frames
        self.reporter.say(
            f"Of {len(frames)} out-of-fold frames {(frames.dice == 0).sum()} score 0: a mask that was missed, or one "
            "where there is none."
        )
        wrong_frames = frames[frames.dice < 1].assign(
            kind=lambda table: (table.area > 0) + 2 * (table.predicted_area > 0)
        )
        # A third each: false negatives, false positives, misplaced. Shuffled, so that ties mix subjects.
        shuffled = wrong_frames.sample(frac=1, random_state=self.seed)
        kinds = [group.nsmallest(-(-count // 3), "dice") for _, group in shuffled.groupby("kind")]
        worst = pd.concat(kinds)
        worst = worst.assign(predicted=pipeline.out_of_fold_masks(decision, run, self.layout, worst.index))
        rows = worst.merge(self.frames[["subject", "img", "path", "pixels"]], on=["subject", "img"])
        tiles = [
            Tile(
                read_grey(row.path),
                f"{row.subject}_{row.img}, Dice {row.dice:.2f}",
                [(rle.decode(row.pixels), TRUE), (rle.decode(row.predicted), PREDICTED)],
            )
            for row in rows.itertuples()
        ]
        self._show(sheet(tiles, "Missed, invented, drawn elsewhere: true outline blue, predicted orange"))

    def _open_run(self, name: str | None) -> Run | None:
        folders = attached_runs(self.places, self.data)
        if name is None and not folders:
            return None
        copy_attached_runs(self.places, self.data)
        return open_run(self.places.runs, name or folders[0].name)

    def _run_or_hint(self) -> Run | None:
        if self.run is None:
            self.reporter.say(
                "No run is attached; add the output of nerve-train-folds with 'Add Input' to see its own."
            )
        return self.run

    def _tile(self, frame: Any, title: str) -> Tile:
        outlines = [(rle.decode(frame.pixels), TRUE)] if frame.has_mask else []
        return Tile(read_grey(frame.path), title, outlines)

    def _show(self, figure: Figure) -> None:
        # As a PNG: whether a notebook shows a figure by itself depends on the backend.
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=80)
        display(Image(buffer.getvalue()))
