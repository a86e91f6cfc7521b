"""What each step of the recipe for presence and outlines is worth: the table of docs/models.md.

    python benchmarks/recipe.py --data HELD_OUT --runs DIR [--fold 0 --fold 1] [--step NAME ...] [--empties DIR]

``--data`` is a competition made by `kaggle-nerve rehearse --data` (its folder competition/): its training frames
are those of the folds, and its held-out patients are not looked at here. Each step is a run of preset ``small``
without its later steps, with changes; its folds (all, or those named) are trained by the command line unless they
are finished, so that the command goes on where it was stopped. Figures are out-of-fold and nested by patient;
differences are paired, frame by frame, with the interval of a bootstrap of patients.

``--empties``: real frames without a mask (PNG). Beside them stand real frames with a mask of patients that the
fold's model did not see, each shrunk first to the size of one of the empties, so that sharpness gives nothing
away. The area under the ROC curve is that of the presence, the mean over the folds. Nothing is trained or
chosen on them.
"""

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from sklearn.metrics import roc_auc_score

from kaggle_nerve.competition.facts import HEIGHT, WIDTH
from kaggle_nerve.data import folds as folding
from kaggle_nerve.data.cache import shrink
from kaggle_nerve.data.frames import locate, read_train_csv, training_frames
from kaggle_nerve.data.tiff import read_grey
from kaggle_nerve.decision.candidates import candidates_for
from kaggle_nerve.decision.evidence import measure
from kaggle_nerve.decision.nested import by_subject, choose, interval, judge
from kaggle_nerve.decision.tune import true_masks
from kaggle_nerve.maps.fullsize import Truths
from kaggle_nerve.prediction.held_out import predict_oof
from kaggle_nerve.prediction.stored import open_oof
from kaggle_nerve.runs import Run, open_run

HEAD = (
    "| step | frames with a mask, none dropped | perfect presence | presence AUC | the same on real empty frames | "
    "nested mean Dice (95 % over patients) | against the row named (95 %) |"
)
POSITIVES = 300
"""Frames with a mask of a fold's patients that stand beside the real empty ones, at most."""


@dataclass(frozen=True)
class Step:
    """A run: its name, perhaps with views, the changes of preset ``small``, and the step that it is compared with."""

    name: str
    meaning: str
    changes: tuple[str, ...]
    against: str = ""


@dataclass(frozen=True)
class Scored:
    """What a step scored on out-of-fold frames; ``dice`` is that of each frame by the nested decision."""

    dice: np.ndarray
    subjects: np.ndarray
    outlines: float
    perfect: float
    auc: float
    real_auc: float | None


BEFORE = (
    "folds=5",
    "prediction.tta=hflip",
    "model.presence_pool=mean",
    "augmentation.elastic=0",
    "augmentation.gain=0",
    "augmentation.sharpness=0",
)
"""What takes the steps out of preset ``small`` again; of changes to one setting the last counts. Frames are moved by
cubic interpolation in all of them."""

EPOCHS = "training.epochs=9"
"""About ten minutes for five folds, two of them side by side, on two cores."""

ATTENTION = "model.presence_pool=attention"
BENT = ("augmentation.elastic=0.04", "augmentation.gain=0.4", "augmentation.sharpness=0.6")

LITE = (
    "model.encoder=efficientnet-lite0",
    "model.stem=1",
    "model.weights=imagenet",
    "optimiser.learning_rate=1e-3",
)

STEPS = (
    Step("joint", "one map for pixel and presence", (*BEFORE, EPOCHS, "loss.empty_frames=1")),
    Step("conditional", "mask losses on frames with a mask only", (*BEFORE, EPOCHS), "joint"),
    Step("attention", "a presence head with attention", (*BEFORE, EPOCHS, ATTENTION), "conditional"),
    Step("bent", "elastic bending, local gain, sharpness", (*BEFORE, EPOCHS, ATTENTION, *BENT), "attention"),
    Step("bent@scales", "six views", (*BEFORE, EPOCHS, ATTENTION, *BENT), "bent"),
    Step(
        "whole",
        "frames of 96x128 seen whole, in the same time",
        (*BEFORE, "training.epochs=6", ATTENTION, *BENT, "size=[96, 128]", "model.window=1"),
        "bent",
    ),
    Step(
        "lite0",
        "EfficientNet-Lite0 from ImageNet, in the same time",
        (*BEFORE, "training.epochs=4", ATTENTION, *BENT, *LITE),
        "bent",
    ),
)


