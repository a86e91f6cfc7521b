"""Everything that is measured on a GPU, by one command, in stages that each write what they have at once.

    python benchmarks/gpu.py --data DIR --out results/2026-11-27-h100 [--stages throughput,train,predict]
    python benchmarks/gpu.py --rehearse            # every stage on the processor, tiny, in a minute

- ``throughput``: for each preset at its own size, in bfloat16 where the device prefers it: frames a second of the bare
  compiled step (its batch lies on the device), of the step as in training (batches drawn, gathered and augmented), and
  of prediction with four views; peak memory; and the same U-Net in PyTorch, where that is installed. All networks are
  compiled at the same time, then timed one after the other.
- ``train``: ``train-folds`` with all folds under a time budget, ``tune``, a validated submission, the report page.
- ``predict``: all test frames by every fold's model, with four views.

Results are JSON files, ``README.md`` with the tables, and small files of the run; no frames. Runs on TensorFlow and on
JAX (``KERAS_BACKEND=jax``; TensorFlow need not be installed).
"""

import argparse
import json
import lzma
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).parents[1]
STAGES = ("throughput", "train", "predict")
PRESETS = ("default", "small", "unet-attention", "unet-inception", "unet-effb1-448")
TINY = ("size=[48, 64]", "model.width=4", "model.depth=2", "training.batch=4", "training.epochs=2", "folds=2+all")
PEER = Path(__file__).with_name("torch_unet.py")
PEER_CHANGES = ("model.presence_pool=mean",)
"""What makes a preset's network the peer's."""

COMPILING = 0.7
"""Share of the time of the stage ``throughput`` for compilation; what takes longer is left out."""

OURS, THEIRS = "peer's U-Net in Keras", "peer's U-Net in PyTorch"
VIEWS = "flips"
PREDICT = "predict"


