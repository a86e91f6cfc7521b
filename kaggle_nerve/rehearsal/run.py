"""Rehearse the whole job against the loopback server with the real client: fetch, train-folds, submit."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from kaggle_nerve import pipeline
from kaggle_nerve.competition import metric
from kaggle_nerve.data.verify import verify
from kaggle_nerve.decision.decision import Decision
from kaggle_nerve.errors import NerveError
from kaggle_nerve.kaggle_api.client import Client
from kaggle_nerve.kaggle_api.fetch import fetch
from kaggle_nerve.phantom import write_competition
from kaggle_nerve.progress import SILENT, Reporter
from kaggle_nerve.rehearsal.competitions.holdout import hold_out
from kaggle_nerve.rehearsal.competitions.served import ServedCompetition, open_packed, pack
from kaggle_nerve.rehearsal.server import RehearsalServer
from kaggle_nerve.settings import Settings
from kaggle_nerve.storage import digest_text, read_completion
from kaggle_nerve.submissions.origin import make_origin, record_origin
from kaggle_nerve.submissions.upload import send

PHANTOM = {"subjects": 20, "frames": 40, "test_subjects": 10}
"""Size of the synthetic competition: enough for the tiny preset to learn, minutes on two cores."""


@dataclass(frozen=True)
class RehearsalResult:
    """The result of a rehearsal. ``empty``: the score of an all-empty submission."""

    csv: Path
    decision: Decision
    public: float
    private: float
    empty: metric.Score


def rehearsal_folder(work: Path, data_dir: Path | None, held_out: int | None, seed: int) -> Path:
    """Return the folder under ``work`` for one kind of rehearsal, so that two kinds never mix."""
    if data_dir is None:
        return work / ("phantom" if not seed else f"phantom-{seed}")
    return work / f"held-out-{digest_text(str(data_dir.resolve()), str(held_out), str(seed))[:6]}"


def prepare_competition(
    folder: Path, data_dir: Path | None, held_out: int | None, seed: int, reporter: Reporter = SILENT
) -> ServedCompetition:
    """Prepare the competition to serve: the phantom, or ``data_dir`` with ``held_out`` subjects as its test
    set."""
    source, served = folder / "competition", folder / "served"
    if data_dir is not None:
        solution = hold_out(data_dir, source, held_out, seed, reporter=reporter)
    elif read_completion(served):
        return open_packed(served)
    else:
        solution = write_competition(source, **PHANTOM, seed=seed, reporter=reporter)
    return pack(source, solution, served, reporter=reporter)


def rehearse(
    server: RehearsalServer,
    folder: Path,
    name: str,
    settings: Settings,
    *,
    time_budget: float | None = None,
    reporter: Reporter = SILENT,
    stop: Callable[[], bool] = lambda: False,
) -> RehearsalResult:
    """Run fetch, train-folds and submit against a started ``server``; everything is written under ``folder``.

    A second call resumes a stopped one.
    """
    from kaggle_nerve.training.run_folds import train_folds

    client = Client(server.environment(folder / "home"))
    data_dir = folder / "data"
    reporter.say("1/3 fetch")
    fetch_result = fetch(
        data_dir, client, reporter=reporter, verify=lambda path: verify(path, reporter=reporter).problems
    )
    reporter.say(str(fetch_result))

    reporter.say("2/3 train-folds")
    run, results = train_folds(
        data_dir, folder / "runs", name, settings, time_budget=time_budget, reporter=reporter, stop=stop
    )
    if not all(result.finished for result in results):
        raise NerveError("Stopped before all folds were trained; the same command goes on from there.")

    reporter.say("3/3 submit")
    submissions = folder / "submissions"
    prepared = pipeline.prepare([run], data_dir, pipeline.new_csv(submissions, [run]), reporter=reporter)
    record_origin(prepared.csv, make_origin([run], prepared.decision), submissions)
    message = f"rehearsal of {run.name}"
    outcome = send(
        prepared.csv, data_dir, submissions, client, message=message, again=True, reporter=reporter
    )
    if outcome.public is None or outcome.private is None:
        raise NerveError(
            "The rehearsal's server has not scored the submission yet; run the same command again."
        )
    solution = server.served.read_solution()
    return RehearsalResult(
        prepared.csv, prepared.decision, outcome.public, outcome.private, all_empty(solution)
    )


def all_empty(solution: pd.DataFrame) -> metric.Score:
    """Score a submission without any mask."""
    return metric.score(solution[["img"]].assign(pixels=""), solution)
