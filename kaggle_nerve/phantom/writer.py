"""Write the phantom to disk in the layout of Kaggle's competition data."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from kaggle_nerve.competition import facts, rle
from kaggle_nerve.errors import NerveError
from kaggle_nerve.phantom.frame import meet_subject, render
from kaggle_nerve.phantom.marker import close_marker, open_marker
from kaggle_nerve.phantom.plan import Shot, plan_test, plan_train
from kaggle_nerve.phantom.subject import Subject
from kaggle_nerve.phantom.tissue import Tissue
from kaggle_nerve.progress import SILENT, Bar, Reporter
from kaggle_nerve.storage import write_text

_LZW = 5
"""TIFF compression of the real files (value of tag 259)."""


def write_competition(
    out: Path,
    *,
    subjects: int = 12,
    frames: int = 40,
    test_subjects: int = 4,
    test_frames: int | None = None,
    seed: int = 0,
    reporter: Reporter = SILENT,
    workers: int | None = None,
) -> pd.DataFrame:
    """Write a synthetic competition into ``out`` and return the test set's solution.

    ``frames`` and ``test_frames`` are the numbers of frames per subject (``test_frames`` None: the same as
    ``frames``); the real set has 47 subjects of 120. 58.8 % of all frames have no mask, in either split.
    The test subjects differ from the training ones; their frames are mixed and numbered from 1. ``workers``
    threads render the frames (None: one per core); the bytes depend only on ``seed``, 0 or more, and the
    counts.

    The solution has the columns img (int, ascending) and pixels (str, "" for an empty mask); it is not
    written to ``out``. Raise NerveError for counts below 1 or a negative seed, and if ``out`` holds anything
    but the same phantom, or cannot be written.
    """
    test_frames = frames if test_frames is None else test_frames
    counts = {
        "subjects": subjects,
        "frames": frames,
        "test_subjects": test_subjects,
        "test_frames": test_frames,
    }
    workers = (os.cpu_count() or 1) if workers is None else workers
    _check(counts | {"workers": workers}, seed)
    out, settings = Path(out), counts | {"seed": seed}
    open_marker(out, settings)
    for folder in (facts.TRAIN_FOLDER, facts.TEST_FOLDER):
        (out / folder).mkdir(exist_ok=True)
    train = plan_train(seed, subjects, frames)
    test = plan_test(seed, subjects + 1, test_subjects, test_frames)
    with (
        reporter.bar("Synthetic frames", len(train) + len(test)) as bar,
        ThreadPoolExecutor(workers) as pool,
    ):
        train_pixels = _make(train, partial(_write_train, out / facts.TRAIN_FOLDER), seed, pool, bar)
        test_pixels = _make(test, partial(_write_test, out / facts.TEST_FOLDER), seed, pool, bar)
    _write_tables(out, train, train_pixels, test)
    close_marker(out, settings)
    return pd.DataFrame({"img": [shot.img for shot in test], "pixels": test_pixels})


def _make(
    shots: list[Shot],
    write: Callable[[Shot, np.ndarray, np.ndarray], None],
    seed: int,
    pool: ThreadPoolExecutor,
    bar: Bar,
) -> list[str]:
    """Render and write all shots, subject by subject; return the masks' run-length encodings in the shots' order."""
    pixels = {}
    by_subject = sorted(shots, key=lambda shot: shot.subject)
    for number, group in groupby(by_subject, key=lambda shot: shot.subject):
        subject_shots = list(group)
        develop = partial(_develop, *meet_subject(seed, number), write)
        for shot, text in zip(subject_shots, pool.map(develop, subject_shots), strict=True):
            pixels[shot.subject, shot.img] = text
            bar.update()
    return [pixels[shot.subject, shot.img] for shot in shots]


def _develop(
    subject: Subject, tissue: Tissue, write: Callable[[Shot, np.ndarray, np.ndarray], None], shot: Shot
) -> str:
    """Render one frame and write it; return its mask's run-length encoding."""
    frame, mask = render(subject, tissue, shot)
    write(shot, frame, mask)
    return rle.encode(mask > 0)


def _write_train(folder: Path, shot: Shot, frame: np.ndarray, mask: np.ndarray) -> None:
    _write_tiff(folder / f"{shot.subject}_{shot.img}.tif", frame)
    _write_tiff(folder / f"{shot.subject}_{shot.img}_mask.tif", mask)


def _write_test(folder: Path, shot: Shot, frame: np.ndarray, _: np.ndarray) -> None:
    _write_tiff(folder / f"{shot.img}.tif", frame)


def _write_tiff(path: Path, image: np.ndarray) -> None:
    """Write an 8-bit grey TIFF, LZW-compressed."""
    _, data = cv2.imencode(".tif", image, [cv2.IMWRITE_TIFF_COMPRESSION, _LZW])
    try:
        path.write_bytes(data.tobytes())
    except OSError as fault:
        raise NerveError(f"{path} cannot be written ({fault.strerror}); is the disk full?") from fault


def _write_tables(out: Path, train: list[Shot], pixels: list[str], test: list[Shot]) -> None:
    """Write ``train_masks.csv`` and ``sample_submission.csv``."""
    rows = [f"{shot.subject},{shot.img},{text}" for shot, text in zip(train, pixels, strict=True)]
    _write_csv(out / facts.TRAIN_CSV, facts.TRAIN_HEADER, rows)
    _write_csv(out / facts.SAMPLE_CSV, facts.SUBMISSION_HEADER, [f"{shot.img},1 1" for shot in test])


def _write_csv(path: Path, header: tuple[str, ...], rows: list[str]) -> None:
    write_text(path, "\n".join([",".join(header), *rows]) + "\n")


def _check(counts: dict[str, int], seed: int) -> None:
    for name, count in counts.items():
        if not isinstance(count, int) or count < 1:
            raise NerveError(f"The phantom's {name} must be a whole number from 1 up, not {count!r}.")
    if not isinstance(seed, int) or seed < 0:
        raise NerveError(f"The phantom's seed must be a whole number from 0 up, not {seed!r}.")