class Child:
    """A process that compiles, says that it is ready, and then times what it is asked to."""

    def __init__(self, name: str, command: list[str], log: Path, first: str | None = None):
        self.name, self._lines = name, queue.Queue[str]()
        self._log = log.open("w")
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(PACKAGE), os.environ.get("PYTHONPATH", "")])},
        )
        threading.Thread(target=self._read, daemon=True).start()
        if first:
            self.send(first)

    def send(self, line: str) -> None:
        """Send a line."""
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def answer(self, seconds: float) -> Any:
        """Wait for an answer; None if there is none in time, or the process has ended."""
        try:
            line = self._lines.get(timeout=max(0.0, seconds))
        except queue.Empty:
            return None
        return json.loads(line) if line else None

    def ask(self, line: str, seconds: float) -> Any:
        """Send a line and wait for the answer."""
        try:
            self.send(line)
        except (BrokenPipeError, OSError):
            return None
        return self.answer(seconds)

    def end(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.wait()
        self._log.close()

    def _read(self) -> None:
        for line in self.process.stdout:
            if line.strip():
                self._lines.put(line)
        self._lines.put("")


def write(path: Path, values: Any) -> None:
    """Write JSON at once."""
    path.write_text(json.dumps(values, indent=1) + "\n")


def throughput(args: argparse.Namespace, deadline: float) -> dict[str, Any]:
    """Time every preset; return name -> figures."""
    own = [sys.executable, str(Path(__file__).resolve()), "--data", str(args.data), "--child"]
    children = {}
    for preset in args.presets:
        changes = ["training.precision=auto", *args.changes, *(TINY if args.rehearse else ())]
        children[preset] = Child(preset, [*own, json.dumps([preset, changes])], args.out / f"{preset}.log")
    same = [*args.changes, *PEER_CHANGES, *(TINY if args.rehearse else ())]
    if "default" in args.presets and args.torch:
        children[OURS] = Child(
            "ours", [*own, json.dumps(["default", same])], args.out / "ours.log"
        )
        children[THEIRS] = Child(
            "torch", [args.torch, str(PEER)], args.out / "torch.log", first=json.dumps(peer(same, args.rehearse))
        )
    results: dict[str, Any] = {}
    steps = 4 if args.rehearse else 60
    now = time.monotonic()
    compiled = now + COMPILING * (deadline - now)
    try:
        for name, child in children.items():
            ready = child.answer(compiled - time.monotonic())
            print(f"{name}: {'compiled' if ready else 'not compiled in time'}", flush=True)
            if ready is None:
                results[name] = {"failed": "not compiled in time, or failed: see its log"}
                child.end()
                continue
            results[name] = ready
            write(args.out / "throughput.json", results)
        for name, child in children.items():
            if "failed" in results[name] or time.monotonic() > deadline:
                continue
            if name == THEIRS:
                seconds = min(child.ask(str(steps), 60) or float("nan") for _ in range(3))
                results[name] |= {"bare_ms": 1000 * seconds / steps}
            else:
                for what in ("bare", "fed", "bare", "fed", "predict", "memory"):
                    results[name] |= child.ask(f"{what} {steps}", 120) or {}
            print(name, json.dumps(results[name]), flush=True)
            write(args.out / "throughput.json", results)
        pair = [children[name] for name in ("default", OURS) if "fed_ms" in results.get(name, {})]
        if len(pair) == 2 and time.monotonic() < deadline:
            # Two folds on one device: each is timed while the other trains.
            for each in pair:
                each.send(f"together {2 * steps}")
            results["default, two at once"] = {"fed_ms": [(each.answer(60) or {}).get("together_ms") for each in pair]}
            print("two at once", results["default, two at once"], flush=True)
            write(args.out / "throughput.json", results)
    finally:
        for child in children.values():
            child.end()
    return results


def peer(changes: list[str], rehearse: bool) -> dict[str, Any]:
    """Return what `torch_unet.py` needs to know."""
    sys.path.insert(0, str(PACKAGE))
    from kaggle_nerve.settings import load_preset

    settings = load_preset("default", tuple(changes))
    network = {name: getattr(settings.model, name) for name in ("width", "depth", "widest", "stem", "dropout")}
    return {
        "threads": os.cpu_count(),
        "channels_last": True,
        "network": network,
        "size": settings.size,
        "batch": settings.training.batch,
        "smooth": settings.loss.smooth,
        "device": "cpu" if rehearse else "cuda",
        "optimiser": {"adam": "Adam", "adamw": "AdamW"}[settings.optimiser.name],
    }


def child(preset: str, changes: list[str], data: Path) -> None:
    """Compile ``preset``, then answer what to time on standard input: ``bare N``, ``fed N``, ``predict N``, ``memory``."""
    sys.stdout, answers = sys.stderr, sys.stdout
    from kaggle_nerve import devices

    devices.prepare_environment()
    import keras
    import numpy as np

    from kaggle_nerve.data import cache as caches
    from kaggle_nerve.data.batches import Batches
    from kaggle_nerve.data.frames import locate
    from kaggle_nerve.prediction.forward import probabilities
    from kaggle_nerve.settings import load_preset
    from kaggle_nerve.training import device_loops, optimisers
    from kaggle_nerve.training.device_steps import MOST_STEPS, DeviceSteps

    settings = load_preset(preset, tuple(changes))
    if settings.model.weights == "imagenet":
        settings = load_preset(preset, (*changes, "model.weights=none"))
    cache = caches.open_training(locate(data), settings.size, workers=os.cpu_count() or 1)
    precision = optimisers.resolve_precision(settings)
    started = time.perf_counter()
    model = optimisers.build_compiled(settings, precision)
    table, size = cache.table, settings.training.batch
    batches = Batches(
        cache.frames,
        cache.masks,
        table.has_mask.to_numpy(),
        np.arange(len(table)),
        batch=size,
        seed=0,
        ranges=settings.augmentation,
        outputs=tuple(model.output),
    )
    fed = DeviceSteps(model, batches)
    frames, targets, *_ = batches[0]
    arrays = {name: keras.ops.convert_to_tensor(values) for name, values in targets.items()}
    arrays["frames"] = keras.ops.convert_to_tensor(frames)
    loop = device_loops.build(
        model, lambda held, step: (held["frames"], {name: held[name] for name in targets}, None)
    )
    views = np.asarray(cache.frames[: 4 * settings.prediction.batch])

    def bare(count: int) -> float:
        feed, rates = {"number": np.arange(MOST_STEPS)}, np.full(MOST_STEPS, 1e-4, np.float32)
        begun = time.perf_counter()
        with loop.session():
            calls = [loop.call(arrays, feed, rates, min(MOST_STEPS, count - n)) for n in range(0, count, MOST_STEPS)]
            keras.ops.convert_to_numpy(calls[-1])
        return time.perf_counter() - begun

    def step(count: int) -> float:
        begun = time.perf_counter()
        fed.run(count, lambda: 1e-4, lambda number: False)
        return time.perf_counter() - begun

    def predict() -> float:
        # With the compilation of the first batch left out.
        stream = probabilities(model, views, batch=settings.prediction.batch, tta=VIEWS)
        next(stream)
        begun = time.perf_counter()
        rest = sum(len(part.presence) for part in stream)
        return (time.perf_counter() - begun) / max(rest, 1)

    facts = {
        "device": devices.names()[0],
        "precision": precision,
        "parameters": model.count_params(),
        "size": list(settings.size),
        "batch": size,
        "build_s": round(time.perf_counter() - started, 1),
    }
    for name, work in {"fed": lambda: (step(1), step(3)), "bare": lambda: bare(1), "predict": predict}.items():
        if name not in os.environ.get("GPU_PARTS", "fed bare predict"):
            continue
        started = time.perf_counter()
        work()
        facts[f"compile_{name}_s"] = round(time.perf_counter() - started, 1)
        print(name, facts, file=sys.stderr, flush=True)
    print(json.dumps(facts), file=answers, flush=True)
    best: dict[str, float] = {}
    for line in sys.stdin:
        what, _, count = line.strip().partition(" ")
        if what == "memory":
            result: dict[str, Any] = {"peak_bytes": devices.peak_memory()}
        elif what == "predict":
            result = {"predict_ms_a_frame": 1000 * predict()}
        else:
            number = min(int(count), len(batches))
            seconds = 1000 * (bare if what == "bare" else step)(number) / number
            best[what] = min(seconds, best.get(what, seconds))
            result = {f"{what}_ms": best[what], f"{what}_frames_a_second": 1000 * size / best[what]}
        print(json.dumps(result), file=answers, flush=True)


def command(args: argparse.Namespace, *words: str, limit: float) -> tuple[float, str]:
    """Run a verb of the command line; return its seconds and output."""
    started = time.perf_counter()
    log = args.out / "commands.log"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PACKAGE), os.environ.get("PYTHONPATH", "")])}
    with log.open("ab") as file:
        file.write(f"\n$ kaggle-nerve {' '.join(words)}\n".encode())
        file.flush()
        done = subprocess.run(
            [sys.executable, "-m", "kaggle_nerve", *words],
            stdout=subprocess.PIPE,
            stderr=file,
            timeout=max(1.0, limit),
            env=environment,
        )
        file.write(done.stdout)
    if done.returncode:
        raise RuntimeError(f"{words[0]} failed: see {log}")
    return time.perf_counter() - started, done.stdout.decode()


