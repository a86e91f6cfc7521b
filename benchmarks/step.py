"""One training step of a preset's U-Net against the same network in PyTorch, on this processor, in one run.

    python -m venv /tmp/torch && /tmp/torch/bin/pip install torch==2.13.0
    python benchmarks/step.py --torch /tmp/torch/bin/python [--preset small] [--rounds 7]

Both hold the same number of trainable weights (checked), the same losses, Adam and batch, and take turns round
by round, so that both see the same neighbours on the machine. PyTorch runs in both of its memory layouts;
the faster one counts.
"""

import argparse
import json
import os
import statistics
import subprocess
import time
from pathlib import Path

os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_ENABLE_ONEDNN_OPTS": "1"}

import keras
import numpy as np

from kaggle_nerve.settings import Settings, load_preset
from kaggle_nerve.training.optimisers import build_compiled

PEER = Path(__file__).with_name("torch_unet.py")


class Torch:
    """The peer's process."""

    def __init__(self, python: Path, settings: Settings, threads: int, channels_last: bool):
        self.process = subprocess.Popen(
            [python, PEER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        model = settings.model
        network = {name: getattr(model, name) for name in ("width", "depth", "widest", "stem", "dropout")}
        asked = {
            "threads": threads,
            "channels_last": channels_last,
            "network": network,
            "size": settings.size,
        }
        asked |= {"batch": settings.training.batch, "smooth": settings.loss.smooth}
        self.facts = json.loads(self._ask(json.dumps(asked)))

    def steps(self, count: int) -> float:
        """Seconds of ``count`` steps."""
        return float(self._ask(str(count)))

    def _ask(self, line: str) -> str:
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.process.stdout.readline()


def ours(settings: Settings):
    """(model, batch) ready for `train_on_batch`."""
    model = build_compiled(settings)
    random = np.random.default_rng(0)
    shape = (settings.training.batch, *settings.size, 1)
    masks = (random.random(shape) > 0.9).astype(np.float32)
    targets = {"mask": masks, "presence": np.ones((len(masks), 1), np.float32)}
    return model, ((random.random(shape) * 255).astype(np.float32), targets)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--torch", type=Path, required=True, help="a Python that has torch")
    parser.add_argument("--preset", default="small")
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=15)
    args = parser.parse_args()
    settings = load_preset(args.preset, tuple(args.changes))
    threads = len(os.sched_getaffinity(0))
    model, batch = ours(settings)
    trainable = sum(int(np.prod(values.shape)) for values in model.trainable_variables)

    def keras_steps(count: int) -> float:
        started = time.perf_counter()
        for _ in range(count):
            model.train_on_batch(*batch, return_dict=True)
        return time.perf_counter() - started

    peers = {f"torch, {name}": Torch(args.torch, settings, threads, name == "channels last")
             for name in ("channels first", "channels last")}  # fmt: skip
    for name, peer in peers.items():
        if peer.facts["parameters"] != trainable:
            raise SystemExit(f"{name} has {peer.facts['parameters']} weights, the preset {trainable}")
    runners = {"keras": keras_steps, **{name: peer.steps for name, peer in peers.items()}}
    times: dict[str, list[float]] = {name: [] for name in runners}
    for number in range(args.rounds + 1):
        for name, run in runners.items():
            seconds = run(args.steps) / args.steps
            if number:  # the first round compiles
                times[name].append(seconds)
    middle = {name: statistics.median(values) for name, values in times.items()}
    for name, values in times.items():
        print(f"{name:<22} {1000 * middle[name]:7.1f} ms a step (from {1000 * min(values):.1f} to "
              f"{1000 * max(values):.1f})")  # fmt: skip
    best = min(middle[name] for name in peers)
    version = next(iter(peers.values())).facts["version"]
    print(f"preset {args.preset}, {trainable} weights, batch {settings.training.batch}, {threads} threads, "
          f"Keras {keras.__version__} on {keras.backend.backend()} against torch {version}: "
          f"ratio {middle['keras'] / best:.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
