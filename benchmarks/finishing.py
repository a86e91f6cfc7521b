"""Test probabilities to a finished, checked CSV: milliseconds per frame on one core, against the goal.

    python benchmarks/finishing.py [--run NAME --runs DIR] [--frames 1000] [--size 96 128]

Uses a run's out-of-fold maps, or discs with soft edges on 41 % of the frames. One worker, OpenCV on
one thread; resize, decide, encode, validate and write are all counted. Decisions from the plain one to the
most elaborate: classifier, expected Dice, smoothing or shape prior.
"""

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from maps import synthetic, truth
from threadpoolctl import threadpool_limits

from kaggle_nerve.competition import submission
from kaggle_nerve.decision import tune
from kaggle_nerve.decision.decision import Decision
from kaggle_nerve.decision.masks import encode_masks
from kaggle_nerve.prediction.stored import Predictions, open_oof
from kaggle_nerve.runs import open_run

GOAL = 5.0
CHOICES = (
    {"rule": "thresholds", "shape": "none"},
    {"rule": "expected", "shape": "smooth"},
    {"rule": "expected", "shape": "prior"},
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--size", type=int, nargs=2, default=(96, 128))
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    if args.run:
        stored = open_oof(open_run(args.runs, args.run))
        table = stored.table.assign(img=np.arange(1, len(stored) + 1))
        stored = dataclasses.replace(stored, table=table)
    else:
        stored = synthetic(args.frames, tuple(args.size))
    frames = truth(stored)
    for user_choices in CHOICES:
        decision = tune.tune(stored, frames, user_choices=user_choices)
        each, share = finish(stored, decision, args.rounds)
        what = f"run {args.run}" if args.run else "synthetic maps"
        print(
            f"rule {user_choices['rule']}, shape {user_choices['shape']}; {what}: {len(stored)} frames of "
            f"{stored.parts[0][0].shape}, {share:.0%} with a mask: {each:.2f} ms a frame on one core; ratio to "
            f"the goal of {GOAL:g} ms: {each / GOAL:.2f}"
        )


def finish(stored: Predictions, decision: Decision, rounds: int) -> tuple[float, float]:
    """Milliseconds a frame, the best of some rounds, and the share of frames with a mask."""
    best = float("inf")
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(1):
        path = Path(folder) / "submission.csv"
        for _ in range(rounds):
            started = time.perf_counter()
            submission.write(path, encode_masks(stored, decision, workers=1))
            report = submission.check(path)
            best = min(best, time.perf_counter() - started)
        report.raise_if_faulty()
    return best / len(stored) * 1000, report.share


if __name__ == "__main__":
    main()
