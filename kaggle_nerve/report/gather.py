"""Gather everything the page shows from the run's folder, the data and the ledger."""

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
from kaggle_nerve.decision.masks import encode_masks
from kaggle_nerve.decision.review import Surface
from kaggle_nerve.decision.shaping import CRF, SHAPES
from kaggle_nerve.kaggle_api.client import REHEARSAL
from kaggle_nerve.kaggle_api.fetch import data_source
from kaggle_nerve.phantom import is_synthetic
from kaggle_nerve.pictures.charts import read_history
from kaggle_nerve.prediction.stored import is_current, open_test
from kaggle_nerve.progress import SILENT, Reporter
from kaggle_nerve.runs import Fold, FoldFacts, Run
from kaggle_nerve.runs.models import DamagedModelError, require_model
from kaggle_nerve.runs.run import LOCK
from kaggle_nerve.settings import dump
from kaggle_nerve.settings.schema import ALL, FoldName
from kaggle_nerve.submissions.ledger import Entry, open_ledger


@dataclass(frozen=True)
class FoldRow:
    """State of a fold: ``finished``, ``unfinished`` or ``not begun``; ``facts`` only if finished.

    ``number`` may be `ALL`. ``history``: its epochs so far. ``trouble``: the last line of a worker's log if
    the fold failed.
    """

    number: FoldName
    subjects: int
    state: str
    history: pd.DataFrame | None
    facts: FoldFacts | None
    trouble: str = ""


@dataclass(frozen=True)
class OutOfFold:
    """Out-of-fold frames of the finished folds.

    ``frames``: those of `Review`, with path and pixels (the true mask); ``surface``: scores of the plain rule
    without presence, or, for maps that predict P(pixel | there is a mask), of a rule of presence alone.
    ``masks`` returns the predicted masks (run-length encoding) for some of the frames.
    """

    decision: Decision
    frames: pd.DataFrame
    surface: Surface
    masks: Callable[[pd.DataFrame], list[str]]


@dataclass(frozen=True)
class TestFrames:
    """Test frames: img, path, predicted. ``folds``: whose models made the prediction."""

    frames: pd.DataFrame
    folds: list[FoldName]


@dataclass(frozen=True)
class Contents:
    """The page's contents. ``missing``: one sentence per missing part. ``origin``: a sentence if the data is
    not known to be Kaggle's own."""

    run: Run
    settings: str
    environment: dict[str, Any]
    folds: list[FoldRow]
    oof: OutOfFold | None
    test: TestFrames | None
    ledger: list[Entry]
    missing: list[str]
    origin: str = ""


def gather(
    run: Run, data_dir: Path, submissions_dir: Path, *, reporter: Reporter = SILENT, workers: int = 2
) -> Contents:
    """Read ``run``, and learn its decision if there is none yet. Unfinished parts are reported, not refused.

    Raises NerveError if ``data_dir`` has other frames than the run was trained on.
    """
    layout, missing = locate(data_dir), []
    folds = _folds(run)
    for fold in folds:
        if fold.state != "finished":
            missing.append(_unfinished(fold))
        elif damage := _damage(run.fold(fold.number)):
            missing.append(damage)
    oof = test = None
    if run.finished_folds():
        oof = _out_of_fold(run, layout, reporter, workers)
        test = _test_frames(run, layout, oof.decision, missing, reporter, workers)
    else:
        missing.append("No fold is finished, so there are no out-of-fold predictions: `train-folds` goes on.")
    return Contents(
        run,
        dump(run.settings).strip(),
        run.session(),
        folds,
        oof,
        test,
        open_ledger(submissions_dir).rows(),
        missing,
        origin(layout),
    )


def origin(layout: Layout) -> str:
    """Return a sentence if the data in ``layout`` is not the competition's own, else ''."""
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
    return FoldRow(fold.number, subjects, state, history, None, _last_error(fold.log))


def _last_error(log: Path) -> str:
    """Return the last line of a log that contains a traceback, else ""."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    return text.strip().splitlines()[-1][:300] if "Traceback" in text else ""


def _unfinished(fold: FoldRow) -> str:
    epochs = 0 if fold.history is None else len(fold.history)
    after = f" after {epochs} epochs" if epochs else ""
    failed = f"; it failed with: {fold.trouble}" if fold.trouble else ""
    return f"Fold {fold.number} is {fold.state}{after}{failed}."


def _damage(fold: Fold) -> str:
    """Return a sentence if the model file of a finished fold is not whole, else ""."""
    try:
        require_model(fold)
    except DamagedModelError as fault:
        return str(fault)
    return ""


def _out_of_fold(run: Run, layout: Layout, reporter: Reporter, workers: int) -> OutOfFold:
    pipeline.require_own_data([run], layout)
    options: dict[str, Any] = {"reporter": reporter, "workers": workers}
    decision = pipeline.learn_decision([run], layout.root, **options)
    review = pipeline.review_of(decision, run, layout, **options)
    frames = training_frames(layout)[["subject", "img", "path", "pixels"]]
    table = review.frames.merge(frames, on=["subject", "img"], how="left", validate="one_to_one")

    def masks(rows: pd.DataFrame) -> list[str]:
        return pipeline.out_of_fold_masks(decision, run, layout, rows.index.to_numpy())

    return OutOfFold(decision, table, review.surface, masks)


def _test_frames(
    run: Run, layout: Layout, decision: Decision, missing: list[str], reporter: Reporter, workers: int
) -> TestFrames | None:
    facts = run.test_facts()
    if facts is None:
        missing.append(f"There are no test predictions: `predict --run {run.name}` makes them.")
        return None
    if not is_current(run, facts):
        missing.append("The test predictions are older than the folds' models: `predict` makes them anew.")
    stored = open_test(run)
    imgs = stored.table.img.to_numpy()
    images = pipeline.test_images(layout, stored) if CRF in SHAPES[decision.shape] else None
    masks = encode_masks(stored, decision, images=images, reporter=reporter, workers=workers)
    texts = [text for _, text in masks]
    paths = [layout.test / f"{img}.tif" for img in imgs]
    areas = [area(text) for text in texts]
    frames = pd.DataFrame({"img": imgs, "path": paths, "predicted": texts, "area": areas})
    return TestFrames(frames, facts.folds)
