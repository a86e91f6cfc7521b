"""What `train-folds` costs beside its training steps: wall time over bare steps, in one run.

    python benchmarks/overhead.py --data DIR [--preset small] [--epochs 3]

Bare steps take batches that lie ready in memory. The first figure is an epoch's steps on batches that are
made as in training, augmentation included, over bare ones. The second is a whole fold (its cache is built
first): validation, checkpoints, logs, the dry step and the out-of-fold prediction are overhead, too;
compilation is taken out of both, and told.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "1"}

import keras
import numpy as np
import pandas as pd

from kaggle_nerve.data import cache as caches
from kaggle_nerve.data.batches import Batches
from kaggle_nerve.data.folds import assign, split
from kaggle_nerve.data.frames import locate
from kaggle_nerve.prediction.forward import probabilities
from kaggle_nerve.settings import load_preset
from kaggle_nerve.training.optimisers import build_compiled
from kaggle_nerve.training.run_folds import train_folds
from kaggle_nerve.training.steps import HostSteps


def bare_steps(model: keras.Model, ready: list, count: int) -> float:
    """Seconds of ``count`` steps on batches that lie ready."""
    started = time.perf_counter()
    for index in range(count):
        model.train_on_batch(*ready[index % len(ready)], return_dict=True)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--preset", default="small")
    parser.add_argument("--epochs", type=int, default=3)
    args = parser.parse_args()
    settings = load_preset(args.preset, (f"training.epochs={args.epochs}",))
    cache = caches.open_training(locate(args.data), settings.size)
    rows, held = split(cache.table, assign(cache.table, settings.folds, settings.seed), 0)
    model = build_compiled(settings)
    batches = Batches(
        cache.frames,
        cache.masks,
        cache.table.has_mask.to_numpy(),
        rows,
        batch=settings.training.batch,
        seed=0,
        ranges=settings.augmentation,
        outputs=tuple(model.output),
    )
    ready = [batches[index] for index in range(min(50, len(batches)))]

    started = time.perf_counter()
    bare_steps(model, ready, 1)
    frames = np.array(cache.frames[held])
    batch = settings.prediction.batch
    list(probabilities(model, frames[:batch], batch=batch, tta="none"))
    compilation = time.perf_counter() - started

    fed = []
    bare = 0.0
    for epoch in range(args.epochs):
        seconds = bare_steps(model, ready, len(batches))
        bare += seconds
        batches.start_epoch(epoch)
        started = time.perf_counter()
        HostSteps(model, batches).run(len(batches), next_rate=lambda: None, after_steps=lambda count: False)
        fed.append((time.perf_counter() - started) / seconds)
    started = time.perf_counter()
    list(probabilities(model, frames, batch=batch, tta="none"))
    forward = args.epochs * (time.perf_counter() - started)

    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        train_folds(args.data, Path(folder), "overhead", settings, fold=0)
        whole = time.perf_counter() - started - compilation
        epochs = pd.read_csv(Path(folder) / "overhead" / "fold-0" / "history.csv").seconds
    print(f"preset {args.preset}, {args.epochs} epochs of {len(batches)} steps, {len(held)} held-out frames")
    print(
        f"compilation {compilation:.1f} s (left out), bare steps {bare:.1f} s, validation's passes {forward:.1f} s"
    )
    print(f"steps with batches made on the way, over bare steps: {statistics.median(fed):.3f}")
    print(f"train-folds {whole:.1f} s: {whole / bare:.3f} of the bare steps")
    print(
        f"             {whole / (bare + forward):.3f} of the bare steps and validation's bare forward passes"
    )
    steady = epochs.iloc[1:].mean() / (bare / args.epochs)
    print(f"an epoch after the first, validation and checkpoint included: {steady:.3f} of its bare steps")


if __name__ == "__main__":
    main()
