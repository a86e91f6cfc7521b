"""From finished folds to a valid CSV: the stages that `submit` runs where they are missing."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from kaggle_nerve.competition import submission
from kaggle_nerve.data.frames import locate, read_train_csv
from kaggle_nerve.decision import tune as tuning
from kaggle_nerve.decision.masks import encoded_masks
from kaggle_nerve.decision.tune import Decision
from kaggle_nerve.kaggle_api.ledger import Origin
from kaggle_nerve.prediction.stored import blend, open_oof, open_test
from kaggle_nerve.progress import SILENT, Reporter
from kaggle_nerve.runs import Run
from kaggle_nerve.storage import digest_text


@dataclass(frozen=True)
class Prepared:
    """A finished CSV, the decision behind it, and what `submission.check` found (no faults)."""

    csv: Path
    decision: Decision
    report: submission.Report


def learn_decision(
    runs: list[Run], data_dir: Path, *, force: bool = False, reporter: Reporter = SILENT, workers: int = 2
) -> Decision:
    """The decision for a run, or for the blend of several: read back where its inputs are unchanged."""
    stored = blend([open_oof(run) for run in runs])
    path = decision_file(runs)
    if path.is_file() and not force:
        decision = tuning.load(path)
        if decision.source == stored.source:
            return decision
    frames = read_train_csv(locate(data_dir).train_csv)
    decision = tuning.tune(stored, frames, seed=runs[0].settings.seed, reporter=reporter, workers=workers)
    decision.save(path)
    return decision


def decision_file(runs: list[Run]) -> Path:
    """Where the decision of these runs lies: in the run's folder, or in one made for the blend."""
    if len(runs) == 1:
        return runs[0].decision_file
    names = sorted(run.name for run in runs)
    return runs[0].folder.parent / f"blend-{digest_text(*names)[:12]}" / "decision.json"


def prepare(
    runs: list[Run], data_dir: Path, out: Path, *, reporter: Reporter = SILENT, workers: int = 2
) -> Prepared:
    """Predict and tune where that is missing, write ``out``, and check it against the sample."""
    # Keras is imported only where a prediction may be missing.
    from kaggle_nerve.prediction.ensemble import predict_test

    for run in runs:
        predict_test(run, data_dir, reporter=reporter, workers=workers)
    decision = learn_decision(runs, data_dir, reporter=reporter, workers=workers)
    stored = blend([open_test(run) for run in runs])
    submission.write(out, encoded_masks(stored, decision.rule, reporter=reporter, workers=workers))
    report = submission.check(out, locate(data_dir).sample_csv)
    report.raise_if_faulty()
    return Prepared(out, decision, report)


def new_csv(submissions_dir: Path, runs: list[Run]) -> Path:
    """``<timestamp>__<run>.csv`` in the submissions folder, the time in UTC."""
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    return submissions_dir / f"{stamp}__{_joined_name(runs)}.csv"


def ledger_origin(runs: list[Run], decision: Decision) -> Origin:
    """What the ledger keeps of where a submission came from."""
    figures = decision.figures
    settings = (
        digest_text(*(run.settings.digest() for run in runs)) if len(runs) > 1 else runs[0].settings.digest()
    )
    return Origin(_joined_name(runs), settings[:12], figures.dice, figures.low, figures.high)


def default_message(runs: list[Run], decision: Decision) -> str:
    """A description for Kaggle: the runs and their out-of-fold figure."""
    return f"{_joined_name(runs)}, out-of-fold {decision.figures.dice:.4f}"


def _joined_name(runs: list[Run]) -> str:
    return "+".join(run.name for run in runs)
