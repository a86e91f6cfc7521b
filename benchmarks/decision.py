"""The decision step by step: what each step adds on out-of-fold frames, and on patients held out of everything.

    python benchmarks/decision.py --data HELD_OUT --runs DIR --run small --run tiny [--write docs/decision.md]

``--data`` is a competition made by `kaggle-nerve rehearse --data` (its folder competition/): its training
frames are those of the runs' folds, and its test frames are patients whose answers lie in solution.csv and
origin.csv. Each row is the step before it plus one thing. Predictions with other views of the first run
are made anew, to be timed. Figures are nested by patient; differences are paired, frame by frame.
"""

import argparse
import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits
from zoo import PLACE

from kaggle_nerve.data import cache
from kaggle_nerve.data.frames import locate, read_train_csv
from kaggle_nerve.data.tiff import read_grey
from kaggle_nerve.decision import blends, nested, shaping
from kaggle_nerve.decision.candidates import CANDIDATES, Candidate, dice
from kaggle_nerve.decision.evidence import Evidence, measure
from kaggle_nerve.decision.nested import by_subject, interval
from kaggle_nerve.decision.shaping import SHAPES, Shaper
from kaggle_nerve.maps import levels
from kaggle_nerve.maps.fullsize import Truths
from kaggle_nerve.prediction.stored import Predictions, blend, open_oof, open_test
from kaggle_nerve.rehearsal.competitions.holdout import ORIGIN, SOLUTION
from kaggle_nerve.runs import Run, open_run
from kaggle_nerve.storage import write_text

HEAD = (
    "| step | OOF mean Dice (95 %) | against the row named (95 %) | frames with a mask | FPR | FNR | seconds | "
    "held-out patients (95 %) |"
)
VIEWS = ("hflip", "flips", "scales", "flips-logits", "flips-agreement")


@dataclass(frozen=True)
class Frames:
    """Predictions of some frames, their true masks and patients."""

    stored: Predictions
    truths: Truths
    texts: list[str]


@dataclass(frozen=True)
class Step:
    """What a step scored: Dice and whether a mask was kept, of each out-of-fold and each held-out frame."""

    name: str
    dice: np.ndarray
    kept: np.ndarray
    held: np.ndarray | None
    seconds: float | None


class Table:
    """The rows, each compared with an earlier one."""

    def __init__(self, subjects: np.ndarray, present: np.ndarray, held_subjects: np.ndarray):
        self.subjects, self.present, self.held_subjects = subjects, present, held_subjects
        self.lines = [HEAD, "|---" + "|--:" * (HEAD.count("|") - 2) + "|"]

    def add(self, step: Step, against: Step | None) -> None:
        """One row more."""
        values = [_share(step.dice, self.subjects), "", f"{step.dice[self.present].mean():.3f}"]
        if against:
            lead = step.dice - against.dice
            low, high = interval(*by_subject(lead, self.subjects), 0)
            values[1] = f"{against.name}: {lead.mean():+.4f} ({low:+.4f} to {high:+.4f})"
        values += [f"{step.kept[~self.present].mean():.1%}", f"{1 - step.kept[self.present].mean():.1%}"]
        values += [
            "" if step.seconds is None else f"{step.seconds:.0f}",
            "" if step.held is None else _share(step.held, self.held_subjects),
        ]
        self.lines.append(f"| {step.name} | {' | '.join(values)} |")
        print(self.lines[-1], flush=True)


def _share(values: np.ndarray, subjects: np.ndarray) -> str:
    low, high = interval(*by_subject(values, subjects), 0)
    return f"{values.mean():.4f} ({low:.3f} to {high:.3f})"


