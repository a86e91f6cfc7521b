"""Fixed facts of the competition, with their sources. No other module repeats them.

Sources: the competition's data and evaluation pages (``kaggle.com/c/ultrasound-nerve-segmentation``),
and counts from its ``train_masks.csv``.
"""

import re

SLUG = "ultrasound-nerve-segmentation"
"""Name of the competition in URLs and in the Kaggle API."""

HEIGHT, WIDTH = 420, 580
"""Pixels of every frame. Data page: 580 wide, 420 high, 8-bit grey, LZW-compressed TIFF."""

SIZE = (HEIGHT, WIDTH)
"""(height, width) of every frame and mask."""

TRAIN_FOLDER, TEST_FOLDER = "train", "test"

TRAIN_FRAME = re.compile(r"^(?P<subject>[1-9]\d*)_(?P<img>[1-9]\d*)\.tif$")
"""File name of a training frame. Data page: ``subject_imageNum.tif``."""

TRAIN_MASK = re.compile(r"^(?P<subject>[1-9]\d*)_(?P<img>[1-9]\d*)_mask\.tif$")
"""File name of a training mask, beside its frame; its pixels are 0 or 255."""

TEST_FRAME = re.compile(r"^(?P<img>[1-9]\d*)\.tif$")
"""File name of a test frame, without the subject."""

FRAME_FILES = TRAIN_FRAME, TRAIN_MASK, TEST_FRAME

LITTER = re.compile(r"(?i)\._.*|\.DS_Store|__MACOSX|Thumbs\.db|desktop\.ini|\.nfs[0-9a-f]+")
"""File names that systems leave in people's folders: no part of the competition, and no problem."""

TRAIN_CSV = "train_masks.csv"
TRAIN_HEADER = ("subject", "img", "pixels")

SAMPLE_CSV = "sample_submission.csv"
SUBMISSION_HEADER = ("img", "pixels")
"""Header (data page). Rows are in ascending order of ``img``; an empty mask has nothing after the comma."""

TRAIN_FRAMES, TRAIN_SUBJECTS, TRAIN_WITH_MASK = 5635, 47, 2323
"""Counted in ``train_masks.csv``: 42 subjects with 120 frames, 5 with 119."""

TEST_FRAMES = 5508
"""Rows of ``sample_submission.csv``; the subjects differ from the training ones (data page)."""

PUBLIC_SHARE = 0.2
"""Share of the test frames behind the public score (leaderboard page)."""

SESSION_HOURS = 12.0
"""Time limit after which Kaggle ends a notebook and discards its output (documentation of Kaggle's notebooks)."""

SMALLEST_MASK, MEAN_MASK, LARGEST_MASK = 2684, 7126, 17439
"""Pixels of the training masks that are not empty, counted in ``train_masks.csv``."""

USUAL_ROWS, USUAL_COLUMNS = (101, 224), (268, 400)
"""Centres of the training masks: the 5th and the 95th percentile, counted in ``train_masks.csv``."""

LEAST_RIGHT_EDGE = 243
"""Column, from 0, of the right edge that lies furthest left among the training masks of 37 subjects."""
