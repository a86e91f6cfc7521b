"""Test probabilities to a finished, checked CSV: milliseconds per frame on one core, against the goal.

    python benchmarks/finishing.py [--run NAME --runs DIR] [--frames 1000] [--size 96 128]

Uses a run's out-of-fold maps, or discs with soft edges on 41 % of the frames. One worker, OpenCV on
one thread; resize, decide, encode, validate and write are all counted.
"""

import argparse
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from maps import synthetic

from kaggle_nerve.competition import submission
from kaggle_nerve.decision.masks import encoded_masks
from kaggle_nerve.decision.rule import Rule
from kaggle_nerve.prediction.stored import Stored, open_oof
from kaggle_nerve.runs import open_run

GOAL = 5.0


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
        stored = Stored(table, stored.parts, stored.rows, stored.source)
    else:
        stored = synthetic(args.frames, tuple(args.size))
    best = float("inf")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "submission.csv"
        for _ in range(args.rounds):
            started = time.perf_counter()
            submission.write(path, encoded_masks(stored, Rule(0.5, 1500, 0.5), workers=1))
            report = submission.check(path)
            best = min(best, time.perf_counter() - started)
        report.raise_if_faulty()
    each = best / len(stored) * 1000
    what = f"run {args.run}" if args.run else "synthetic maps"
    print(f"{what}: {len(stored)} frames of {stored.parts[0][0].shape}, {report.share:.0%} with a mask")
    print(f"{each:.2f} ms a frame on one core; ratio to the goal of {GOAL:g} ms: {each / GOAL:.2f}")


if __name__ == "__main__":
    main()
