"""Learning the decision over as many frames as the surrogate has, against its limits of 5 minutes and 2 GB.

python benchmarks/tuning.py [--frames 4436] [--size 96 128] [--runs-blended 1]
python benchmarks/tuning.py --data DIR --runs DIR --run NAME [--run NAME]
"""

import argparse
import resource
import time
from pathlib import Path

from maps import synthetic, truth

from kaggle_nerve.data.frames import locate, read_train_csv
from kaggle_nerve.decision import tune
from kaggle_nerve.prediction.stored import blend, open_oof
from kaggle_nerve.runs import open_run

SECONDS, MEGABYTES = 300.0, 2000.0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=4436)
    parser.add_argument("--size", type=int, nargs=2, default=(96, 128))
    parser.add_argument("--runs-blended", type=int, default=1)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--run", dest="names", action="append")
    args = parser.parse_args()
    if args.names:
        stored = blend([open_oof(open_run(args.runs, name)) for name in args.names])
        frames = read_train_csv(locate(args.data).train_csv)
    else:
        one = synthetic(args.frames, tuple(args.size))
        stored, frames = blend([one] * args.runs_blended), truth(one)
    started = time.perf_counter()
    tune.tune(stored, frames)
    seconds = time.perf_counter() - started
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{len(stored)} frames of {stored.table.subject.nunique()} subjects by {len(stored.parts)} runs: "
        f"{seconds:.1f} s, peak memory of the process {memory:.0f} MB"
    )
    print(f"ratio to {SECONDS:g} s: {seconds / SECONDS:.2f}; to {MEGABYTES:g} MB: {memory / MEGABYTES:.2f}")


if __name__ == "__main__":
    main()
