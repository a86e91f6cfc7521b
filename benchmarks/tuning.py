"""Learning the decision over as many frames as the competition has, against its limit of two minutes.

python benchmarks/tuning.py [--frames 5635] [--size 96 128]
"""

import argparse
import resource
import time

import numpy as np
import pandas as pd
from maps import synthetic

from kaggle_nerve.competition import rle
from kaggle_nerve.decision import tune

LIMIT = 120.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=5635)
    parser.add_argument("--size", type=int, nargs=2, default=(96, 128))
    args = parser.parse_args()
    stored = synthetic(args.frames, tuple(args.size))
    pixels = [rle.encode(stored.full(row) >= np.float32(0.4)) for row in range(len(stored))]
    truth = stored.table[["subject", "img"]].assign(pixels=pixels)
    started = time.perf_counter()
    tune.tune(stored, pd.DataFrame(truth))
    seconds = time.perf_counter() - started
    rules = len(tune.THRESHOLDS) * len(tune.AREAS) * len(tune.PRESENCES)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{rules} rules over {args.frames} frames: {seconds:.1f} s, peak memory of the process {memory:.0f} MB"
    )
    print(f"ratio to the limit of {LIMIT:g} s: {seconds / LIMIT:.2f}")


if __name__ == "__main__":
    main()
