"""A process of `gpu.py`: compile a network and time what it is asked to, or predict the test frames.

The only argument is an order in JSON. With ``preset``, ``changes`` and ``data`` it compiles, answers with facts, then
answers the lines ``bare N``, ``fed N``, ``together N`` (N steps), ``predict`` and ``memory``. With ``run``, ``runs``
and ``data`` it predicts twice and answers once.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from kaggle_nerve import devices

devices.prepare_environment()

import keras  # noqa: E402
import numpy as np  # noqa: E402

from kaggle_nerve.data import cache as caches  # noqa: E402
from kaggle_nerve.data.batches import Batches  # noqa: E402
from kaggle_nerve.data.frames import locate  # noqa: E402
from kaggle_nerve.prediction.ensemble import predict_test  # noqa: E402
from kaggle_nerve.prediction.forward import probabilities  # noqa: E402
from kaggle_nerve.runs import open_run  # noqa: E402
from kaggle_nerve.settings import Settings, load_preset  # noqa: E402
from kaggle_nerve.training import device_loops, optimisers  # noqa: E402
from kaggle_nerve.training.device_steps import MOST_STEPS, DeviceSteps  # noqa: E402

VIEWS = "flips"
PREDICTED_BATCHES = 4


class Timer:
    """A compiled network and its steps."""

    def __init__(self, settings: Settings, data: Path):
        cache = caches.open_training(locate(data), settings.size, workers=os.cpu_count() or 1)
        self.settings, self.frames = settings, cache.frames
        started = time.perf_counter()
        precision = optimisers.resolve_precision(settings)
        self.model = optimisers.build_compiled(settings, precision)
        self.batches = Batches(
            cache.frames,
            cache.masks,
            cache.table.has_mask.to_numpy(),
            np.arange(len(cache.table)),
            batch=settings.training.batch,
            seed=0,
            ranges=settings.augmentation,
            outputs=tuple(self.model.output),
        )
        self.steps = DeviceSteps(self.model, self.batches)
        frames, targets, *_ = self.batches[0]
        held = {"frames": frames, **targets}
        self.held = {name: keras.ops.convert_to_tensor(values) for name, values in held.items()}
        self.loop = device_loops.build(
            self.model, lambda held, step: (held["frames"], {name: held[name] for name in targets}, None)
        )
        self.facts = {
            "device": devices.names()[0],
            "precision": precision,
            "parameters": self.model.count_params(),
            "size": list(settings.size),
            "batch": self.batches.batch,
            "build_s": round(time.perf_counter() - started, 1),
        }
        for name, work in {"fed": self.fed, "bare": self.bare}.items():
            started = time.perf_counter()
            work(1)
            self.facts[f"compile_{name}_s"] = round(time.perf_counter() - started, 1)
        self.fed(3)  # until then it takes few steps in a call

    def bare(self, count: int) -> float:
        """Return the seconds of ``count`` steps on one batch that lies on the device."""
        feed, rates = {"number": np.arange(MOST_STEPS)}, np.full(MOST_STEPS, 1e-4, np.float32)
        started = time.perf_counter()
        with self.loop.session():
            for first in range(0, count, MOST_STEPS):
                loss = self.loop.call(self.held, feed, rates, min(MOST_STEPS, count - first))
            keras.ops.convert_to_numpy(loss)
        return time.perf_counter() - started

    def fed(self, count: int) -> float:
        """Return the seconds of ``count`` steps as in training."""
        started = time.perf_counter()
        self.steps.run(count, lambda: 1e-4, lambda number: False)
        return time.perf_counter() - started

    def predict(self) -> float:
        """Return the seconds of a frame's prediction, after the first batch, which compiles."""
        batch = self.settings.prediction.batch
        frames = np.resize(self.frames, ((1 + PREDICTED_BATCHES) * batch, *self.frames.shape[1:]))
        stream = probabilities(self.model, frames, batch=batch, tta=VIEWS)
        next(stream)
        started = time.perf_counter()
        count = sum(len(output.presence) for output in stream)
        return (time.perf_counter() - started) / count

    def memory(self) -> dict[str, Any]:
        """Return the peak memory, and an estimate of the largest batch: the rest of the memory at a frame's share.

        JAX alone says how much memory there is.
        """
        peak = devices.peak_memory()
        if peak is None or keras.backend.backend() != "jax":
            return {"peak_bytes": peak}
        import jax

        limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit", 0)
        variables = [*self.model.variables, *self.model.optimizer.variables]
        fixed = sum(variable.value.nbytes for variable in variables) + 2 * self.frames.nbytes
        a_frame = max(1, peak - fixed) / self.batches.batch
        return {"peak_bytes": peak, "largest_batch_estimate": int((limit - fixed) / a_frame)}

    def answer(self, line: str) -> dict[str, Any]:
        """Answer a question."""
        what, _, number = line.strip().partition(" ")
        if what == "memory":
            return self.memory()
        if what == "predict":
            return {"predict_ms_a_frame": round(1000 * self.predict(), 3)}
        count = min(int(number), len(self.batches))
        seconds = (self.bare if what == "bare" else self.fed)(count) / count
        # The better of two.
        self.facts[f"{what}_ms"] = min(1000 * seconds, self.facts.get(f"{what}_ms", float("inf")))
        best = self.facts[f"{what}_ms"]
        return {
            f"{what}_ms": round(best, 3),
            f"{what}_frames_a_second": round(1000 * self.batches.batch / best),
        }


def predict_run(run_name: str, runs: Path, data: Path) -> dict[str, Any]:
    """Predict the test frames by every model of a run; the second time, everything is compiled."""
    run = open_run(runs, f"{run_name}@{VIEWS}")
    result: dict[str, Any] = {"models": len(run.test_folds()), "views": 4}
    for name in ("first_s", "second_s"):
        started = time.perf_counter()
        predict_test(run, data, force=True, workers=os.cpu_count() or 1)
        result[name] = round(time.perf_counter() - started, 1)
    facts = run.test_facts()
    result["frames"] = facts.frames if facts else 0
    return result


def main() -> None:
    order, answers = json.loads(sys.argv[1]), sys.stdout
    sys.stdout = sys.stderr  # libraries must not answer
    if "run" in order:
        print(
            json.dumps(predict_run(order["run"], Path(order["runs"]), Path(order["data"]))),
            file=answers,
            flush=True,
        )
        return
    settings = load_preset(order["preset"], tuple(order["changes"]))
    if settings.model.weights == "imagenet":
        settings = load_preset(order["preset"], (*order["changes"], "model.weights=none"))
    timer = Timer(settings, Path(order["data"]))
    print(json.dumps(timer.facts), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(timer.answer(line)), file=answers, flush=True)


if __name__ == "__main__":
    main()
