"""What a Ray cluster costs: `train-folds --cluster local` over the same folds side by side without it, in turns.

    python benchmarks/cluster.py --data DIR [--preset tiny] [--folds 2] [--epochs 12] [--turns 2]

Each turn gives both commands, each in a folder of its own, with the caches made before. The time is that of the whole
command: the start of Ray, its checks of the node, the copies of all files that a fold writes. A fold should take a
minute or more.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

WAYS = {"local": ("--jobs", "2"), "cluster": ("--cluster", "local", "--jobs", "2")}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--folds", default="2")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--turns", type=int, default=2)
    args = parser.parse_args()
    command = [sys.executable, "-m", "kaggle_nerve", "train-folds", "--data", str(args.data.absolute())]
    command += ["--preset", args.preset, "--folds", args.folds, "--set", "training.collapse_epochs=10000"]
    with tempfile.TemporaryDirectory() as folder:
        variables = {**os.environ, "KAGGLE_NERVE_CACHE": str(Path(folder) / "cache")}

        def train(name: str, epochs: int, *words: str) -> float:
            changes = ["--set", f"training.epochs={epochs}", "--run", name]
            started = time.perf_counter()
            subprocess.run(
                [*command, *changes, *words], cwd=folder, env=variables, check=True, capture_output=True
            )
            return time.perf_counter() - started

        train("cache", 1, *WAYS["local"], "--fold", "0")
        seconds: dict[str, list[float]] = {way: [] for way in WAYS}
        for turn in range(args.turns):
            for way, words in list(WAYS.items())[:: -1 if turn % 2 else 1]:
                seconds[way].append(train(f"{way}-{turn}", args.epochs, *words))
                print(f"turn {turn + 1}, {way}: {seconds[way][-1]:.1f} s", flush=True)
    ratio = statistics.median(seconds["cluster"]) / statistics.median(seconds["local"])
    print(f"cluster over local: {ratio:.3f} (limit 1.10)")


if __name__ == "__main__":
    main()
