"""The metric: tiny masks whose Dice can be counted by hand, and scores of whole tables."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from kaggle_nerve.competition import metric, rle
from kaggle_nerve.errors import NerveError

EMPTY = np.array([[0, 0, 0], [0, 0, 0]], np.uint8)
LEFT = np.array([[1, 0, 0], [1, 0, 0]], np.uint8)
TOP = np.array([[1, 1, 1], [0, 0, 0]], np.uint8)
RIGHT = np.array([[0, 0, 1], [0, 0, 1]], np.uint8)

WORKED = [
    (EMPTY, EMPTY, 1.0),
    (LEFT, LEFT, 1.0),
    (EMPTY, LEFT, 0.0),  # any pixel on an empty frame
    (LEFT, EMPTY, 0.0),
    (LEFT, RIGHT, 0.0),
    (LEFT, TOP, 2 * 1 / (2 + 3)),
    (TOP, LEFT, 2 * 1 / (3 + 2)),
]


@pytest.mark.parametrize(("truth", "predicted", "expected"), WORKED)
def test_worked_examples(truth, predicted, expected):
    assert metric.dice(truth, predicted) == expected
    assert metric.dice(truth > 0, 255 * predicted) == expected
    texts = rle.encode(truth), rle.encode(predicted)
    assert metric.dice_of_texts(*texts, size=(2, 3)) == expected


@given(arrays.arrays(bool, st.tuples(st.just(2), st.integers(1, 9), st.integers(1, 9))))
def test_texts_counts_and_masks_agree(pair):
    truth, predicted = pair
    expected = metric.dice(truth, predicted)
    texts = rle.encode_many(pair)
    assert metric.dice_of_texts(*texts, size=truth.shape) == expected
    counts = (truth & predicted).sum(), truth.sum(), predicted.sum()
    assert metric.counts_of_texts(*texts, size=truth.shape) == counts
    assert 0 <= expected <= 1
    assert expected == metric.dice(predicted, truth)


def test_counts_may_be_arrays_of_any_shape_and_type():
    # Thresholds down, frames across: areas of the truth are per frame.
    intersection = np.array([[200, 0], [100, 0]], np.uint8)
    predicted = np.array([[250, 0], [200, 7]], np.uint8)
    values = metric.dice_of_counts(intersection, np.array([250, 0], np.uint8), predicted)
    assert values.dtype == np.float64
    np.testing.assert_array_equal(values, [[400 / 500, 1], [200 / 450, 0]])
    assert metric.dice_of_counts([], [], []).shape == (0,)
    assert float(metric.dice_of_counts(0, 0, 0)) == 1


def test_masks_of_different_sizes_are_refused():
    with pytest.raises(NerveError, match=r"\(2, 3\) and \(3, 2\)"):
        metric.dice(LEFT, LEFT.T)
    with pytest.raises(NerveError, match="threshold"):
        metric.dice(LEFT, LEFT * 0.7)


def table(pixels, usage=None, imgs=None):
    columns = {"img": imgs or range(1, len(pixels) + 1), "pixels": pixels}
    return pd.DataFrame(columns if usage is None else {**columns, "Usage": usage})


def test_score_honours_usage():
    # Full-size masks. Dice by frame: both empty 1; spurious pixel 0; 2*2/(4+2) = 2/3; missed 0; ignored.
    truth = table(["", "", "1 4", "9 9", "1 1"], ["Public", "Private", "Private", "Private", "Ignored"])
    guess = table(["", "7 1", "2 2", "", "1 1"])
    score = metric.score(guess, truth)
    assert score.as_dict() == {
        "all": pytest.approx((1 + 2 / 3) / 4),
        "public": 1.0,
        "private": pytest.approx(2 / 9),
        "frames": 4,
    }
    frames = score.per_frame
    assert frames["img"].tolist() == [1, 2, 3, 4]
    assert frames["usage"].tolist() == ["public", "private", "private", "private"]
    assert frames["dice"].tolist() == [1, 0, 2 * 2 / (4 + 2), 0]
    assert frames["intersection"].tolist() == [0, 0, 2, 0]
    assert frames["truth_area"].tolist() == [0, 0, 4, 9]
    assert frames["predicted_area"].tolist() == [0, 1, 2, 0]


def test_score_without_usage_or_rows():
    score = metric.score(table(["", "1 1"]), table(["", ""]))
    assert score.as_dict() == {"all": 0.5, "public": None, "private": None, "frames": 2}
    score = metric.score(table([""]), table([""], ["Ignored"]))
    assert score.as_dict() == {"all": None, "public": None, "private": None, "frames": 0}


def test_rows_are_matched_by_frame_not_by_order():
    score = metric.score(table(["1 1", ""], imgs=[7, 3]), table(["", "1 1"], imgs=[3, 7]))
    assert score.all == 1


@pytest.mark.parametrize(
    ("guess", "truth", "message"),
    [
        (table([""], imgs=[1]), table(["", ""]), r"lacks 1 frames \(2\)"),
        (table(["", "", ""]), table(["", ""]), r"has besides 1 frames \(3\)"),
        (table(["", ""], imgs=[1, 1]), table([""]), "submission has frame 1 more than once"),
        (table([""]), table(["", ""], imgs=[1, 1]), "solution has frame 1 more than once"),
        (table(["1"]), table([""]), "frame 1 of the submission: .*odd count"),
        (table([""]), table(["0 1"]), "frame 1 of the solution: .*start below 1"),
        (table([float("nan")]), table([""]), "frame 1 of the submission: expected run-length text"),
        (table([""]).rename(columns={"pixels": "rle"}), table([""]), "submission has no column 'pixels'"),
    ],
)
def test_tables_that_do_not_fit_are_refused(guess, truth, message):
    with pytest.raises(NerveError, match=message):
        metric.score(guess, truth)
