"""Run-length text of full-size masks against pycocotools: time per mask and ratios, in one run.

    python benchmarks/rle.py [--csv train_masks.csv] [--masks 500] [--rounds 15]

Encoding starts from row-major uint8 masks, as networks and OpenCV give them. pycocotools wants
column-major ones, so turning them counts as its time; it writes counts and no text. Decoding starts
from the text here, and from pycocotools' own codes there. The two take turns; each mask counts with
its best of all rounds. Masks that are empty are left out.
"""

import argparse
import csv
import io
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco

from kaggle_nerve.competition import rle
from kaggle_nerve.competition.facts import HEIGHT, SIZE, WIDTH

SURROGATE = Path(__file__).parents[2] / "shared" / "data" / "surrogate.zip"
GOAL = 0.5


def texts(path: Path | None, count: int) -> tuple[str, list[str]]:
    """Where the masks come from, in words, and the first ``count`` texts that are not empty."""
    if path is not None:
        source, content = str(path), path.read_text()
    elif SURROGATE.is_file():
        with zipfile.ZipFile(SURROGATE) as archive:
            source, content = f"{SURROGATE} (real masks)", archive.read("train_masks.csv").decode()
    else:
        return "synthetic ellipses (no train_masks.csv given, no surrogate found)", ellipses(count)
    rows = csv.DictReader(io.StringIO(content))
    return source, [row["pixels"] for row in rows if row["pixels"]][:count]


def ellipses(count: int) -> list[str]:
    """Texts of ellipses of about the area and place of real masks."""
    random = np.random.default_rng(0)
    row, column = np.ogrid[:HEIGHT, :WIDTH]
    shapes = zip(
        random.uniform(100, 225, count),
        random.uniform(270, 400, count),
        random.uniform(35, 60, count),
        random.uniform(35, 60, count),
        strict=True,
    )
    return [rle.encode(((row - y) / h) ** 2 + ((column - x) / w) ** 2 < 1) for y, x, h, w in shapes]


def race(contestants: Sequence[tuple[Callable[[Any], Any], Sequence[Any]]], rounds: int) -> list[float]:
    """Microseconds per item of each (function, items), taking turns sweep by sweep.

    Within a turn a contestant goes through all its items. Turns item by item would hand the second
    one its input in the processor's cache.
    """
    best = np.full((len(contestants), len(contestants[0][1])), np.inf)
    for _ in range(rounds):
        for times, (function, items) in zip(best, contestants, strict=True):
            for index, item in enumerate(items):
                begun = time.perf_counter()
                function(item)
                times[index] = min(times[index], time.perf_counter() - begun)
    return (best.mean(axis=1) * 1e6).tolist()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--csv", type=Path, help="a train_masks.csv; default: the surrogate's, else ellipses")
    parser.add_argument("--masks", type=int, default=500, help="how many masks (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=15, help="best of how many (default: %(default)s)")
    arguments = parser.parse_args()
    source, truth = texts(arguments.csv, arguments.masks)
    masks = [np.ascontiguousarray(rle.decode(text)) for text in truth]
    codes = [coco.encode(np.asfortranarray(mask)) for mask in masks]
    for mask, text, code in zip(masks, truth, codes, strict=True):
        if rle.encode(mask) != text or not np.array_equal(coco.decode(code), rle.decode(text)):
            parser.exit(1, "a mask does not round-trip; the times would mean nothing\n")
    print(f"{len(masks)} masks of {SIZE[0]} x {SIZE[1]} from {source}, best of {arguments.rounds} each")

    def turned(mask: np.ndarray) -> Any:
        return coco.encode(np.asfortranarray(mask))

    for name, contestants in {
        "encode": [(rle.encode, masks), (turned, masks)],
        "decode": [(rle.decode, truth), (coco.decode, codes)],
    }.items():
        ours, theirs = race(contestants, arguments.rounds)
        verdict = "met" if ours <= GOAL * theirs else "NOT met"
        print(
            f"{name}: {ours:6.1f} us here, {theirs:6.1f} us pycocotools, "
            f"ratio {ours / theirs:.2f} (goal {GOAL}: {verdict})"
        )


if __name__ == "__main__":
    main()