def train(step: Step, args: argparse.Namespace) -> Run:
    """Train the run of a step through the command line, or find it finished."""
    name, _, _ = step.name.partition("@")
    command = [sys.executable, "-m", "kaggle_nerve", "train-folds", "--preset", "small", "--run", name]
    command += ["--data", str(args.data), "--runs", str(args.runs), "--jobs", str(args.jobs)]
    for change in step.changes:
        command += ["--set", change]
    for fold in args.folds or [None]:
        # Standard output is for the table.
        words = command if fold is None else [*command, "--fold", str(fold)]
        subprocess.run(words, stdout=sys.stderr, check=True)
    return open_run(args.runs, step.name)


def score(run: Run, args: argparse.Namespace) -> Scored:
    """The figures of a run by the rule that `tune` would choose, the choice nested as well."""
    predict_oof(run, args.data)
    stored = open_oof(run)
    masks = true_masks(stored, read_train_csv(locate(args.data).train_csv))
    evidence = measure(stored, Truths(masks))[0]
    verdicts = [judge(candidate, evidence) for candidate in candidates_for(stored.is_conditional)]
    choice = choose([one.dice for one in verdicts], evidence.subjects, range(len(verdicts)), 0)
    nested = np.stack([one.dice for one in verdicts])[choice.index_by_frame, np.arange(len(evidence))]
    kept_dice = verdicts[choice.index].kept_dice
    there = evidence.present
    return Scored(
        nested,
        evidence.subjects,
        float(kept_dice[there].mean()),
        float(np.where(there, kept_dice, 1).mean()),
        float(roc_auc_score(there, evidence.presence)),
        real_auc(run, args.data, args.empties) if args.empties else None,
    )


def real_auc(run: Run, data: Path, empties: Path) -> float:
    """Presence AUC of real empty frames against real frames with a mask, the mean over the folds."""
    from kaggle_nerve.prediction.ensemble import load_fold
    from kaggle_nerve.prediction.forward import probabilities

    settings = run.settings
    pictures = [cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in sorted(empties.glob("*.png"))]
    table = training_frames(locate(data))
    folds = folding.load(run.folds_csv)
    found = []
    for fold in run.finished_folds():
        mine = table[table.subject.isin(folds.subject[folds.fold == fold.number]) & table.has_mask]
        mine = mine.sample(min(POSITIVES, len(mine)), random_state=0)
        frames = [_as_large(picture, None, settings.size) for picture in pictures]
        for place, path in enumerate(mine.path):
            like = pictures[place % len(pictures)].shape
            frames.append(_as_large(read_grey(path), like, settings.size))
        options = {"batch": settings.prediction.batch, "tta": settings.prediction.tta}
        said = probabilities(
            load_fold(fold), np.stack(frames), combine=settings.prediction.combine, **options
        )
        presence = np.concatenate([part.presence for part in said])
        found.append(roc_auc_score(np.arange(len(frames)) >= len(pictures), presence))
    return float(np.mean(found))


def _as_large(picture: np.ndarray, like: tuple[int, int] | None, size: tuple[int, int]) -> np.ndarray:
    """``picture``, shrunk to the height and width ``like`` if given, at full size and then at the working size."""
    if like is not None:
        picture = shrink(picture, like)
    return shrink(cv2.resize(picture, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR), size)


def line(step: Step, found: Scored, other: Scored | None) -> str:
    """A row of the table, as Markdown."""
    low, high = interval(*by_subject(found.dice, found.subjects), 0)
    against = ""
    if other is not None:
        lead = found.dice - other.dice
        worse, better = interval(*by_subject(lead, found.subjects), 0)
        against = f"{step.against}: {lead.mean():+.4f} ({worse:+.4f} to {better:+.4f})"
    real = "-" if found.real_auc is None else f"{found.real_auc:.3f}"
    return (
        f"| `{step.name}`: {step.meaning} | {found.outlines:.4f} | {found.perfect:.4f} | {found.auc:.4f} | {real} | "
        f"{found.dice.mean():.4f} ({low:.4f} to {high:.4f}) | {against} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True, help="folder of these runs alone")
    parser.add_argument("--fold", dest="folds", type=int, action="append", help="default: all five")
    parser.add_argument("--step", dest="steps", action="append", help="default: all")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--empties", type=Path, help="folder of real frames without a mask")
    args = parser.parse_args()
    names = args.steps or [step.name for step in STEPS]
    scored: dict[str, Scored] = {}
    print(HEAD, "|---" + "|--:" * (HEAD.count("|") - 2) + "|", sep="\n")
    for step in STEPS:
        if step.name not in names:
            continue
        scored[step.name] = score(train(step, args), args)
        print(line(step, scored[step.name], scored.get(step.against)), flush=True)


if __name__ == "__main__":
    main()
