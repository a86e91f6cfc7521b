"""The fully connected CRF against its definition, pair of pixels by pair of pixels, and on cases that are plain."""

import numpy as np
import pytest

from kaggle_nerve.decision.crf import CrfSettings, marginals
from kaggle_nerve.errors import NerveError

SMALL = (12, 17)
WHOLE = CrfSettings(
    position_deviation=4.0,
    intensity_deviation=20.0,
    appearance_weight=3.0,
    smoothness_deviation=1.5,
    smoothness_weight=1.0,
    iterations=5,
    shrink=1,
)


def by_pairs(probability: np.ndarray, image: np.ndarray, settings: CrfSettings) -> np.ndarray:
    """Mean field with the kernels written out, in the two-label form of the paper's algorithm 1."""
    rows, columns = (axis.reshape(-1).astype(float) for axis in np.indices(image.shape))
    apart = (rows[:, None] - rows) ** 2 + (columns[:, None] - columns) ** 2
    grey = image.reshape(-1).astype(float)
    unlike = (grey[:, None] - grey) ** 2
    near = apart / (2 * settings.position_deviation**2)
    appearance = np.exp(-near - unlike / (2 * settings.intensity_deviation**2))
    smoothness = np.exp(-apart / (2 * settings.smoothness_deviation**2))
    total = np.zeros_like(apart)
    for weight, kernel in (
        (settings.appearance_weight, appearance),
        (settings.smoothness_weight, smoothness),
    ):
        root = np.sqrt(kernel.sum(axis=1))
        total += weight * kernel / root / root[:, None]
    one = np.clip(probability.reshape(-1).astype(float), 1e-4, 1 - 1e-4)
    costs = -np.log(np.stack([1 - one, one]))
    shares = np.stack([1 - one, one])
    for _ in range(settings.iterations):
        # Potts: each label pays for what the neighbours give to the other.
        energy = costs + (total @ shares[::-1].T).T
        shares = np.exp(-energy)
        shares /= shares.sum(axis=0)
    return shares[1].reshape(image.shape)


def case(kind: str) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    probability = random.random(SMALL, np.float32)
    if kind == "noise":
        return probability, random.integers(0, 256, SMALL, np.uint8)
    if kind == "slope":
        return probability, np.add.outer(np.arange(12) * 4, np.arange(17) * 9).astype(np.uint8)
    if kind == "one odd pixel":
        image = np.full(SMALL, 30, np.uint8)
        image[0, 16] = 250
        return probability, image
    return probability, np.full(SMALL, 99, np.uint8)


@pytest.mark.parametrize("kind", ["noise", "slope", "one odd pixel", "constant"])
@pytest.mark.parametrize("weights", [(3.0, 1.0), (3.0, 0.0), (0.0, 2.0)])
def test_it_is_the_mean_field_of_all_pairs(kind, weights):
    probability, image = case(kind)
    settings = CrfSettings(4.0, 20.0, weights[0], 1.5, weights[1], 5, 1)
    found = marginals(probability, image, settings)
    assert found.dtype == np.float32
    # The filter is exact to one part in a thousand of a kernel, so votes of up to 4 are to 4e-3 log-odds, a
    # quarter of that in probability. A pixel left out of its own neighbourhood would show as 0.03 to 0.08.
    np.testing.assert_allclose(found, by_pairs(probability, image, settings), atol=1e-3)


def test_one_iteration_on_two_pixels_by_hand():
    # All four pairs of a kernel this wide are 1, so each row of D^-1/2 K D^-1/2 is (1/2, 1/2).
    settings = CrfSettings(1e4, 1e4, 2.0, 1.0, 0.0, 1, 1)
    found = marginals(np.array([[0.9, 0.6]], np.float32), np.array([[10, 200]], np.uint8), settings)
    votes = 2.0 * (0.8 + 0.2) / 2
    np.testing.assert_allclose(found[0], [9 / (9 + np.exp(-votes)), 1.5 / (1.5 + np.exp(-votes))], atol=1e-3)


