import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kaggle_nerve.maps import levels, matching

COUNTS = hnp.arrays(np.int64, 256, elements=st.integers(0, 1000)).filter(np.any)


def test_the_same_distribution_stays():
    counts = np.full(256, 7)
    np.testing.assert_allclose(matching.curve(counts, 3 * counts), np.arange(256) / 255, atol=0.002)


def test_a_curve_by_hand():
    # All of the ensemble's pixels are at level 0 or, half of them, at 128; the folds say 0 or 255.
    ensemble, folds = np.zeros(256, int), np.zeros(256, int)
    ensemble[[0, 128]] = 10
    folds[[0, 255]] = 30
    found = matching.curve(ensemble, folds)
    assert found[0] == pytest.approx(0, abs=0.002)
    assert found[128] == pytest.approx(1, abs=0.002)


@given(COUNTS, COUNTS)
def test_a_curve_rises_and_stays_a_probability(ensemble, folds):
    found = matching.curve(ensemble, folds)
    assert (np.diff(found) >= 0).all()
    assert 0 <= found[0] <= found[-1] <= 1


def test_values_take_over_the_distribution_in_their_own_order():
    random = np.random.default_rng(0)
    folds = random.random((2000, 3))
    ensemble = folds.mean(axis=1)
    found = matching.match_values(ensemble, folds)
    assert (np.argsort(found) == np.argsort(ensemble)).all()
    wanted = np.quantile(folds, [0.1, 0.5, 0.9])
    np.testing.assert_allclose(np.quantile(found, [0.1, 0.5, 0.9]), wanted, atol=0.01)
    assert found.std() > 1.5 * ensemble.std()


def test_other_values_are_placed_between_the_ensemble_s_own():
    ensemble, folds = np.array([0.2, 0.4, 0.4, 0.8]), np.array([[0.0], [0.4], [0.6], [1.0]])
    own = matching.match_values(ensemble, folds)
    scale = matching.Scale(np.arange(256) / 255, ensemble, folds)
    np.testing.assert_allclose(scale.presences(ensemble[::-1]), own[::-1])
    # Half way from 0.2, at quantile 1/8, to 0.4, at 1/2: 5/16 of the folds' four values.
    np.testing.assert_allclose(scale.presences(np.array([0.3, 0.6])), [0.375, 0.625])
    assert scale.presences(np.array([0.0, 0.9])).tolist() == [own[0], own[-1]]


def test_maps_move_along_the_curve():
    maps = np.array([[[0, 0.5, 1]], [[0.25, 128 / 255, np.nan]]], np.float16)
    matched = np.clip(np.arange(256) / 128, 0, 1)  # doubles what is small
    found = matching.MatchedMaps(maps, matched)
    assert len(found) == 2
    assert found[0].shape == (1, 3)
    np.testing.assert_allclose(found[0], [[0, 0.996, 1]], atol=0.001)
    np.testing.assert_allclose(found[1][0, :2], [0.498, 1], atol=0.002)
    assert np.isnan(found[1][0, 2])


def test_the_mean_of_sharp_folds_gets_as_sharp_as_they_are():
    # Three folds see a disc of their own; their mean is sure nowhere else than where all agree.
    rows, columns = np.ogrid[:60, :80]
    folds = np.stack([((rows - 30) ** 2 + (columns - 40 - 4 * k) ** 2 < 200) * 0.96 for k in (-1, 0, 1)])
    mean = folds.mean(axis=0)

    def counted(maps):
        return sum(levels.histogram(levels.quantise(one.astype(np.float32))) for one in maps)

    found = matching.MatchedMaps(
        mean[None].astype(np.float16), matching.curve(counted([mean]), counted(folds))
    )[0]
    single = np.mean([np.count_nonzero(fold > 0.9) for fold in folds])
    assert np.count_nonzero(mean > 0.9) < 0.75 * single
    assert np.count_nonzero(found > 0.9) == pytest.approx(single, rel=0.3)
