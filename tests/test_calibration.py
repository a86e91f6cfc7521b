import numpy as np
import pytest
from decision_support import stored

from kaggle_nerve.decision import calibration, figures
from kaggle_nerve.decision.calibration import METHODS
from kaggle_nerve.decision.evidence import measure
from kaggle_nerve.decision.presence import ALL_NAMES
from kaggle_nerve.maps.fullsize import Truths

GIVEN = np.linspace(0.02, 0.98, 49)


def odds(p):
    return np.log(p / (1 - p))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("method", METHODS)
def test_what_is_calibrated_already_stays(method):
    times = np.full(len(GIVEN), 1e6)
    curve = calibration.fit(method, GIVEN, GIVEN * times, times)
    np.testing.assert_allclose(curve(GIVEN), GIVEN, atol=2e-3)


@pytest.mark.parametrize("method", METHODS)
def test_overconfidence_is_taken_back(method):
    # The truth has half the log-odds: temperature 2.
    times = np.full(len(GIVEN), 1000)
    truth = sigmoid(odds(GIVEN) / 2)
    curve = calibration.fit(method, GIVEN, truth * times, times)
    np.testing.assert_allclose(curve(GIVEN), truth, atol=3e-3)


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_a_shift_is_taken_back_where_the_method_can(method):
    times = np.full(len(GIVEN), 1000)
    truth = sigmoid(odds(GIVEN) - 1.5)
    curve = calibration.fit(method, GIVEN, truth * times, times)
    np.testing.assert_allclose(curve(GIVEN), truth, atol=3e-3)


def test_isotonic_by_hand_pools_what_falls():
    # 0.2 came true 2 of 2 times and 0.4 none of 2: both mean 1/2; levels never seen lie between.
    given, true, times = np.array([0.1, 0.2, 0.4, 0.6]), np.array([0, 2, 0, 9]), np.array([5, 2, 2, 9])
    curve = calibration.fit("isotonic", given, true, times)
    assert curve(np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.9])).tolist() == pytest.approx(
        [0, 0.5, 0.5, 0.5, 0.75, 1, 1]
    )


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("share", [0, 1])
def test_one_kind_alone_is_no_error(method, share):
    times = np.ones(3)
    curve = calibration.fit(method, np.array([0.2, 0.5, 0.9]), share * times, times)
    assert curve(np.array([0.5])) == pytest.approx(share)


def test_the_reliability_by_hand():
    # 4 at 0.25 of which 1 came true, 2 at 0.75 of which 2 did.
    found = calibration.reliability(np.array([0.25, 0.75]), np.array([1, 2]), np.array([4, 2]))
    assert found.table == ((0.25, 0.25, 4), (0.75, 1.0, 2))
    assert found.error == pytest.approx(2 * 0.25 / 6)
    assert found.brier == pytest.approx((0.75**2 + 3 * 0.25**2 + 2 * 0.25**2) / 6)
    assert found.log_loss == pytest.approx(-(np.log(0.25) + 3 * np.log(0.75) + 2 * np.log(0.75)) / 6)


def test_calibration_helps_on_patients_that_it_has_not_seen():
    found, table = stored(subjects=6, frames=10)
    evidence = measure(found, Truths(list(table.pixels)))[0]
    pixels = figures.reliability_of_pixels(evidence)
    # The maps are two pixels off and sure of themselves.
    assert pixels["isotonic"].error < pixels["raw"].error
    assert sum(count for *_, count in pixels["raw"].table) == len(table) * 420 * 580
    presence = figures.reliability_of_presence(evidence, ALL_NAMES)
    assert set(presence) == {"raw", *METHODS, "classifier"}
    assert presence["classifier"].brier < 0.25
