"""Everything that the page of a run tells, read from its folder, the data and the ledger."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from kaggle_nerve import pipeline
from kaggle_nerve.competition.rle import area
from kaggle_nerve.data import folds as folding
from kaggle_nerve.data.frames import Layout, locate, training_frames
from kaggle_nerve.decision.decision import Decision
from kaggle_nerve.decision.masks import encoded_masks
from kaggle_nerve.decision.review import Surface
from kaggle_nerve.decision.shaping import CRF, SHAPES
from kaggle_nerve.kaggle_api.client import REHEARSAL
from kaggle_nerve.kaggle_api.fetch import data_source
from kaggle_nerve.phantom import is_synthetic
from kaggle_nerve.pictures.charts import read_history
from kaggle_nerve.prediction.stored import is_current, open_test
from kaggle_nerve.progress import SILENT, Reporter
from kaggle_nerve.runs import Fold, FoldFacts, Run
from kaggle_nerve.runs.run import LOCK
from kaggle_nerve.settings import dump
from kaggle_nerve.settings.schema import ALL, FoldName
from kaggle_nerve.submissions.ledger import Entry, Ledger


@dataclass(frozen=True)
class FoldRow:
    """How a fold stands: ``finished``, ``unfinished`` or ``not begun``. ``facts``: those of a finished one.

    ``number`` may be `ALL`. ``history``: its epochs so far. ``trouble``: the last line of a worker's log where
    the fold did not finish.
    """

    number: FoldName
    subjects: int
    state: str
    history: pd.DataFrame | None
    facts: FoldFacts | None
    trouble: str = ""


@dataclass(frozen=True)
class Seen:
    """The out-of-fold frames of the finished folds.

    ``frames``: those of `Review`, with path and pixels (the true mask); ``surface``: what the plain rule scores
    without presence, or for maps that say P(pixel | there is a mask) what a rule of presence alone scores. ``masks``
    gives the predicted masks (run-length encoding) of some of the frames.
    """

    decision: Decision
    frames: pd.DataFrame
    surface: Surface
    masks: Callable[[pd.DataFrame], list[str]]


@dataclass(frozen=True)
class Tested:
    """The test frames: img, path, predicted. ``folds``: of which models the prediction is made."""

    frames: pd.DataFrame
    folds: list[FoldName]


@dataclass(frozen=True)
class Contents:
    """What the page tells. ``missing``: a sentence for each thing that is not there. ``origin``: a sentence where the
    data is not known to be Kaggle's own."""

    run: Run
    settings: str
    environment: dict[str, Any]
    folds: list[FoldRow]
    seen: Seen | None
    tested: Tested | None
    ledger: list[Entry]
    missing: list[str]
    origin: str = ""


def gather(
    run: Run, data_dir: Path, submissions_dir: Path, *, reporter: Reporter = SILENT, workers: int = 2
) -> Contents:
    """Read ``run``; the decision is learned where there is none yet. What is unfinished is told, not refused.

    NerveError where ``data_dir`` has other frames than the run was trained on.
    """
    layout, missing = locate(data_dir), []
    folds = _folds(run)
    for fold in folds:
        if fold.state != "finished":
            missing.append(_unfinished(fold))
    seen = tested = None
    if run.finished_folds():
        seen = _seen(run, layout, reporter, workers)
        tested = _tested(run, layout, seen.decision, missing, reporter, workers)
    else:
        missing.append("No fold is finished, so there are no out-of-fold predictions: `train-folds` goes on.")
    return Contents(
        run,
        dump(run.settings).strip(),
        run.session(),
        folds,
        seen,
        tested,
        Ledger(submissions_dir / "ledger.csv").rows(),
        missing,
        _origin(layout),
    )


def _origin(layout: Layout) -> str:
    if is_synthetic(layout.root):
        return "The frames are computed: the figures say that the job works, nothing about the competition."
    if data_source(layout.root) == REHEARSAL:
        return "The data came from a rehearsal, not from Kaggle: the figures are not the competition's."
    return ""


def _folds(run: Run) -> list[FoldRow]:
    if not run.folds_csv.is_file():
        return []
    table = folding.load(run.folds_csv)
    numbers = range(folding.count(table))
    rows = [_row(run.fold(number), int((table.fold == number).sum())) for number in numbers]
    if run.settings.trains_all or run.fold(ALL).folder.is_dir():
        rows.append(_row(run.fold(ALL), 0))
    return rows


def _row(fold: Fold, subjects: int) -> FoldRow:
    history, facts = read_history(fold.history), fold.facts()
    if facts:
        return FoldRow(fold.number, subjects, "finished", history, facts)
    begun = fold.folder.is_dir() and any(path.name != LOCK for path in fold.folder.iterdir())
    state = "unfinished" if begun else "not begun"
    return FoldRow(fold.number, subjects, state, history, None, _last_words(fold.log))


def _last_words(log: Path) -> str:
    """The end of a log that tells of a failure."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    return text.strip().splitlines()[-1][:300] if "Traceback" in text else ""


def _unfinished(fold: FoldRow) -> str:
    epochs = 0 if fold.history is None else len(fold.history)
    after = f" after {epochs} epochs" if epochs else ""
    failed = f"; it failed with: {fold.trouble}" if fold.trouble else ""
    return f"Fold {fold.number} is {fold.state}{after}{failed}."


def _seen(run: Run, layout: Layout, reporter: Reporter, workers: int) -> Seen:
    pipeline.needs_own_data([run], layout)
    how: dict[str, Any] = {"reporter": reporter, "workers": workers}
    decision = pipeline.learn_decision([run], layout.root, **how)
    reviewed = pipeline.review_of(decision, run, layout, **how)
    frames = training_frames(layout)[["subject", "img", "path", "pixels"]]
    table = reviewed.frames.merge(frames, on=["subject", "img"], how="left", validate="one_to_one")

    def masks(rows: pd.DataFrame) -> list[str]:
        return pipeline.out_of_fold_masks(decision, run, layout, rows.index.to_numpy())

    return Seen(decision, table, reviewed.surface, masks)


def _tested(
    run: Run, layout: Layout, decision: Decision, missing: list[str], reporter: Reporter, workers: int
) -> Tested | None:
    done = run.test_facts()
    if done is None:
        missing.append(f"There are no test predictions: `predict --run {run.name}` makes them.")
        return None
    if not is_current(run, done):
        missing.append("The test predictions are older than the folds' models: `predict` makes them anew.")
    stored = open_test(run)
    imgs = stored.table.img.to_numpy()
    images = pipeline.test_images(layout, stored) if CRF in SHAPES[decision.shape] else None
    masks = encoded_masks(stored, decision, images=images, reporter=reporter, workers=workers)
    texts = [text for _, text in masks]
    paths = [layout.test / f"{img}.tif" for img in imgs]
    areas = [area(text) for text in texts]
    frames = pd.DataFrame({"img": imgs, "path": paths, "predicted": texts, "area": areas})
    return Tested(frames, done.folds)
