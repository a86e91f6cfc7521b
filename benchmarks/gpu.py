"""Everything that is measured on a GPU, by one command, in stages that each write what they have at once.

    python benchmarks/gpu.py --data DIR --out benchmarks/results/DATE-DEVICE [--stages train,predict,throughput]
    python benchmarks/gpu.py --rehearse --out DIR     # every stage on the processor, tiny

- ``train``: ``train-folds`` with all folds side by side under a time budget, ``tune``, a validated submission, the
  report page (which shows frames: it is not for publishing).
- ``predict``: all test frames by every fold's model, with four views, twice: compiling and compiled.
- ``throughput``: for each preset at its own size, milliseconds of the bare compiled step (its batch lies on the device)
  and of the step as in training (batches drawn, gathered and augmented), of two folds at once, and of prediction with
  four views; peak memory, and the largest batch that it suggests; with ``--torch`` the same U-Net in PyTorch. All are
  compiled at the same time, then timed one after the other.

Each stage has what the ones before it left of ``--limit``, and ends when it is over; a stage that fails leaves the
others alone. Runs on TensorFlow, and on JAX without TensorFlow (``KERAS_BACKEND=jax``).
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

HERE = Path(__file__).resolve().parent
PACKAGE = HERE.parent
sys.path.insert(0, str(PACKAGE))

from kaggle_nerve.phantom import write_competition  # noqa: E402
from kaggle_nerve.settings import load_preset  # noqa: E402

STAGES = ("train", "predict", "throughput")
PRESETS = ("default", "small", "unet-attention", "unet-inception", "unet-effb1-448")
TINY = ("size=[32, 48]", "model.width=4", "model.depth=1", "training.batch=4", "training.epochs=1", "folds=2")
PEER_CHANGES = ("model.presence_pool=mean", "model.window=1")
"""What makes the network of `default` the peer's."""

OURS, THEIRS = "peer's U-Net in Keras", "peer's U-Net in PyTorch"
COMPILING = 0.7
"""Share of the time of ``throughput`` for compilation; what takes longer is left out."""

RUN = "gpu"


