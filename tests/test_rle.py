"""Run-length text: hand-worked examples, properties, parity with pycocotools, real masks, and faults."""

import csv
import io
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pycocotools import mask as coco

from kaggle_nerve.competition import rle
from kaggle_nerve.competition.facts import SIZE
from kaggle_nerve.errors import NerveError

# 2 high, 3 wide. Pixel numbers:  1 3 5
#                                 2 4 6
EXAMPLES = [
    ([[0, 0, 0], [0, 0, 0]], ""),
    ([[1, 1, 1], [1, 1, 1]], "1 6"),
    ([[1, 0, 0], [0, 0, 0]], "1 1"),
    ([[0, 0, 0], [0, 0, 1]], "6 1"),  # the last pixel, which widely copied encoders drop
    ([[0, 1, 0], [0, 0, 0]], "3 1"),
    ([[0, 0, 0], [1, 0, 0]], "2 1"),
    ([[0, 1, 1], [0, 1, 0]], "3 3"),  # goes on from the bottom of a column to the top of the next
    ([[1, 1, 1], [0, 0, 0]], "1 1 3 1 5 1"),
    ([[0, 1, 0], [1, 0, 1]], "2 2 6 1"),
    ([[1, 0, 1], [1, 0, 1]], "1 2 5 2"),
]

masks = arrays.arrays(
    bool, st.tuples(st.integers(1, 45), st.integers(1, 45)), elements=st.booleans(), fill=st.just(False)
)


@pytest.mark.parametrize(("mask", "text"), EXAMPLES)
def test_worked_examples(mask, text):
    mask = np.array(mask, np.uint8)
    assert rle.encode(mask) == text
    assert rle.encode(np.asfortranarray(mask)) == text
    decoded = rle.decode(text, (2, 3))
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, mask)
    assert rle.area(text, (2, 3)) == mask.sum()


def test_the_competition_size_is_the_default():
    mask = np.zeros((420, 580), np.uint8)
    mask[419, 579] = mask[0, 1] = 1
    assert rle.encode(mask) == "421 1 243600 1"
    np.testing.assert_array_equal(rle.decode("421 1 243600 1"), mask)
    assert rle.encode(np.ones(SIZE, bool)) == "1 243600"
    assert rle.decode("").shape == SIZE
    assert not rle.decode("").any()


@given(masks)
def test_round_trip(mask):
    text = rle.encode(mask)
    np.testing.assert_array_equal(rle.decode(text, mask.shape), mask)
    starts, lengths = rle.runs(text, mask.shape)
    assert (starts[1:] > (starts + lengths)[:-1]).all()  # canonical: runs do not even touch
    assert rle.area(text, mask.shape) == mask.sum()


@given(masks, st.sampled_from([np.uint8, np.int8, np.uint16, np.int16, np.int32, np.int64, ">i4", "<u8"]))
def test_any_value_but_zero_belongs_to_the_mask(mask, dtype):
    values = mask.astype(dtype)
    values[mask] = np.resize(np.array([1, 2, 127, 3], dtype), mask.sum())
    if np.dtype(dtype).kind == "i":
        values[::2] *= -1
    assert rle.encode(values) == rle.encode(np.asfortranarray(values)) == rle.encode(mask)


@given(masks)
def test_memory_layout_does_not_matter(mask):
    wide = np.zeros((2 * mask.shape[0], 3 * mask.shape[1]), bool)
    wide[::2, ::3] = mask
    text = rle.encode(mask)
    assert rle.encode(wide[::2, ::3]) == text
    assert rle.encode(mask[::-1, ::-1][::-1, ::-1]) == text
    assert rle.encode(mask.T.copy().T) == text


def coco_text(mask):
    """The text by way of pycocotools, whose counts alternate between background and mask."""
    counts, text, position = coco_counts(coco.encode(np.asfortranarray(mask, np.uint8))["counts"]), [], 1
    for index, count in enumerate(counts):
        if index % 2 and count:
            text += [position, count]
        position += count
    return " ".join(map(str, text))


def coco_counts(code):
    """COCO's compressed counts: groups of 5 bits, lowest first; from the fourth on, differences to two before."""
    counts, at = [], 0
    while at < len(code):
        value = shift = 0
        more = True
        while more:
            group = code[at] - 48
            at, more = at + 1, bool(group & 32)
            value |= (group & 31) << shift
            shift += 5
        if group & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
    return counts


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # inside pycocotools
@given(masks)
def test_agrees_with_pycocotools(mask):
    assert rle.encode(mask) == coco_text(mask)
    code = coco.encode(np.asfortranarray(mask, np.uint8))
    np.testing.assert_array_equal(rle.decode(rle.encode(mask), mask.shape), coco.decode(code))


@given(arrays.arrays(bool, st.tuples(st.just(2), st.integers(1, 9), st.integers(1, 9))))
def test_intersection_and_batches_agree_with_masks(pair):
    size = pair.shape[1:]
    texts = rle.encode_many(pair)
    assert texts == [rle.encode(mask) for mask in pair]
    np.testing.assert_array_equal(rle.decode_many(texts, size), pair)
    first, second = (rle.runs(text, size) for text in texts)
    assert rle.intersection(first, second) == (pair[0] & pair[1]).sum()