def train(args: argparse.Namespace, deadline: float) -> dict[str, Any]:
    """Train all folds of a preset, tune, submit without uploading, and report; return the seconds of each."""
    preset, runs = args.presets[0], str(args.runs)
    changes = [word for change in (*args.changes, *(TINY if args.rehearse else ())) for word in ("--set", change)]
    where = ["--data", str(args.data), "--runs", runs]
    submission = args.out / "submission.csv"
    result: dict[str, Any] = {"preset": preset, "changes": list(args.changes), "jobs": args.jobs}
    steps = {
        "train-folds": ["--preset", preset, "--run", "gpu", *where, *changes, "--jobs", str(args.jobs)]
        + ["--time-budget", args.budget],
        "tune": ["--run", "gpu", *where],
        "submit": ["--run", "gpu", *where, "--dry-run", "--out", str(submission)],
        "report": ["--run", "gpu", *where, "--out", str(args.out / "report.html")],
    }
    for verb, words in steps.items():
        result[f"{verb}_s"], text = command(args, verb, *words, limit=deadline - time.monotonic())
        print(f"{verb}: {result[f'{verb}_s']:.1f} s\n{text}", flush=True)
        keep(args.runs / "gpu", args.out, result)
        write(args.out / "train.json", result)
    (args.out / "submission.csv.xz").write_bytes(lzma.compress(submission.read_bytes()))
    submission.unlink()
    return result


