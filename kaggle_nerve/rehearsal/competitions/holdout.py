"""Turn real training data into a competition: some subjects become the test set, with known answers."""

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

from kaggle_nerve.competition import facts, submission
from kaggle_nerve.data import folds
from kaggle_nerve.data.frames import Layout, locate, training_frames
from kaggle_nerve.errors import NerveError
from kaggle_nerve.progress import SILENT, Reporter
from kaggle_nerve.storage import digest_text, mark_complete, read_completion, write_text

SOLUTION = "solution.csv"
ORIGIN = "origin.csv"
"""The training frame behind each test frame: img, subject and, as source_img, its number there."""


def hold_out(
    data_dir: Path, out: Path, subjects: int | None, seed: int, *, reporter: Reporter = SILENT
) -> pd.DataFrame:
    """Write a competition of ``data_dir``'s training frames into ``out``; return img and pixels of its test
    set.

    ``subjects`` of them (None: a fifth) are held out, spread over the positive rates; their frames are
    shuffled and numbered from 1, which hides the subject. Files are hard links where the disk allows it. A
    complete competition is not written again.
    """
    layout = locate(data_dir)
    table = training_frames(layout)
    count = table.subject.nunique()
    subjects = subjects or max(1, round(count / 5))
    if not 0 < subjects < count:
        raise NerveError(
            f"{subjects} of {count} subjects cannot be held out; leave at least one to train on."
        )
    key = digest_text(str(layout.root.resolve()), str(subjects), str(seed), *table.pixels)
    marker = read_completion(out)
    if marker and marker["key"] == key:
        return pd.read_csv(out / SOLUTION, keep_default_na=False, dtype={"pixels": str})
    if out.exists():
        shutil.rmtree(out)
    assignment = folds.assign(table, f"{count - subjects}/{subjects}", seed)
    is_held_out = table.subject.isin(assignment.subject[assignment.fold == 0])
    solution = _write(layout, table, is_held_out.to_numpy(), out, seed, reporter)
    mark_complete(out, {"key": key, "subjects": subjects})
    return solution


def _write(
    layout: Layout, table: pd.DataFrame, is_held_out: np.ndarray, out: Path, seed: int, reporter: Reporter
) -> pd.DataFrame:
    train = table[~is_held_out]
    test = table[is_held_out].sample(frac=1, random_state=seed)
    test = test.assign(img=range(1, len(test) + 1), source_img=test.img)
    copies = [(row.path, out / facts.TRAIN_FOLDER / row.path.name) for row in train.itertuples()]
    copies += [(row.mask_path, out / facts.TRAIN_FOLDER / row.mask_path.name) for row in train.itertuples()]
    copies += [(row.path, out / facts.TEST_FOLDER / f"{row.img}.tif") for row in test.itertuples()]
    for name in (facts.TRAIN_FOLDER, facts.TEST_FOLDER):
        (out / name).mkdir(parents=True)
    with reporter.bar("Holding out subjects", len(copies), "file") as bar:
        for source, target in copies:
            _link(source, target)
            bar.update()
    write_text(out / facts.TRAIN_CSV, train[list(facts.TRAIN_HEADER)].to_csv(index=False))
    submission.write(out / facts.SAMPLE_CSV, ((img, "1 1") for img in test.img))
    solution = test[["img", "pixels"]].reset_index(drop=True)
    write_text(out / SOLUTION, solution.to_csv(index=False))
    write_text(out / ORIGIN, test[["img", "subject", "source_img"]].to_csv(index=False))
    return solution


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise NerveError(f"{source} is missing; run `kaggle-nerve verify` on the data.") from None
    except OSError:
        shutil.copyfile(source, target)
