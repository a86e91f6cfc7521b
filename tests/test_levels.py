import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kaggle_nerve.competition import rle
from kaggle_nerve.decision import features
from kaggle_nerve.maps import levels
from kaggle_nerve.maps.fullsize import Truths, enlarge

MAPS = hnp.arrays(
    np.float32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.floats(0, 1, width=32)
)


def test_levels_and_cuts_by_hand():
    probability = np.array([[0.0, 0.5, 1.0], [0.001, 0.2, 0.999]], np.float32)
    # 0.5 * 255 = 127.5 rounds to the even 128; 0.2 * 255 = 51.
    assert levels.quantise(probability).tolist() == [[0, 128, 255], [0, 51, 255]]
    assert [levels.cut(value) for value in (0.0, 0.2, 0.5, 0.6, 1.0)] == [1, 51, 128, 153, 255]


@given(MAPS)
def test_reached_counts_the_pixels_of_every_cut(probability):
    seen = levels.quantise(probability)
    reached = levels.at_least(levels.histogram(seen))
    assert reached.shape == (257,)
    assert [int(value) for value in reached] == [np.count_nonzero(seen >= cut) for cut in range(257)]


def test_the_top_mean_by_hand(monkeypatch):
    monkeypatch.setattr(features, "TOP", 3)
    seen = np.array([[255, 51, 0], [102, 0, 0]], np.uint8)
    reached = levels.at_least(levels.histogram(seen))
    # The three largest: 1, 0.4 and 0.2.
    assert features._top_mean(reached) == pytest.approx(1.6 / 3)
    # Inside from 0.3: 1 and 0.4.
    assert features._inside(reached, levels.cut(0.3)) == pytest.approx(0.7)
    assert features._inside(np.zeros(257, int), 5) == 0


def test_features_of_a_disc_and_of_nothing():
    rows, columns = np.ogrid[:420, :580]
    disc = np.where((rows - 200) ** 2 + (columns - 300) ** 2 <= 47**2, 255, 0).astype(np.uint8)

    def measured(seen, presence):
        reached = levels.at_least(levels.histogram(seen))
        values = features.measure(seen, reached, presence, (0.9, 0.1, 1.0, 0.0))
        return dict(zip(features.NAMES, values.tolist(), strict=True))

    found = measured(disc, 0.5)
    assert found["head"] == 0
    assert found["area50"] == pytest.approx(1, abs=0.01)  # 47 px of radius: 6940 pixels
    assert found["sharpness"] == found["inside"] == found["largest"] == 1
    assert 0.8 < found["compactness"] <= 1
    assert (found["agreement"], found["spread"]) == pytest.approx((0.9, 0.1))
    two = disc | np.roll(disc, 200, axis=1)
    assert measured(two, 0.5)["largest"] == pytest.approx(0.5, abs=0.01)
    bar = np.zeros_like(disc)
    bar[200:220, 100:400] = 255
    assert measured(bar, 0.5)["compactness"] < 0.4
    nothing = measured(np.zeros_like(disc), 0.0)
    assert np.isfinite(list(nothing.values())).all()
    assert nothing["area50"] == nothing["largest"] == 0


def test_truths_by_hand():
    truth = np.zeros((3, 4), np.uint8)
    truth[0, 1:3] = 1
    truths = Truths([rle.encode(truth), ""], (3, 4))
    full = np.array([[0.0, 0.9, 0.4, 0.9], [0.3, 0, 0, 0], [0, 0, 0, 0]], np.float32)
    areas, shared = truths.counts(0, full, np.array([0.3, 0.5], np.float32))
    assert areas.tolist() == [4, 2]
    assert shared.tolist() == [2, 1]
    assert truths.counts(1, full, np.array([0.5], np.float32))[1].tolist() == [0]
    assert truths.areas.tolist() == [2, 0]
    assert truths.inside(0, full).tolist() == pytest.approx([0.9, 0.4])
    assert (truths.mask(0) == truth).all()
    assert not truths.mask(1).any()


def test_enlarging_keeps_the_axes():
    probability = np.zeros((42, 58), np.float32)
    probability[10, 40] = 1
    full = enlarge(probability)
    assert full.shape == (420, 580)
    rows, columns = np.unravel_index(full.argmax(), full.shape)
    assert abs(rows - 105) <= 5
    assert abs(columns - 405) <= 5