def test_batches_read_iterables_one_by_one():
    assert rle.encode_many(np.eye(2, 3, k=k, dtype=bool) for k in (0, 1)) == ["1 1 4 1", "3 1 6 1"]
    assert rle.encode_many([]) == []
    assert rle.decode_many(iter(["1 1", ""]), (2, 3)).sum(axis=(1, 2)).tolist() == [1, 0]
    assert rle.decode_many([], (2, 3)).shape == (0, 2, 3)


def test_runs_count_from_zero():
    starts, lengths = rle.runs("2 2 6 1", (2, 3))
    assert (starts.tolist(), lengths.tolist()) == ([1, 5], [2, 1])


def test_touching_runs_are_accepted_and_become_one():
    assert rle.encode(rle.decode("1 2 3 1", (2, 3))) == "1 3"


FAULTS = [
    ("1", "odd count of numbers (1)"),
    ("1 2 5", "odd count of numbers (3)"),
    ("1 x", "number 2 of the run-length text, 'x', is not a whole number"),
    ("1.0 2", "number 1 of the run-length text, '1.0', is not a whole number"),
    ("1 1e1", "not a whole number"),
    ("+1 2", "not a whole number"),
    ("1\t2", "not a whole number"),
    ("1 2\n", "not a whole number"),
    ("1 ²", "not a whole number"),
    ("nan", "not a whole number"),
    ("١ ٢", "not a whole number"),
    (" 1 2", "stray space"),
    ("1 2 ", "stray space"),
    ("1  2", "stray space"),
    (" ", "stray space"),
    ("0 2", "run 1 (0 2) has a start below 1"),
    ("-3 2", "start below 1"),
    ("1 1 3 0", "run 2 (3 0) has a length below 1"),
    ("1 -1", "length below 1"),
    ("3 1 1 1", "run 2 (1 1) is unsorted: the run before it starts at 3"),
    ("1 3 3 1", "run 2 (3 1) overlaps the run before it, which ends at 3"),
    ("2 2 2 2", "overlaps the run before it, which ends at 3"),
    ("7 1", "run 1 (7 1) goes past the end: 2 x 3 pixels end at 6"),
    ("6 2", "past the end"),
    ("1 7", "past the end"),
    ("1 9223372036854775807", "past the end"),
    ("9223372036854775807 9223372036854775807", "past the end"),
    ("99999999999999999999999 1", "past the end"),
    ("9" * 5000 + " 1", "past the end"),
    ("-" + "9" * 5000 + " 1", "start below 1"),
]


@pytest.mark.parametrize(("text", "message"), FAULTS, ids=[text[:20] for text, _ in FAULTS])
def test_every_fault_is_named(text, message):
    for function in (rle.decode, rle.area, rle.runs):
        with pytest.raises(rle.RunLengthError) as caught:
            function(text, (2, 3))
        assert message in str(caught.value)
        assert len(str(caught.value)) < 200
    assert issubclass(rle.RunLengthError, NerveError)


@given(st.text(st.sampled_from("0123456789 -"), max_size=12))
def test_what_is_not_refused_can_be_drawn(text):
    try:
        expected = rle.area(text, (4, 5))
    except rle.RunLengthError:
        return
    assert rle.decode(text, (4, 5)).sum() == expected


@pytest.mark.parametrize("text", [None, float("nan"), 3, b"1 1"])
def test_what_is_no_text_is_refused(text):
    with pytest.raises(rle.RunLengthError, match="expected run-length text"):
        rle.decode(text)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((2, 3)), "compare it with a threshold"),
        (np.zeros((2, 3), np.float16), "compare it with a threshold"),
        (np.zeros((2, 3, 1), bool), "drop the other axes"),
        (np.zeros(6, bool), "drop the other axes"),
    ],
)
def test_what_is_no_mask_is_refused(mask, message):
    with pytest.raises(rle.RunLengthError, match=message):
        rle.encode(mask)
    with pytest.raises(rle.RunLengthError, match=f"mask 1: .*{message}"):
        rle.encode_many([np.zeros((2, 3), bool), mask])


def test_batches_name_the_faulty_text():
    with pytest.raises(rle.RunLengthError, match=r"mask 2: .*odd count"):
        rle.decode_many(["", "1 1", "1"], (2, 3))


def test_a_mask_without_pixels_has_no_text():
    assert rle.encode(np.zeros((0, 5), bool)) == rle.encode(np.zeros((5, 0), bool)) == ""


@pytest.mark.shared_data
def test_every_real_mask_round_trips_byte_for_byte(shared_data):
    with zipfile.ZipFile(shared_data / "surrogate.zip") as archive:
        rows = list(csv.DictReader(io.StringIO(archive.read("train_masks.csv").decode())))
    assert len(rows) == 4436
    for row in rows:
        mask = rle.decode(row["pixels"])
        assert rle.encode(mask) == row["pixels"]
        assert rle.encode(np.ascontiguousarray(mask)) == row["pixels"]