def keep(run: Path, out: Path, result: dict[str, Any]) -> None:
    """Copy a run's small files, and add its figures to ``result``."""
    if (run / "decision.json").is_file():
        shutil.copy(run / "decision.json", out)
        result["figures"] = json.loads((run / "decision.json").read_text())["figures"]
    for fold in sorted(run.glob("fold-*")):
        if (fold / "history.csv").is_file():
            shutil.copy(fold / "history.csv", out / f"{fold.name}-history.csv")
        environment = fold / "environment.json"
        if environment.is_file():
            facts = json.loads(environment.read_text())
            result.setdefault("folds", {})[fold.name] = {
                name: facts[name] for name in ("precision", "peak_memory", "seconds")
            }


def predict(args: argparse.Namespace, deadline: float) -> dict[str, Any]:
    """Predict the test frames with four views by the models of all folds; return the seconds."""
    order = json.dumps([PREDICT, str(args.runs)])
    worker = Child(
        "predict",
        [sys.executable, str(Path(__file__).resolve()), "--data", str(args.data), "--child", order],
        args.out / "predict.log",
    )
    result = worker.answer(deadline - time.monotonic()) or {"failed": "see predict.log"}
    worker.end()
    write(args.out / "predict.json", result)
    print(result, flush=True)
    return result


def predict_child(runs: Path, data: Path) -> None:
    """Predict twice: the second time, everything is compiled."""
    sys.stdout, answers = sys.stderr, sys.stdout
    from kaggle_nerve import devices

    devices.prepare_environment()
    from kaggle_nerve.prediction.ensemble import predict_test
    from kaggle_nerve.runs import open_run

    run = open_run(runs, f"gpu@{VIEWS}")
    result: dict[str, Any] = {"models": len(run.test_folds()), "views": 4}
    for name in ("first_s", "second_s"):
        started = time.perf_counter()
        predict_test(run, data, force=True, workers=os.cpu_count() or 1)
        result[name] = round(time.perf_counter() - started, 1)
    result["frames"] = run.test_facts().frames
    print(json.dumps(result), file=answers, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--out", type=Path, help="folder of the results")
    parser.add_argument("--runs", type=Path, help="folder of the run; default: a temporary one")
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument("--preset", dest="presets", action="append", help="default: those of the table")
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--jobs", type=int, default=1, help="folds side by side")
    parser.add_argument("--budget", default="6m", help="time of train-folds")
    parser.add_argument("--throughput", type=float, default=150, help="seconds of the stage throughput")
    parser.add_argument("--limit", type=float, default=540, help="seconds of everything")
    parser.add_argument("--torch", default="", help="a Python that has torch: compares with PyTorch")
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        name, detail = json.loads(args.child)
        if name == PREDICT:
            predict_child(Path(detail), args.data)
        else:
            child(name, detail, args.data)
        return
    deadline = time.monotonic() + args.limit
    with tempfile.TemporaryDirectory() as scratch:
        args.runs = args.runs or Path(scratch) / "runs"
        args.out = args.out or Path(scratch) / "out"
        args.out.mkdir(parents=True, exist_ok=True)
        if args.rehearse and not args.data:
            sys.path.insert(0, str(PACKAGE))
            from kaggle_nerve.phantom import write_competition

            args.data = Path(scratch) / "data"
            write_competition(args.data, seed=0, subjects=4, frames=8, test_subjects=1, test_frames=4)
        args.presets = args.presets or list(PRESETS)
        for stage in args.stages.split(","):
            started = time.perf_counter()
            end = min(deadline, time.monotonic() + (args.throughput if stage == "throughput" else args.limit))
            try:
                {"throughput": throughput, "train": train, "predict": predict}[stage](args, end)
                print(f"== {stage}: {time.perf_counter() - started:.0f} s", flush=True)
            except (RuntimeError, subprocess.TimeoutExpired, OSError) as fault:
                print(f"== {stage} failed after {time.perf_counter() - started:.0f} s: {fault}", flush=True)


if __name__ == "__main__":
    main()
