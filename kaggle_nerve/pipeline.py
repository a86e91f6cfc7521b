"""Turn finished folds into a valid CSV: the stages that `submit` runs if their results are missing."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from kaggle_nerve.competition import submission
from kaggle_nerve.data import folds
from kaggle_nerve.data.cache import training_source
from kaggle_nerve.data.frames import Layout, locate, read_train_csv
from kaggle_nerve.data.tiff import read_grey
from kaggle_nerve.decision import decision as decisions
from kaggle_nerve.decision import shaping, text
from kaggle_nerve.decision import tune as tuning
from kaggle_nerve.decision.decision import Decision, UnreadableDecisionError
from kaggle_nerve.decision.figures import share_warning
from kaggle_nerve.decision.masks import encode_masks
from kaggle_nerve.decision.review import Review, review, select_rows
from kaggle_nerve.decision.shaping import SHAPES, Images, Shaper
from kaggle_nerve.errors import NerveError
from kaggle_nerve.maps.fullsize import Truths
from kaggle_nerve.prediction.stored import Predictions, blend, open_oof, open_test
from kaggle_nerve.progress import SILENT, Reporter
from kaggle_nerve.runs import Run, decision_file, join_names, sort_runs


@dataclass(frozen=True)
class PreparedSubmission:
    """A finished CSV, the decision behind it, and the report of `submission.check` (without faults)."""

    csv: Path
    decision: Decision
    report: submission.Report


def learn_decision(
    runs: list[Run],
    data_dir: Path,
    *,
    user_choices: dict[str, str] | None = None,
    force: bool = False,
    reporter: Reporter = SILENT,
    workers: int = 2,
) -> Decision:
    """Learn the decision for a run, or for a blend of several; read the stored one if its inputs are unchanged.

    ``user_choices``: as in `tune.tune`; with any, the decision is learned again. They are added to earlier ones and
    stay in force for later predictions of the runs, until ``force`` compares everything again. Raise NerveError
    if ``data_dir`` has other frames than the runs were trained on.
    """
    runs = sort_runs(runs)
    for run in runs:
        _tell_missing_folds(run, reporter)
    stored = blend([open_oof(run) for run in runs])
    path = decision_file(runs)
    earlier = None if force else _earlier(path, reporter)
    if earlier and earlier.source == stored.source and not user_choices:
        with suppress(NerveError):  # no data there: nothing to compare with
            if fault := _other_data(runs, locate(data_dir)):
                reporter.say(f"{fault} The decision is the one that was learned there.")
        return earlier
    if earlier and earlier.user_choices:
        reporter.say(
            f"The decision is learned anew, with {text.user_choices(earlier)} as chosen by hand before "
            "(`kaggle-nerve tune --force` compares all again)."
        )
        user_choices = earlier.user_choices | (user_choices or {})
    layout = locate(data_dir)
    require_own_data(runs, layout)
    crf = bool(user_choices) and user_choices.get("shape") == shaping.CRF
    decision = tuning.tune(
        stored,
        read_train_csv(layout.train_csv),
        images=training_images(layout, stored) if crf else None,
        user_choices=user_choices,
        seed=runs[0].settings.seed,
        reporter=reporter,
        workers=workers,
    )
    decision.save(path)
    figures = decision.figures
    if warning := share_warning(figures.predicted_share, figures.true_share):
        reporter.say(f"Warning: out of fold, {warning}")
    return decision


def review_of(
    decision: Decision, run: Run, layout: Layout, *, reporter: Reporter = SILENT, workers: int = 2
) -> Review:
    """Return the review of ``run``'s decision on its out-of-fold frames, stored with it or measured now."""
    if decision.review is not None:
        return decision.review
    stored = open_oof(run)
    images = training_images(layout, stored) if shaping.CRF in SHAPES[decision.shape] else None
    return review(
        stored,
        Truths(tuning.true_masks(stored, read_train_csv(layout.train_csv))),
        decision.learned,
        Shaper(SHAPES[decision.shape], decision.prior, images),
        reporter=reporter,
        workers=workers,
    )