class Bench:
    """The inputs, and what the steps share."""

    def __init__(self, args: argparse.Namespace):
        self.args = args
        frames = read_train_csv(locate(args.data).train_csv)
        self.pixels = frames.set_index(["subject", "img"]).pixels
        origin = pd.read_csv(args.data / ORIGIN)
        answers = pd.read_csv(args.data / SOLUTION, keep_default_na=False)
        self.answers = origin.merge(answers, on="img").set_index("img")

    def run(self, name: str) -> Run:
        """A run by its name."""
        return open_run(self.args.runs, name)

    def oof(self, *names: str) -> Frames:
        """Out-of-fold predictions of one run or several."""
        stored = blend([open_oof(self.run(name)) for name in names])
        texts = list(self.pixels.loc[list(stored.table[["subject", "img"]].itertuples(index=False))])
        return Frames(stored, Truths(texts), texts)

    def held(self, *names: str) -> Frames:
        """Predictions of the held-out patients by the ensemble of all folds."""
        return self.answered(blend([open_test(self.run(name)) for name in names]))

    def answered(self, stored: Predictions) -> Frames:
        """Predictions of held-out frames with their answers."""
        found = self.answers.loc[stored.table.img]
        table = stored.table.assign(subject=found.subject.to_numpy())
        texts = list(found.pixels)
        return Frames(dataclasses.replace(stored, table=table), Truths(texts), texts)

    def predicted(self, name: str) -> float | None:
        """Predict out-of-fold and held-out frames anew; seconds for the former, None where training made them."""
        from kaggle_nerve.prediction.ensemble import predict_test
        from kaggle_nerve.prediction.held_out import predict_oof

        started = time.perf_counter()
        predict_oof(self.run(name), self.args.data, force=True)
        seconds = time.perf_counter() - started
        predict_test(self.run(name), self.args.data)
        return seconds if self.run(name).views else None

    def single_folds(self, name: str) -> list[Frames]:
        """The held-out patients by the model of each fold alone."""
        from kaggle_nerve.prediction.ensemble import load_fold
        from kaggle_nerve.prediction.forward import probabilities

        run, found = self.run(name), []
        frames = cache.open_test(locate(self.args.data), run.settings.size).frames
        whole, how = open_test(run), run.settings.prediction
        for fold in run.finished_folds():
            batches = probabilities(
                load_fold(fold), frames, batch=how.batch, tta=how.tta, combine=how.combine
            )
            maps, presences, agreements, spreads = (np.concatenate(x) for x in zip(*batches, strict=True))
            table = whole.table.assign(agreement=agreements, spread=spreads)
            maps = maps.astype(np.float16)
            alone = dataclasses.replace(whole, table=table, presences=presences[:, None], parts=(maps,))
            found.append(self.answered(alone))
        return found


def judged(
    name: str, candidate: Candidate, known: Evidence, held: Evidence | None, seconds: float | None = 0
) -> Step:
    """A rule nested by patient, and learned on all of them for the held-out ones."""
    started = time.perf_counter()
    found = nested.judge(candidate, known)
    seconds = None if seconds is None else seconds + time.perf_counter() - started
    values = None if held is None else dice(held, candidate.learn(known).cuts(held))
    return Step(name, found.dice, found.keeps_mask, values, seconds)


def shaped(bench: Bench, frames: Frames, held: Frames, known: Evidence, seen: Evidence, rule: Candidate):
    """A step for each shape of the masks of ``rule``."""
    verdicts, learned = nested.judge(rule, known), rule.learn(known)
    priors = shaping.cross_fit_priors(frames.texts, known.subjects)
    prior = shaping.learn_prior(frames.texts)
    layout, rows = locate(bench.args.data), frames.stored.table[["subject", "img"]].to_numpy()
    imgs = held.stored.table.img.to_numpy()

    def image(row: int) -> np.ndarray:
        return read_grey(layout.train / "{}_{}.tif".format(*rows[row]))

    def held_image(row: int) -> np.ndarray:
        return read_grey(layout.test / f"{imgs[row]}.tif")

    for name, steps in list(SHAPES.items())[1:]:
        started = time.perf_counter()
        cuts = verdicts.cuts
        values = shaping.score(
            frames.stored, frames.truths, cuts, lambda row, s=steps: [Shaper(s, priors[row], image)]
        )[0]
        seconds = time.perf_counter() - started
        finish = [Shaper(steps, prior, held_image)]
        on_held = shaping.score(held.stored, held.truths, learned.cuts(seen), lambda row, f=finish: f)[0]
        yield Step(f"+ shape: {name}", values, verdicts.keeps_mask, on_held, seconds)


def rules(bench: Bench, table: Table, known: Evidence, seen: Evidence) -> dict[str, Step]:
    """The rules on the first run without views."""
    names = {
        "fixed": "threshold 0.5 only",
        "area": "+ area",
        "thresholds": "+ pixel and presence thresholds",
        "triplet": "triplet rule",
        "classifier": "+ presence classifier",
        "expected": "+ expected-Dice masks",
    }
    steps: dict[str, Step] = {}
    for one in CANDIDATES:
        steps[one.name] = judged(names[one.name], one, known, seen)
        table.add(steps[one.name], steps.get("fixed") if one.name != "fixed" else None)
    return steps


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--run", dest="names", action="append", required=True)
    parser.add_argument("--write", type=Path, help="put the table into this file, at its marker")
    args = parser.parse_args()
    with threadpool_limits(1, "blas"):  # as `tune` does
        measure_all(args)