class Worker:
    """A process that answers lines with lines of JSON. Its standard error goes to ``log``."""

    def __init__(self, command: list[str], log: Path):
        self._lines = queue.Queue[str]()
        self._log = log.open("w")
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment(),
        )
        threading.Thread(target=self._read, daemon=True).start()

    def send(self, line: str) -> None:
        """Send a line; a process that has ended will give no answer."""
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except OSError:
            pass

    def answer(self, seconds: float) -> Any:
        """Wait for an answer; None if there is none in time, or the process has ended."""
        try:
            line = self._lines.get(timeout=max(0.0, seconds))
        except queue.Empty:
            return None
        return json.loads(line) if line else None

    def ask(self, line: str, seconds: float) -> Any:
        """Send a line and wait for the answer."""
        self.send(line)
        return self.answer(seconds)

    def end(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.wait()
        self._log.close()

    def _read(self) -> None:
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put("")


def environment() -> dict[str, str]:
    """Return the environment of a process that imports this package."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(PACKAGE), os.environ.get("PYTHONPATH", "")])}


def write(path: Path, values: Any) -> None:
    """Write JSON."""
    path.write_text(json.dumps(values, indent=1) + "\n")


def train(args: argparse.Namespace, deadline: float) -> None:
    """Train all folds of the first preset, tune, make a submission and the report."""
    words = [word for change in changes(args) for word in ("--set", change)]
    where = ["--run", RUN, "--data", str(args.data), "--runs", str(args.runs)]
    submission = args.out / "submission.csv"
    verbs = {
        "train-folds": [
            "--preset",
            args.presets[0],
            *words,
            "--jobs",
            str(args.jobs),
            "--time-budget",
            args.budget,
        ],
        "tune": [],
        "submit": ["--dry-run", "--out", str(submission)],
        "report": ["--out", str(args.out / "report.html")],
    }
    result: dict[str, Any] = {"preset": args.presets[0], "changes": changes(args), "jobs": args.jobs}
    for verb, options in verbs.items():
        result[f"{verb}_s"] = run_verb(args, [verb, *where, *options], deadline)
        result |= keep(args.runs / RUN, args.out)
        write(args.out / "train.json", result)
    (args.out / "submission.csv.xz").write_bytes(lzma.compress(submission.read_bytes()))
    submission.unlink()


def run_verb(args: argparse.Namespace, words: list[str], deadline: float) -> float:
    """Run a verb of the command line, print its output, and return its seconds."""
    started, log = time.perf_counter(), args.out / "commands.log"
    with log.open("ab") as file:
        file.write(f"\n$ kaggle-nerve {' '.join(words)}\n".encode())
        file.flush()
        done = subprocess.run(
            [sys.executable, "-m", "kaggle_nerve", *words],
            stdout=subprocess.PIPE,
            stderr=file,
            timeout=max(1.0, deadline - time.monotonic()),
            env=environment(),
        )
        file.write(done.stdout)
    seconds = time.perf_counter() - started
    print(f"{words[0]}: {seconds:.1f} s\n{done.stdout.decode()}", flush=True)
    if done.returncode:
        raise RuntimeError(f"{words[0]} failed: see {log}")
    return round(seconds, 1)


def keep(run: Path, out: Path) -> dict[str, Any]:
    """Copy a run's small files; return its figures and those of its folds."""
    result: dict[str, Any] = {"folds": {}}
    decision = run / "decision.json"
    if decision.is_file():
        shutil.copy(decision, out)
        result["figures"] = json.loads(decision.read_text())["figures"]
    for fold in sorted(run.glob("fold-*")):
        if (fold / "history.csv").is_file():
            shutil.copy(fold / "history.csv", out / f"{fold.name}-history.csv")
        facts = json.loads((fold / "environment.json").read_text())
        result["folds"][fold.name] = {name: facts[name] for name in ("precision", "peak_memory", "seconds")}
    return result


def predict(args: argparse.Namespace, deadline: float) -> None:
    """Predict the test frames with four views by the models of all folds."""
    order = {"run": RUN, "runs": str(args.runs), "data": str(args.data)}
    worker = Worker(
        [sys.executable, str(HERE / "gpu_worker.py"), json.dumps(order)], args.out / "predict.log"
    )
    result = worker.answer(deadline - time.monotonic())
    worker.end()
    if result is None:
        raise RuntimeError(f"nothing was predicted in time: see {args.out / 'predict.log'}")
    write(args.out / "predict.json", result)
    print(result, flush=True)


def throughput(args: argparse.Namespace, deadline: float) -> None:
    """Time every preset, and the peer."""
    results: dict[str, Any] = {}
    now = time.monotonic()
    compiled = now + COMPILING * (deadline - now)
    workers = start_workers(args)
    try:
        for name, worker in workers.items():
            # The peer's ready line has its facts, too.
            results[name] = worker.answer(compiled - time.monotonic()) or {
                "failed": "not compiled in time: see its log"
            }
            print(f"{name}: {results[name]}", flush=True)
        for name, worker in workers.items():
            if "failed" in results[name]:
                worker.end()
                continue
            for what in (
                ("bare",) * 3 if name == THEIRS else ("bare", "fed", "bare", "fed", "predict", "memory")
            ):
                question = f"{args.steps}" if name == THEIRS else f"{what} {args.steps}"
                answer = worker.ask(question, deadline - time.monotonic())
                if isinstance(answer, float):
                    milliseconds = 1000 * answer / args.steps
                    answer = {"bare_ms": min(milliseconds, results[name].get("bare_ms", milliseconds))}
                results[name] |= answer or {}
            print(f"{name}: {results[name]}", flush=True)
            write(args.out / "throughput.json", results)
        pair = [workers[name] for name in ("default", OURS) if "fed_ms" in results.get(name, {})]
        if len(pair) == 2:
            # Two folds on one device: each is timed while the other trains.
            for worker in pair:
                worker.send(f"together {2 * args.steps}")
            results["two at once"] = [worker.answer(deadline - time.monotonic()) for worker in pair]
            print(f"two at once: {results['two at once']}", flush=True)
    finally:
        for worker in workers.values():
            worker.end()
    write(args.out / "throughput.json", results)


def start_workers(args: argparse.Namespace) -> dict[str, Worker]:
    """Start a process for each preset, and with ``--torch`` two for the peer's network."""
    orders = {preset: (preset, changes(args)) for preset in args.presets}
    if args.torch:
        orders[OURS] = ("default", [*PEER_CHANGES, *changes(args)])
    workers = {}
    for number, (name, (preset, words)) in enumerate(orders.items()):
        words = ["training.precision=auto", *words]
        order = {"preset": preset, "changes": words, "data": str(args.data)}
        command = [sys.executable, str(HERE / "gpu_worker.py"), json.dumps(order)]
        workers[name] = Worker(command, args.out / f"throughput-{number}.log")
    if args.torch:
        workers[THEIRS] = Worker([args.torch, str(HERE / "torch_unet.py")], args.out / "throughput-torch.log")
        workers[THEIRS].send(json.dumps(peer_order(orders[OURS][1], args.rehearse)))
    return workers


def changes(args: argparse.Namespace) -> list[str]:
    """Return the changes of settings."""
    return [*args.changes, *(TINY if args.rehearse else ())]


def peer_order(words: list[str], rehearse: bool) -> dict[str, Any]:
    """Return what `torch_unet.py` needs to know."""
    settings = load_preset("default", tuple(words))
    return {
        "threads": os.cpu_count(),
        "channels_last": True,
        "network": {
            name: getattr(settings.model, name) for name in ("width", "depth", "widest", "stem", "dropout")
        },
        "size": settings.size,
        "batch": settings.training.batch,
        "smooth": settings.loss.smooth,
        "device": "cpu" if rehearse else "cuda",
        "optimiser": {"adam": "Adam", "adamw": "AdamW"}[settings.optimiser.name],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="with --rehearse: a synthetic competition")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--runs", type=Path, help="folder of the run; default: a temporary one")
    parser.add_argument("--stages", default=",".join(STAGES))
    parser.add_argument(
        "--preset", dest="presets", action="append", help="the first is trained; default: five"
    )
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--jobs", type=int, default=6, help="folds side by side")
    parser.add_argument("--budget", default="275s", help="time of train-folds")
    parser.add_argument("--limit", type=float, default=540, help="seconds of everything")
    parser.add_argument("--steps", type=int, default=60, help="steps to time")
    parser.add_argument("--torch", default="", help="a Python that has torch: compares with PyTorch")
    parser.add_argument("--rehearse", action="store_true")
    args = parser.parse_args()
    args.presets = args.presets or list(PRESETS)
    deadline = time.monotonic() + args.limit
    args.out.mkdir(parents=True, exist_ok=True)
    failures = 0
    with tempfile.TemporaryDirectory() as scratch:
        args.runs = args.runs or Path(scratch) / "runs"
        if args.rehearse:
            args.presets, args.jobs, args.steps = args.presets[:1], 1, 2
            args.data = Path(scratch) / "data"
            write_competition(args.data, subjects=4, frames=8, test_subjects=1, test_frames=4)
        for stage in args.stages.split(","):
            started = time.perf_counter()
            try:
                {"train": train, "predict": predict, "throughput": throughput}[stage](args, deadline)
                print(f"== {stage}: {time.perf_counter() - started:.0f} s", flush=True)
            except (RuntimeError, subprocess.TimeoutExpired, OSError) as fault:
                failures += 1
                print(f"== {stage} failed after {time.perf_counter() - started:.0f} s: {fault}", flush=True)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