def out_of_fold_masks(decision: Decision, run: Run, layout: Layout, rows: np.ndarray) -> list[str]:
    """Compute the decision's masks (run-length encoding) for some out-of-fold frames, by their rows in `review_of`."""
    stored = select_rows(open_oof(run), rows)
    images = training_images(layout, stored) if shaping.CRF in SHAPES[decision.shape] else None
    return [text for _, text in encode_masks(stored, decision, images=images)]


def require_own_data(runs: list[Run], layout: Layout) -> None:
    """Raise NerveError if the training frames in ``layout`` are not those that ``runs`` were trained on.

    If there are no frames, only their masks, nothing is checked.
    """
    if fault := _other_data(runs, layout):
        raise NerveError(f"{fault[:-1]}; name its own with --data.")


def _other_data(runs: list[Run], layout: Layout) -> str | None:
    """Return a sentence if the training frames in ``layout`` are not those that ``runs`` were trained on, else None."""
    if any(layout.train.glob("*_*.tif")):
        source = training_source(layout)
        for run in runs:
            if run.require_finished_folds()[0].require_facts().source != source:
                return f"Run {run.name} was trained on other data than that in {layout.root}."
    return None


def _earlier(path: Path, reporter: Reporter) -> Decision | None:
    """Load the stored decision; None if it is missing, damaged or of another version."""
    if not path.is_file():
        return None
    try:
        return decisions.load(path)
    except UnreadableDecisionError as fault:
        reporter.say(f"{fault} It is learned anew.")
        return None


def prepare(
    runs: list[Run], data_dir: Path, out: Path, *, reporter: Reporter = SILENT, workers: int = 2
) -> PreparedSubmission:
    """Predict and tune if results are missing, write ``out``, and check it against the sample."""
    # Import Keras only if predictions may be missing.
    from kaggle_nerve.prediction.ensemble import predict_test
    from kaggle_nerve.prediction.held_out import predict_oof

    runs = sort_runs(runs)
    for run in runs:
        predict_oof(run, data_dir, reporter=reporter, workers=workers)
        predict_test(run, data_dir, reporter=reporter, workers=workers)
    decision = learn_decision(runs, data_dir, reporter=reporter, workers=workers)
    stored, layout = blend([open_test(run) for run in runs]), locate(data_dir)
    images = test_images(layout, stored) if shaping.CRF in SHAPES[decision.shape] else None
    masks = encode_masks(stored, decision, images=images, reporter=reporter, workers=workers)
    submission.write(out, masks)
    report = submission.check(out, layout.sample_csv)
    report.raise_if_faulty()
    if warning := share_warning(report.share, decision.figures.true_share):
        reporter.say(f"Warning: in the submission, {warning}")
    return PreparedSubmission(out, decision, report)


def _tell_missing_folds(run: Run, reporter: Reporter) -> None:
    planned, finished = folds.count(folds.load(run.folds_csv)), run.require_finished_folds()
    if len(finished) < planned:
        reporter.say(
            f"Run {run.name} has {len(finished)} of its {planned} folds: the decision is learned on the "
            "subjects of these alone; `kaggle-nerve train-folds` trains the others."
        )


def training_images(layout: Layout, stored: Predictions) -> Images:
    """Return a reader of the frames of out-of-fold predictions, for the CRF."""
    rows = stored.table[["subject", "img"]].to_numpy()
    return lambda row: read_grey(layout.train / "{}_{}.tif".format(*rows[row]))


def test_images(layout: Layout, stored: Predictions) -> Images:
    """Return a reader of the frames of test predictions, for the CRF."""
    imgs = stored.table.img.to_numpy()
    return lambda row: read_grey(layout.test / f"{imgs[row]}.tif")


def new_csv(submissions_dir: Path, runs: list[Run]) -> Path:
    """Return the path ``<timestamp>__<run>.csv`` in the submissions folder, with the time in UTC."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return submissions_dir / f"{stamp}__{join_names(runs)}.csv"
