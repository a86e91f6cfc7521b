"""Check a data directory before hours of training."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kaggle_nerve.competition import facts, rle, submission
from kaggle_nerve.data.frames import Layout, describe_other_endings, locate, other_endings, read_train_csv
from kaggle_nerve.data.tiff import read_grey
from kaggle_nerve.errors import NerveError
from kaggle_nerve.progress import SILENT, Reporter


@dataclass
class Verification:
    """Result of the check. ``problems`` is empty if the directory is fit for training."""

    train_frames: int = 0
    train_masks: int = 0
    with_mask: int = 0
    subjects: int = 0
    test_frames: int = 0
    complete: bool = False
    """Whether the counts are those of the real competition."""
    problems: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Convert figures and problems to plain values for JSON."""
        return asdict(self)


def verify(data_dir: Path, *, reporter: Reporter = SILENT, workers: int = 2) -> Verification:
    """Read every file of ``data_dir`` and compare masks with the CSV, pixel by pixel.

    Raise NerveError only if there is nothing to check; everything else is a problem in the result.
    """
    layout = locate(data_dir)
    result = Verification()
    jobs = [*_training_jobs(layout, result), *_test_jobs(layout, result)]
    with ThreadPoolExecutor(workers) as pool, reporter.bar("Verifying", len(jobs), "file") as bar:
        for problem in pool.map(_run, jobs):
            result.problems += [problem] if problem else []
            bar.update()
    result.complete = not result.problems and (
        result.train_frames,
        result.with_mask,
        result.subjects,
        result.test_frames,
    ) == (facts.TRAIN_FRAMES, facts.TRAIN_WITH_MASK, facts.TRAIN_SUBJECTS, facts.TEST_FRAMES)
    return result


Job = tuple[Path, str | None]
"""A file, and for a mask its run-length encoding in the CSV ('': empty mask; None: not a mask)."""


def _training_jobs(layout: Layout, result: Verification) -> Iterator[Job]:
    names = _names(layout.train)
    frames = {name for name in names if facts.TRAIN_FRAME.match(name)}
    masks = {name for name in names if facts.TRAIN_MASK.match(name)}
    misspelt = _add_unknown(layout.train, names - frames - masks, result)
    try:
        table = read_train_csv(layout.train_csv)
    except NerveError as fault:
        result.problems.append(str(fault))
        table = pd.DataFrame({"subject": [], "img": [], "pixels": []})
    stems = [f"{row.subject}_{row.img}" for row in table.itertuples()]
    pixels = dict(zip(stems, table.pixels, strict=True))
    result.train_frames, result.train_masks = len(frames), len(masks)
    result.with_mask = int((table.pixels != "").sum())
    result.subjects = len({name.split("_")[0] for name in frames})
    for stem in stems:
        for name in (f"{stem}.tif", f"{stem}_mask.tif"):
            if name not in names and name not in misspelt:
                result.problems.append(f"{layout.train / name} is missing; run `kaggle-nerve fetch` again.")
    for name in sorted(frames):
        if pixels and name.removesuffix(".tif") not in pixels:
            result.problems.append(f"{layout.train / name} has no row in {layout.train_csv.name}.")
        yield layout.train / name, None
    for name in sorted(masks):
        yield layout.train / name, pixels.get(name.removesuffix("_mask.tif"))


def _test_jobs(layout: Layout, result: Verification) -> Iterator[Job]:
    names = _names(layout.test) if layout.test.is_dir() else set()
    frames = {name for name in names if facts.TEST_FRAME.match(name)}
    misspelt = _add_unknown(layout.test, names - frames, result)
    result.test_frames = len(frames)
    if not frames and not misspelt:
        result.problems.append(f"{layout.test} has no test frames; run `kaggle-nerve fetch` again.")
    imgs = {int(name.removesuffix(".tif")) for name in frames}
    try:
        expected = set(submission.read(layout.sample_csv).img)
        for img in sorted(img for img in expected - imgs if f"{img}.tif" not in misspelt):
            result.problems.append(f"{layout.test}/{img}.tif is missing; run `kaggle-nerve fetch` again.")
        for img in sorted(imgs - expected):
            result.problems.append(f"{layout.test}/{img}.tif has no row in {layout.sample_csv.name}.")
    except NerveError as fault:
        result.problems.append(str(fault))
    for name in sorted(frames, key=lambda name: int(name.removesuffix(".tif"))):
        yield layout.test / name, None


def _add_unknown(folder: Path, names: set[str], result: Verification) -> set[str]:
    """Add the problems of ``names``, which the competition has not; return the proper spelling of misspelt ones."""
    misspelt = other_endings(names)
    if misspelt:
        result.problems.append(describe_other_endings(folder, misspelt))
    for name in sorted(names - misspelt.keys()):
        result.problems.append(f"{folder / name} is not a name of the competition; remove it.")
    return set(misspelt.values())


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not facts.LITTER.fullmatch(path.name)}


def _run(job: Job) -> str | None:
    path, pixels = job
    try:
        image = read_grey(path)
        if pixels is None:
            return None
        expected = rle.decode(pixels, facts.SIZE)
    except NerveError as fault:
        return str(fault)
    unexpected = np.setdiff1d(np.unique(image), (0, 255))
    if unexpected.size:
        return f"{path} has the value {unexpected[0]}; a mask holds 0 and 255 only: fetch it again."
    differing = int(np.count_nonzero((image != 0) != (expected != 0)))
    return (
        f"{path} differs from {facts.TRAIN_CSV} in {differing} pixels; fetch both again."
        if differing
        else None
    )