def test_a_confident_map_over_a_constant_image_keeps_its_mask():
    probability = np.full((40, 61), 0.001, np.float32)
    probability[10:25, 20:50] = 0.999
    image = np.full(probability.shape, 80, np.uint8)
    settings = CrfSettings(smoothness_weight=0.0)
    found = marginals(probability, image, settings)
    np.testing.assert_array_equal(found >= 0.5, probability >= 0.5)
    assert abs(found - probability).max() > 1e-4


@pytest.mark.parametrize("shrink", [1, 2])
def test_noise_snaps_to_the_edge_between_two_tones(shrink):
    random = np.random.default_rng(0)
    inside = np.zeros((60, 92), bool)
    inside[16:44, 30:70] = True
    image = np.where(inside, 170, 60).astype(np.uint8)
    # What the network drew lies four pixels off, and every pixel of it is uncertain.
    drawn = np.roll(inside, (4, 4), axis=(0, 1))
    odds = np.where(drawn, 0.8, -0.8) + random.normal(0, 1, inside.shape)
    probability = (1 / (1 + np.exp(-odds))).astype(np.float32)
    assert ((probability >= 0.5) != inside).mean() > 0.2
    settings = CrfSettings(position_deviation=12.0, appearance_weight=3.0, shrink=shrink)
    found = marginals(probability, image, settings) >= 0.5
    assert (found != inside).mean() < 0.02


def test_a_stronger_weight_moves_further():
    probability, image = case("slope")
    moved = [
        abs(
            marginals(probability, image, CrfSettings(4.0, 20.0, weight, 1.5, 0.0, 5, 1)) - probability
        ).mean()
        for weight in (0.0, 1.0, 4.0)
    ]
    assert moved[0] < 1e-4 < moved[1] < moved[2]


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_certain_probabilities_stay_numbers(value):
    probability = np.full((21, 30), value, np.float32)
    probability[5:9, 5:20] = 1 - value
    image = np.random.default_rng(1).integers(0, 256, probability.shape, np.uint8)
    for settings in (CrfSettings(), CrfSettings(appearance_weight=1e3, smoothness_weight=1e3)):
        found = marginals(probability, image, settings)
        assert found.shape == probability.shape
        assert ((found >= 0) & (found <= 1)).all()


def test_odd_sizes_shrink_and_come_back():
    probability, image = np.full((7, 11), 0.8, np.float32), np.full((7, 11), 50, np.uint8)
    for shrink in (2, 3, 50):
        found = marginals(probability, image, CrfSettings(shrink=shrink))
        assert found.shape == (7, 11)
        assert (found > 0.8).all()


def test_no_iterations_leave_the_map():
    probability, image = case("noise")
    found = marginals(probability, image, CrfSettings(iterations=0))
    np.testing.assert_allclose(found, np.clip(probability, 1e-4, 1 - 1e-4), atol=1e-6)


def test_the_arrays_given_are_not_changed():
    probability, image = case("noise")
    before = probability.copy(), image.copy()
    marginals(probability, image, WHOLE)
    np.testing.assert_array_equal(probability, before[0])
    np.testing.assert_array_equal(image, before[1])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("position_deviation", 0),
        ("intensity_deviation", float("nan")),
        ("smoothness_deviation", -1),
        ("appearance_weight", -0.1),
        ("iterations", -1),
        ("shrink", 0),
    ],
)
def test_settings_that_make_no_sense_are_named(name, value):
    with pytest.raises(NerveError, match=rf"The CRF's {name} is {value!r}; it has to be"):
        CrfSettings(**{name: value})


def test_sizes_that_differ_are_refused():
    with pytest.raises(NerveError, match=r"one size, got \(2, 3\) and \(3, 2\)"):
        marginals(np.zeros((2, 3), np.float32), np.zeros((3, 2), np.uint8))
