"""Comparing and merging submission files of the competition's size, against two minutes and 1 GB.

    python benchmarks/consensus.py [--files 8] [--frames 5508]

The files are synthetic: 41 % of the frames have a nerve of about 7000 pixels, and each file sees its
own version of it, with a ragged outline, moved and scaled by a few pixels, and overlooks or invents
some. Each step runs in a process of its own, whose whole peak memory counts.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from kaggle_nerve.competition import rle, submission
from kaggle_nerve.competition.facts import SIZE, TEST_FRAMES
from kaggle_nerve.submissions import merge
from kaggle_nerve.submissions.compare import compare

SECONDS, MEGABYTES = 120.0, 1000.0
SHARE, WRONG = 0.41, 0.06


def blob(random: np.random.Generator, centre: np.ndarray, radii: np.ndarray) -> str:
    """Text of an ellipse with a wavy outline; ``centre`` is (row, column), ``radii`` likewise, in pixels."""
    angle = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    waves = sum(random.normal(0, 0.05) * np.cos(n * angle + random.uniform(0, 6)) for n in range(2, 6))
    rows = centre[0] + radii[0] * (1 + waves) * np.sin(angle)
    columns = centre[1] + radii[1] * (1 + waves) * np.cos(angle)
    mask = np.zeros(SIZE, np.uint8)
    cv2.fillPoly(mask, [np.stack([columns, rows], axis=1).round().astype(np.int32)], 1)
    return rle.encode(mask)


def write_files(folder: Path, files: int, frames: int) -> list[Path]:
    """Submissions of the same frames, perturbed versions of one another."""
    random = np.random.default_rng(0)
    present = random.random(frames) < SHARE
    centres = np.stack([random.uniform(120, 240, frames), random.uniform(200, 400, frames)], axis=1)
    radii = np.stack([random.uniform(35, 50, frames), random.uniform(45, 60, frames)], axis=1)
    paths = [folder / f"{index}.csv" for index in range(files)]
    for path in paths:
        seen = present ^ (random.random(frames) < WRONG)
        drawn = (
            blob(random, centres[at] + random.normal(0, 6, 2), radii[at] * random.normal(1, 0.08, 2))
            if seen[at]
            else ""
            for at in range(frames)
        )
        submission.write(path, enumerate(drawn, 1))
    return paths


def measured(step: Callable[[], str], answers: multiprocessing.SimpleQueue) -> None:
    """Run a step; hand back its seconds, this process's peak in megabytes, and what the step told."""
    begun = time.perf_counter()
    told = step()
    seconds = time.perf_counter() - begun
    answers.put((seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, told))


class Compare:
    """The step that compares the first two files."""

    def __init__(self, paths: list[Path]):
        self.paths = paths

    def __call__(self) -> str:
        found = compare(*self.paths[:2], sample=self.paths[0])
        return f"mean Dice {found.dice:.3f}, where both have a mask {found.dice_where_both:.3f}"


class Merge:
    """The step that merges all files by one method."""

    def __init__(self, paths: list[Path], method: str):
        self.paths, self.method = paths, method

    def __call__(self) -> str:
        out = self.paths[0].with_name(f"{self.method}.out")
        done = merge.merge(self.paths, out, self.method, sample=self.paths[0])
        submission.check(out, self.paths[0]).raise_if_faulty()
        return f"{done.non_empty} with a mask, {done.disputed} disputed, {done.ties} ties"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=8, help="how many files (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=TEST_FRAMES, help="rows each (default: %(default)s)")
    arguments = parser.parse_args()
    # A fresh process, not a fork: a fork begins with the memory of the one that drew the files.
    processes = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        paths = write_files(Path(folder), arguments.files, arguments.frames)
        report = submission.check(paths[0])
        print(
            f"{arguments.files} files of {report.rows} rows, {report.share:.0%} with a mask "
            f"of {report.mean_area:.0f} pixels on average"
        )
        steps = {"compare two": Compare(paths)}
        steps |= {f"merge by {method}": Merge(paths, method) for method in merge.METHODS}
        for name, step in steps.items():
            answers = processes.SimpleQueue()
            process = processes.Process(target=measured, args=(step, answers))
            process.start()
            process.join()
            if process.exitcode:
                parser.exit(1, f"{name} failed; see above\n")
            seconds, megabytes, told = answers.get()
            print(
                f"{name:<19} {seconds:5.1f} s ({seconds / SECONDS:.3f} of {SECONDS:g} s), "
                f"{megabytes:4.0f} MB ({megabytes / MEGABYTES:.2f} of {MEGABYTES:g} MB); {told}"
            )


if __name__ == "__main__":
    main()
