"""Every preset on the same fold of the same data for the same time: the table of docs/models.md.

    python benchmarks/zoo.py --data DIR --runs zoo [--preset small --preset segnet] [--size 96x128] \\
        [--budget 8m] [--write docs/models.md]

Each preset is trained by the command line, one after the other, in a process of its own, with fold 0 of five
patient-grouped folds; its decision is then learned on the out-of-fold predictions, nested by patient. What is
finished is not trained again, so that the command goes on where it was stopped. ``--size own`` keeps each
preset's own size, for a GPU: there also

    python benchmarks/zoo.py --data DIR --runs gpu --size own --budget 20m
    python benchmarks/zoo.py --data DIR --runs gpu --size own --budget 3h --all-folds --predict \\
        --preset THE --preset BEST --preset THREE

which trains all folds and times the ensemble with four flips over the test frames.
"""

import argparse
import os
import platform
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import kaggle_nerve.models  # noqa: F401 - makes the networks' own layers known
from kaggle_nerve.pipeline import learn_decision
from kaggle_nerve.runs import Run, open_run
from kaggle_nerve.settings import Settings, load_preset, preset_names
from kaggle_nerve.storage import read_completion, read_json, write_json, write_text

PLACE = "<!-- {name} -->"
HEAD = (
    "| preset | parameters | ms a frame | frames seen | OOF mean Dice (95 % over patients) | frames with a mask | "
    "the same, none dropped | presence AUC | pixel Dice | IoU | accuracy |"
)


@dataclass
class Row:
    """One line of the table."""

    preset: str
    parameters: int
    frame_ms: float
    seen: int
    dice: float
    low: float
    high: float
    present_dice: float
    kept_present_dice: float
    presence_auc: float
    pixel_dice: float
    iou: float
    pixel_accuracy: float
    all_empty: float
    peak_bytes: int | None = None
    predict_seconds: float | None = None

    def line(self) -> str:
        """As Markdown."""
        return (
            f"| {self.preset} | {self.parameters:,} | {self.frame_ms:.1f} | {self.seen:,} | "
            f"{self.dice:.3f} ({self.low:.3f} to {self.high:.3f}) | {self.present_dice:.3f} | "
            f"{self.kept_present_dice:.3f} | {self.presence_auc:.3f} | {self.pixel_dice:.3f} | {self.iou:.3f} | "
            f"{self.pixel_accuracy:.3f} |"
        )


def changes_of(preset: str, size: str) -> list[str]:
    """What makes ``preset`` comparable: its size, with the Dice smoothing as the same share of a frame."""
    settings = load_preset(preset)
    changes = ["folds=5", "seed=0"]
    if size != "own":
        height, width = map(int, size.split("x"))
        area = height * width / (settings.size[0] * settings.size[1])
        changes += [f"size=[{height}, {width}]", f"loss.smooth={max(settings.loss.smooth * area, 0.01):.4g}"]
    if settings.model.weights == "imagenet" and not os.environ.get("KAGGLE_NERVE_WEIGHTS"):
        changes.append("model.weights=none")
    return changes


def train(preset: str, args: argparse.Namespace) -> Run:
    """Train ``preset`` through the command line, or find it finished."""
    command = [sys.executable, "-m", "kaggle_nerve", "train-folds", "--preset", preset, "--run", preset]
    command += ["--data", str(args.data), "--runs", str(args.runs), "--time-budget", args.budget]
    for change in changes_of(preset, args.size):
        command += ["--set", change]
    if not args.all_folds:
        command += ["--fold", "0"]
    if not read_completion(args.runs / preset / "fold-0") or args.all_folds:
        subprocess.run(command, check=True)
    return open_run(args.runs, preset)


def measure(run: Run, args: argparse.Namespace) -> Row:
    """The row of a finished run."""
    import keras
    import pandas as pd

    folder = run.finished_folds()[0].folder
    done, history = read_completion(folder), pd.read_csv(folder / "history.csv")
    # One rule for all networks, so that the table compares these alone.
    figures = learn_decision([run], args.data, user_choices={"rule": "thresholds", "shape": "none"}).figures
    model = keras.saving.load_model(folder / "model.keras", compile=False)
    steady = history.iloc[1:] if len(history) > 1 else history
    row = Row(
        preset=run.name,
        parameters=model.count_params(),
        frame_ms=1000 * float((steady.train_seconds / steady.train_frames).median()),
        seen=int(history.train_frames.sum()),
        dice=figures.dice,
        low=figures.low,
        high=figures.high,
        present_dice=figures.present_dice,
        kept_present_dice=figures.kept_present_dice,
        presence_auc=figures.presence_auc,
        pixel_dice=done["pixel_dice"],
        iou=done["iou"],
        pixel_accuracy=done["pixel_accuracy"],
        all_empty=figures.all_empty,
        peak_bytes=read_json(folder / "environment.json").get("peak_memory"),
    )
    if args.predict:
        from kaggle_nerve.prediction.ensemble import predict_test

        started = time.perf_counter()
        predict_test(run, args.data, force=True)
        row.predict_seconds = time.perf_counter() - started
    return row


def table(rows: list[Row], args: argparse.Namespace, settings: Settings) -> str:
    """The Markdown of all rows."""
    import keras

    best_first = sorted(rows, key=lambda row: -row.dice)
    folds = "all folds" if args.all_folds else "fold 0 of 5"
    size = "each at its own size" if args.size == "own" else f"all at {args.size}"
    told = (
        f"{datetime.now(UTC):%d %B %Y}, {platform.machine()} with {len(os.sched_getaffinity(0))} cores, Keras "
        f"{keras.__version__} on {keras.backend.backend()}: {folds}, {args.budget} a preset, {size}. "
        f"All-empty: {rows[0].all_empty:.3f}."
    )
    lines = [told, "", HEAD, "|---" + "|--:" * (HEAD.count("|") - 2) + "|"]
    lines += [row.line() for row in best_first]
    for row in best_first:
        extra = [f"peak memory {row.peak_bytes / 2**30:.1f} GiB"] if row.peak_bytes else []
        extra += [f"test frames predicted in {row.predict_seconds:.0f} s"] if row.predict_seconds else []
        if extra:
            lines.append(f"\n{row.preset}: {', '.join(extra)}.")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True, help="folder of these runs alone")
    parser.add_argument("--preset", dest="presets", action="append", help="default: all")
    parser.add_argument("--size", default="96x128", help="HEIGHTxWIDTH, or own")
    parser.add_argument("--budget", default="8m")
    parser.add_argument("--all-folds", action="store_true")
    parser.add_argument("--predict", action="store_true", help="time the ensemble over the test frames")
    parser.add_argument("--write", type=Path, help="put the table into this file, at its marker")
    parser.add_argument("--marker", default="zoo processor")
    args = parser.parse_args()
    names = args.presets or preset_names()
    for name in names:
        print(f"== {name}", flush=True)
        started = time.perf_counter()
        run = train(name, args)
        row = measure(run, args)
        write_json(run.folder / "zoo.json", asdict(row))
        print(f"{row.line()}  ({time.perf_counter() - started:.0f} s)", flush=True)
    rows = [Row(**read_json(path)) for path in sorted(args.runs.glob("*/zoo.json"))]
    text = table(rows, args, load_preset(names[0]))
    print(text)
    if args.write:
        place = PLACE.format(name=args.marker)
        before, _, rest = args.write.read_text(encoding="utf-8").partition(place)
        _, _, after = rest.partition(place)
        write_text(args.write, f"{before}{place}\n{text}\n{place}{after}")


if __name__ == "__main__":
    main()
