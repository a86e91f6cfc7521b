"""Refinements of masks: hand-drawn cases and properties."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from support import disc

from kaggle_nerve.competition import rle
from kaggle_nerve.decision import shape
from kaggle_nerve.errors import NerveError

masks = arrays.arrays(
    bool, st.tuples(st.integers(1, 40), st.integers(1, 40)), elements=st.booleans(), fill=st.just(False)
)
noise = st.builds(
    lambda size, share, seed: np.random.default_rng(seed).random(size) < share,
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.sampled_from([0.02, 0.2, 0.5, 0.9]),
    st.integers(0, 10**6),
)
any_mask = masks | noise


def drawn(*rows: str) -> np.ndarray:
    return np.array([[pixel == "#" for pixel in row] for row in rows])


def big(centre: tuple[int, int], radius: int) -> np.ndarray:
    return disc(centre, radius).astype(bool)


def dice(first: np.ndarray, second: np.ndarray) -> float:
    return 2 * (first & second).sum() / (first.sum() + second.sum())


CASES = [
    (
        "fill",
        drawn(".####..", ".#..#..", ".#..###", ".####..", "......."),
        drawn(".####..", ".####..", ".######", ".####..", "......."),
    ),
    # Pixels that touch at a corner close a ring; a bay that opens at the frame's border is no hole.
    ("fill", drawn(".#..", "#.#.", ".#.."), drawn(".#..", "###.", ".#..")),
    ("fill", drawn("#.#", "#.#", "###"), drawn("#.#", "#.#", "###")),
    # A component within a hole, and the hole, become part of the mask.
    ("fill", drawn("#####", "#...#", "#.#.#", "#...#", "#####"), np.ones((5, 5), bool)),
    ("largest", drawn("##....#", "......#", "......#"), drawn("......#", "......#", "......#")),
    ("largest", drawn("#...##", ".#....", "..#..."), drawn("#.....", ".#....", "..#...")),
    # Two of two pixels: the one that is read first, though the other lies further left.
    ("largest", drawn("...#", "#..#", "#..."), drawn("...#", "...#", "....")),
    ("largest", drawn("#..#", "#..#"), drawn("#...", "#...")),
    (
        "hull",
        drawn("......", ".#....", "......", ".....#", "......", ".#...."),
        drawn("......", ".#....", ".###..", ".#####", ".###..", ".#...."),
    ),
    ("hull", drawn("#...#"), drawn("#####")),
    ("hull", drawn("#...", "....", "...#"), drawn("#...", "....", "...#")),
    ("hull", drawn("#..", "...", "..#"), drawn("#..", ".#.", "..#")),
    # Fewer than five points of outline, or one line of them.
    ("ellipse", drawn("....", ".##.", "..#."), drawn("....", ".##.", "..#.")),
]


@pytest.mark.parametrize(("name", "before", "after"), CASES)
def test_by_hand(name, before, after):
    given_mask = before.copy()
    np.testing.assert_array_equal(shape.OPERATIONS[name](before), after)
    np.testing.assert_array_equal(before, given_mask)


@pytest.mark.parametrize(("name", "before", "after"), CASES)
def test_the_memory_layout_does_not_matter(name, before, after):
    np.testing.assert_array_equal(shape.OPERATIONS[name](np.asfortranarray(before)), after)


def test_closing_fills_what_does_not_hold_its_disc():
    mask = big((60, 90), 40)
    narrow, wide = mask.copy(), mask.copy()
    narrow[60:, 90 - 4 : 90 + 5] = False
    wide[60:, 90 - 14 : 90 + 15] = False
    assert dice(shape.close(narrow), mask) > 0.995 > 0.97 > dice(narrow, mask)
    assert not shape.close(wide)[80:95, 90].any()
    apart = np.zeros((50, 90), bool)
    apart[20:30, 20:40] = apart[20:30, 44:64] = True
    assert shape.close(apart)[25, 20:64].all()


def test_closing_at_the_border_is_that_of_the_middle():
    random = np.random.default_rng(0)
    patch = random.random((30, 44)) < 0.02
    framed = np.pad(patch, 40)
    np.testing.assert_array_equal(shape.close(patch), shape.close(framed)[40:-40, 40:-40])


def test_smoothing_takes_off_what_is_thin_and_keeps_a_nerve():
    mask = big((100, 150), 47)
    spiked = mask.copy()
    spiked[98:102, 150:230] = True
    smoothed = shape.smooth(spiked)
    assert dice(smoothed, mask) > 0.99
    assert not smoothed[:, 210:].any()
    speck = np.zeros((30, 50), bool)
    speck[4, 7] = True
    np.testing.assert_array_equal(shape.smooth(speck), speck)


def test_smoothing_cuts_a_straight_edge_where_it_is():
    mask = np.zeros((200, 260), bool)
    mask[50:150, 60:200] = True
    smoothed = shape.smooth(mask)
    np.testing.assert_array_equal(smoothed[100], mask[100])
    np.testing.assert_array_equal(smoothed[:, 130], mask[:, 130])


def test_an_ellipse_comes_back_from_a_bitten_one():
    rows, columns = np.ogrid[:420, :580]
    across, down = columns - 300, rows - 200
    along, against = np.cos(0.5) * across + np.sin(0.5) * down, np.cos(0.5) * down - np.sin(0.5) * across
    whole = (along / 60) ** 2 + (against / 35) ** 2 <= 1
    assert dice(shape.ellipse(whole), whole) > 0.985
    bitten = whole & ~((rows - 200) ** 2 + (columns - 362) ** 2 <= 15**2)
    bitten[10:14, 10:14] = True
    found = shape.ellipse(bitten)
    assert dice(found, whole) > 0.95
    assert not found[10:14, 10:14].any()


@pytest.mark.parametrize("centre", [(5, 575), (419, 0), (0, 290)])
def test_ellipses_and_hulls_end_at_the_border(centre):
    mask = big(centre, 60)
    for name in ("ellipse", "hull", "close", "smooth"):
        assert dice(shape.OPERATIONS[name](mask), mask) > 0.8


def test_an_ellipse_of_a_line_is_drawn_or_left():
    for mask in (np.eye(30, 50, dtype=bool), np.ones((1, 40), bool), np.ones((40, 1), bool)):
        found = shape.ellipse(mask)
        assert found.any()
        assert found.shape == mask.shape


@pytest.mark.parametrize("name", shape.OPERATIONS)
@given(mask=any_mask)
@settings(max_examples=60)
def test_every_refinement_keeps_size_type_and_presence(name, mask):
    before = mask.copy()
    found = shape.OPERATIONS[name](mask)
    assert found.shape == mask.shape
    assert found.dtype == bool
    assert found.any() == mask.any()
    np.testing.assert_array_equal(mask, before)


@pytest.mark.parametrize("name", ["fill", "largest", "hull"])
@given(mask=any_mask)
@settings(max_examples=100)
def test_done_twice_is_done_once(name, mask):
    once = shape.OPERATIONS[name](mask)
    np.testing.assert_array_equal(shape.OPERATIONS[name](once), once)


@given(any_mask)
@settings(max_examples=100)
def test_what_lies_in_what(mask):
    assert not (mask & ~shape.fill(mask)).any()
    assert not (mask & ~shape.close(mask)).any()
    assert not (shape.fill(mask) & ~shape.hull(mask)).any()
    assert not (shape.close(mask) & ~shape.hull(mask)).any()
    assert not (shape.largest(mask) & ~mask).any()


@given(any_mask)
@settings(max_examples=60)
def test_a_hull_turns_with_its_mask(mask):
    for turned in (np.fliplr, np.flipud, np.transpose):
        np.testing.assert_array_equal(shape.hull(turned(mask)), turned(shape.hull(mask)))


def test_refinements_are_applied_in_the_order_given():
    mask = drawn("#.....##", "......#.", "......##")
    both = shape.apply_operations(mask, ["largest", "hull"])
    np.testing.assert_array_equal(both, drawn("......##", "......##", "......##"))
    np.testing.assert_array_equal(shape.apply_operations(mask, ["hull", "largest"]), shape.hull(mask))
    assert shape.hull(mask).sum() > both.sum()
    assert shape.apply_operations(mask, []) is mask
    assert list(shape.OPERATIONS) == ["fill", "largest", "close", "smooth", "ellipse", "hull"]


def test_an_unknown_refinement_is_named():
    with pytest.raises(NerveError, match="There is no mask refinement 'hole'; there are fill, largest"):
        shape.apply_operations(np.zeros((3, 4), bool), ["fill", "hole"])


def test_a_refined_mask_can_be_written():
    mask = drawn("####", "#..#", "####")
    assert rle.encode(shape.apply_operations(np.asfortranarray(mask), ["fill", "largest"])) == "1 12"
