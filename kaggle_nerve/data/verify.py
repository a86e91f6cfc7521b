"""Checking a data directory before hours are spent on it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kaggle_nerve.competition import facts, rle, submission
from kaggle_nerve.data.frames import Layout, locate, read_train_csv
from kaggle_nerve.data.tiff import read_grey
from kaggle_nerve.errors import NerveError
from kaggle_nerve.progress import SILENT, Reporter


@dataclass
class Verification:
    """What was found. ``problems`` is empty when the directory can be trained on."""

    train_frames: int = 0
    train_masks: int = 0
    with_mask: int = 0
    subjects: int = 0
    test_frames: int = 0
    complete: bool = False
    """Whether the counts are those of the real competition."""
    problems: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """The figures and problems as plain values, for JSON."""
        return asdict(self)


def verify(data_dir: Path, *, reporter: Reporter = SILENT, workers: int = 2) -> Verification:
    """Read every file of ``data_dir`` and compare masks with the CSV, pixel by pixel.

    Raises NerveError only where there is nothing to check; everything else is a problem in the result.
    """
    layout = locate(data_dir)
    found = Verification()
    jobs = [*_training_jobs(layout, found), *_test_jobs(layout, found)]
    with ThreadPoolExecutor(workers) as pool, reporter.bar("Verifying", len(jobs), "file") as bar:
        for problem in pool.map(_run, jobs):
            found.problems += [problem] if problem else []
            bar.update()
    found.complete = not found.problems and (
        found.train_frames,
        found.with_mask,
        found.subjects,
        found.test_frames,
    ) == (facts.TRAIN_FRAMES, facts.TRAIN_WITH_MASK, facts.TRAIN_SUBJECTS, facts.TEST_FRAMES)
    return found


Job = tuple[Path, str | None]
"""A file, and for a mask what the CSV says of it ('' is an empty mask; None: not a mask)."""


def _training_jobs(layout: Layout, found: Verification) -> Iterator[Job]:
    names = {path.name for path in layout.train.iterdir()}
    frames = {name for name in names if facts.TRAIN_FRAME.match(name)}
    masks = {name for name in names if facts.TRAIN_MASK.match(name)}
    for name in sorted(names - frames - masks):
        found.problems.append(f"{layout.train / name} is not a name of the competition; remove it.")
    try:
        table = read_train_csv(layout.train_csv)
    except NerveError as fault:
        found.problems.append(str(fault))
        table = pd.DataFrame({"subject": [], "img": [], "pixels": []})
    stems = [f"{row.subject}_{row.img}" for row in table.itertuples()]
    pixels = dict(zip(stems, table.pixels, strict=True))
    found.train_frames, found.train_masks = len(frames), len(masks)
    found.with_mask = int((table.pixels != "").sum())
    found.subjects = len({name.split("_")[0] for name in frames})
    for stem in stems:
        for name in (f"{stem}.tif", f"{stem}_mask.tif"):
            if name not in names:
                found.problems.append(f"{layout.train / name} is missing; run `kaggle-nerve fetch` again.")
    for name in sorted(frames):
        if pixels and name.removesuffix(".tif") not in pixels:
            found.problems.append(f"{layout.train / name} has no row in {layout.train_csv.name}.")
        yield layout.train / name, None
    for name in sorted(masks):
        yield layout.train / name, pixels.get(name.removesuffix("_mask.tif"))


def _test_jobs(layout: Layout, found: Verification) -> Iterator[Job]:
    names = {path.name for path in layout.test.iterdir()} if layout.test.is_dir() else set()
    frames = {name for name in names if facts.TEST_FRAME.match(name)}
    for name in sorted(names - frames):
        found.problems.append(f"{layout.test / name} is not a name of the competition; remove it.")
    found.test_frames = len(frames)
    if not frames:
        found.problems.append(f"{layout.test} has no test frames; run `kaggle-nerve fetch` again.")
    imgs = {int(name.removesuffix(".tif")) for name in frames}
    try:
        expected = set(submission.read(layout.sample_csv).img)
        for img in sorted(expected - imgs):
            found.problems.append(f"{layout.test}/{img}.tif is missing; run `kaggle-nerve fetch` again.")
        for img in sorted(imgs - expected):
            found.problems.append(f"{layout.test}/{img}.tif has no row in {layout.sample_csv.name}.")
    except NerveError as fault:
        found.problems.append(str(fault))
    for name in sorted(frames, key=lambda name: int(name.removesuffix(".tif"))):
        yield layout.test / name, None


def _run(job: Job) -> str | None:
    path, pixels = job
    try:
        image = read_grey(path)
        if pixels is None:
            return None
        wanted = rle.decode(pixels, facts.SIZE)
    except NerveError as fault:
        return str(fault)
    strange = np.setdiff1d(np.unique(image), (0, 255))
    if strange.size:
        return f"{path} has the value {strange[0]}; a mask holds 0 and 255 only: fetch it again."
    differing = int(np.count_nonzero((image != 0) != (wanted != 0)))
    return (
        f"{path} differs from {facts.TRAIN_CSV} in {differing} pixels; fetch both again."
        if differing
        else None
    )