def measure_all(args: argparse.Namespace) -> None:
    """All rows."""
    bench, first = Bench(args), args.names[0]
    plain = f"{first}@none"
    bench.predicted(plain)
    frames, held = bench.oof(plain), bench.held(plain)
    known, seen = measure(frames.stored, frames.truths)[0], measure(held.stored, held.truths)[0]
    table = Table(known.subjects, known.present, seen.subjects)
    steps = rules(bench, table, known, seen)
    dices = [steps[one.name].dice for one in CANDIDATES]
    choice = nested.choose(dices, known.subjects, range(len(dices)), 0)
    rule = CANDIDATES[choice.index]
    base = dataclasses.replace(steps[rule.name], name=f"rule {rule.name}")
    for step in shaped(bench, frames, held, known, seen, rule):
        table.add(step, base)
    for views in VIEWS:
        name = f"{first}@{views}"
        seconds = bench.predicted(name)
        now, there = (measure(found.stored, found.truths)[0] for found in (bench.oof(name), bench.held(name)))
        step = judged(f"+ views: {views}", rule, now, there, seconds)
        table.add(step, base)
    several(bench, table, rule)
    told = alone(bench, plain)
    if args.write:
        write(args.write, "\n".join(table.lines) + f"\n\n{told}")


def alone(bench: Bench, name: str) -> str:
    """What the ensemble of folds adds: on the held-out patients, for an out-of-fold frame has one model."""
    frames = bench.oof(name)
    known = measure(frames.stored, frames.truths)[0]
    single = [measure(found.stored, found.truths)[0] for found in bench.single_folds(name)]
    matched = bench.held(name)
    run = bench.run(name)
    raw = dataclasses.replace(
        matched.stored,
        parts=(np.load(run.test_folder / "probabilities.npy"),),
        presences=pd.read_csv(run.test_folder / "index.csv").presence.to_numpy()[:, None],
    )
    mean, scaled = (measure(stored, matched.truths)[0] for stored in (raw, matched.stored))
    head = "| rule | one fold, their mean | mean of the folds | the same at one fold's scale | gain (95 %) |"
    lines = [head, "|---" + "|--:" * 4 + "|"]
    for one in CANDIDATES:
        learned = one.learn(known)

        def told(evidence: Evidence, learned=learned) -> tuple[np.ndarray, float]:
            cuts = learned.cuts(evidence)
            return dice(evidence, cuts), float((cuts < levels.NOTHING).mean())

        each = [told(evidence) for evidence in single]
        lead = told(scaled)[0] - np.mean([values for values, _ in each], axis=0)
        low, high = interval(*by_subject(lead, scaled.subjects), 0)
        cells = [f"{np.mean([values.mean() for values, _ in each]):.4f}, {np.mean([x for _, x in each]):.1%}"]
        cells += [f"{values.mean():.4f}, {share:.1%}" for values, share in (told(mean), told(scaled))]
        lines.append(f"| {one.name} | {' | '.join(cells)} | {lead.mean():+.4f} ({low:+.4f} to {high:+.4f}) |")
        print(lines[-1], flush=True)
    there = scaled.present
    return (
        f"Held-out patients: {len(there)} frames of {len(np.unique(scaled.subjects))} patients, {there.mean():.1%} "
        f"with a mask, all-empty {(~there).mean():.4f}. Ensemble of {len(single)} folds of `{name}`, mean Dice and "
        "share of frames that get a mask:\n\n" + "\n".join(lines)
    )


def several(bench: Bench, table: Table, rule: Candidate) -> None:
    """The blends of all runs."""
    for name in bench.args.names:
        bench.predicted(name)
    frames, held = bench.oof(*sorted(bench.args.names)), bench.held(*sorted(bench.args.names))
    started = time.perf_counter()
    methods = blends.methods(frames.stored, frames.truths)
    found = measure(frames.stored, frames.truths, [method.by_row for method in methods])
    each = (time.perf_counter() - started) / len(methods)
    first: Step | None = None
    for method, known in zip(methods, found, strict=True):
        stored = dataclasses.replace(held.stored, blend=method.final)
        seen = measure(stored, held.truths)[0]
        step = judged(f"runs: {method.name}", rule, known, seen, each)
        if method.name == bench.args.names[0]:
            first = step
        table.add(step, first if first is not step else None)


def write(path: Path, text: str) -> None:
    """Put the table at its place in a Markdown file."""
    place = PLACE.format(name="decision table")
    before, _, rest = path.read_text(encoding="utf-8").partition(place)
    _, _, after = rest.partition(place)
    write_text(path, f"{before}{place}\n{text}\n{place}{after}")


if __name__ == "__main__":
    main()
