import keras
import numpy as np
import pytest

from kaggle_nerve.errors import NerveError
from kaggle_nerve.settings import LossSettings
from kaggle_nerve.training import losses
from kaggle_nerve.training.losses import MaskLoss

AXES = (1, 2, 3)


def clipped(guess):
    return np.clip(guess, 1e-7, 1 - 1e-7)


def dice_twin(truth, guess, smooth=1.0, **_):
    return 1 - (2 * (truth * guess).sum(AXES) + smooth) / (truth.sum(AXES) + guess.sum(AXES) + smooth)


def batch_dice_twin(truth, guess, smooth=1.0, **_):
    one = 1 - (2 * (truth * guess).sum() + smooth) / (truth.sum() + guess.sum() + smooth)
    return np.full(len(truth), one)


def bce_twin(truth, guess, **_):
    guess = clipped(guess)
    return -(truth * np.log(guess) + (1 - truth) * np.log(1 - guess)).mean(AXES)


def focal_twin(truth, guess, focal_gamma=2.0, **_):
    guess = clipped(guess)
    present, absent = (1 - guess) ** focal_gamma * np.log(guess), guess**focal_gamma * np.log(1 - guess)
    return -np.where(truth == 1, present, absent).mean(AXES)


def tversky_twin(truth, guess, smooth=1.0, tversky_alpha=0.3, tversky_beta=0.7, **_):
    found = (truth * guess).sum(AXES)
    false, missed = guess.sum(AXES) - found, truth.sum(AXES) - found
    return 1 - (found + smooth) / (found + tversky_alpha * false + tversky_beta * missed + smooth)


def focal_tversky_twin(truth, guess, focal_gamma=2.0, **shape):
    return np.maximum(tversky_twin(truth, guess, **shape), 0) ** focal_gamma


def lovasz_twin(truth, guess, **_):
    """By the definition: pixels go wrong one after the other, and J(wrong) = |wrong| / |truth or wrong|."""
    values = []
    for t, p in zip(truth.reshape(len(truth), -1), clipped(guess).reshape(len(guess), -1), strict=True):
        errors = 1 - np.log(p / (1 - p)) * np.where(t == 1, 1, -1)
        wrong, before, value = np.zeros(len(t), bool), 0.0, 0.0
        for pixel in np.argsort(-errors):
            wrong[pixel] = True
            after = wrong.sum() / (wrong | (t == 1)).sum()
            value += max(errors[pixel], 0) * (after - before)
            before = after
        values.append(value)
    return np.array(values)


TWINS = {
    "dice": dice_twin,
    "batch_dice": batch_dice_twin,
    "bce": bce_twin,
    "focal": focal_twin,
    "tversky": tversky_twin,
    "focal_tversky": focal_tversky_twin,
    "lovasz": lovasz_twin,
}
NONE = dict.fromkeys(TWINS, 0.0)


def only(name: str, **shape) -> MaskLoss:
    """The loss of each image with nothing but ``name`` in it."""
    return MaskLoss(**{**NONE, name: 1.0}, **shape, reduction="none")


def image(*rows) -> np.ndarray:
    return np.array(rows, np.float32)[None, ..., None]


def value(loss, truth, guess) -> float:
    (one,) = keras.ops.convert_to_numpy(loss(truth, guess))
    return float(one)


def random_images() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    truth = (random.random((5, 7, 11, 1)) > 0.6).astype(np.float32)
    truth[2] = 0
    return truth, random.random((5, 7, 11, 1)).astype(np.float32)


def test_dice_by_hand():
    # 2 true pixels, one of them found, one other claimed: 1 - (2*1 + 1) / (2 + 2 + 1) = 0.4.
    found = value(only("dice"), image([1, 1, 0], [0, 0, 0]), image([1, 0, 0], [0, 1, 0]))
    assert found == pytest.approx(0.4)


def test_dice_is_taken_image_by_image_and_batch_dice_is_not():
    # A perfect empty image and a missed pixel: 0 and 1 - 1 / (1 + 1); together 1 - 1 / (1 + 1) for both.
    truth = np.concatenate([image([0, 0, 0]), image([0, 1, 0])])
    guess = np.zeros_like(truth)
    np.testing.assert_allclose(only("dice")(truth, guess), [0, 0.5])
    np.testing.assert_allclose(only("batch_dice")(truth, guess), [0.5, 0.5])
    # An empty image with a false pixel beside 9 pixels found: 1 - (18 + 1) / (9 + 10 + 1) = 0.05, not 0.25.
    truth = np.concatenate([np.zeros((1, 3, 3, 1)), np.ones((1, 3, 3, 1))]).astype(np.float32)
    guess = truth.copy()
    guess[0, 1, 1] = 1
    np.testing.assert_allclose(only("batch_dice")(truth, guess), [0.05, 0.05], rtol=1e-5)
    np.testing.assert_allclose(only("dice")(truth, guess), [0.5, 0])


def test_cross_entropy_and_focal_loss_by_hand():
    truth, guess = image([1, 0]), image([0.5, 0.25])
    assert value(only("bce"), truth, guess) == pytest.approx((np.log(2) + np.log(4 / 3)) / 2)
    # The true classes have 0.5 and 0.75: their pixels count 0.5**2 and 0.25**2.
    wanted = (np.log(2) / 4 + np.log(4 / 3) / 16) / 2
    assert value(only("focal", focal_gamma=2.0), truth, guess) == pytest.approx(wanted)
    plain = value(only("focal", focal_gamma=0.0), truth, guess)
    assert plain == pytest.approx(value(only("bce"), truth, guess))


def test_tversky_and_focal_tversky_by_hand():
    # 1 found, 1 false, 2 missed: 1 - (1 + 1) / (1 + 0.3 + 2 * 0.7 + 1) = 1.7 / 3.7.
    truth, guess = image([1, 1, 1], [0, 0, 0]), image([1, 0, 0], [0, 1, 0])
    assert value(only("tversky"), truth, guess) == pytest.approx(1.7 / 3.7)
    found = value(only("focal_tversky", focal_gamma=0.75), truth, guess)
    assert found == pytest.approx((1.7 / 3.7) ** 0.75, rel=1e-5)


def test_tversky_with_equal_weights_is_dice_with_twice_the_smoothing():
    truth, guess = random_images()
    tversky = only("tversky", tversky_alpha=0.5, tversky_beta=0.5, smooth=1.5)(truth, guess)
    np.testing.assert_allclose(tversky, only("dice", smooth=3.0)(truth, guess), rtol=1e-5)


def test_lovasz_by_hand():
    # Logits 0 (true), 0.5 and -2 (false) err by 1, 1.5 and -1. First wrong alone 1/2, with the true one 2/2.
    guess = 1 / (1 + np.exp(-image([0, 0.5, -2])))
    assert value(only("lovasz"), image([1, 0, 0]), guess) == pytest.approx(1.5 * 0.5 + 1 * 0.5, rel=1e-5)
    # An empty image costs its largest error.
    assert value(only("lovasz"), image([0, 0, 0]), guess) == pytest.approx(1.5, rel=1e-5)


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize(
    "shape",
    [
        {},
        {"smooth": 3.0, "focal_gamma": 0.75, "tversky_alpha": 0.6, "tversky_beta": 1.1},
    ],
)
def test_each_equals_its_numpy_twin(name, shape):
    truth, guess = random_images()
    found = np.asarray(only(name, **shape)(truth, guess))
    assert (found.shape, found.dtype) == ((5,), np.float32)
    wanted = TWINS[name](truth.astype(float), guess.astype(float), **shape)
    np.testing.assert_allclose(found, wanted, rtol=2e-5)


@pytest.mark.parametrize("name", TWINS)
def test_a_perfect_frame_costs_nothing_the_empty_one_included(name):
    empty, full = image([0, 0, 0], [0, 0, 0]), image([0, 1, 1], [0, 0, 0])
    false = image([0, 0, 0], [0, 1, 0])
    assert value(only(name), empty, empty) == pytest.approx(0, abs=1e-6)
    assert value(only(name), full, full) == pytest.approx(0, abs=1e-6)
    # Without smoothing by the size of the frame a single false pixel tells; focal Tversky's least: (0.3 / 1.3)**2.
    assert value(only(name), empty, false) > 0.05


@pytest.mark.parametrize("name", TWINS)
def test_good_beats_bad(name):
    truth = np.zeros((1, 9, 14, 1), np.float32)
    truth[:, 2:6, 3:9] = 1
    half, shifted = truth.copy(), np.roll(truth, 1, axis=2)
    half[:, :4] = 0
    sure = [0.02 + 0.96 * guess for guess in (truth, shifted, half, 0 * truth, 1 - truth)]
    costs = [value(only(name), truth, guess.astype(np.float32)) for guess in sure]
    assert costs == sorted(costs)
    # To intersection over union, and so to Lovasz, nothing found is as bad as everything wrong.
    assert len({round(cost, 4) for cost in costs[:4]}) == 4


@pytest.mark.parametrize("name", TWINS)
def test_half_precision_does_not_overflow(name):
    # 420x580 ones sum to 243600, beyond the largest float16.
    ones = np.ones((1, 420, 580, 1), np.float16)
    assert value(only(name), ones, ones) == pytest.approx(0, abs=1e-6)
    wrong = value(only(name), ones, 0 * ones)
    assert np.isfinite(wrong)
    assert wrong > 0.9


def step(loss: MaskLoss, truth: np.ndarray, guess: np.ndarray, **options) -> list[np.ndarray]:
    """Weight and bias of p = 1 x + 0 after a step of gradient descent with rate 1, x = ``guess``."""
    model = keras.Sequential([keras.Input(guess.shape[1:]), keras.layers.Conv2D(1, 1)])
    model.set_weights([np.ones((1, 1, 1, 1)), np.zeros(1)])
    model.compile(keras.optimizers.SGD(1.0), loss=loss, **options)
    model.train_on_batch(guess, truth)
    return model.get_weights()


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize("gamma", [0.75, 2.0])
def test_slopes_are_finite_at_0_and_1(name, gamma):
    truth = np.concatenate([image([0, 1, 0], [0, 1, 1]), image([0, 0, 0], [0, 0, 0])])
    for guess in (truth, 1 - truth, np.zeros_like(truth), np.ones_like(truth)):
        loss = MaskLoss(**{**NONE, name: 1.0}, focal_gamma=gamma)
        assert all(np.isfinite(weights).all() for weights in step(loss, truth, guess, jit_compile=False))


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize("jit", [False, True])
def test_the_slope_of_a_compiled_step_is_that_of_the_twin(name, jit):
    truth, guess = random_images()
    guess = (0.2 + 0.6 * guess).astype(np.float32)
    _, bias = step(MaskLoss(**{**NONE, name: 1.0}), truth, guess, jit_compile=jit)
    small = 1e-6
    high, low = (TWINS[name](truth, guess.astype(float) + change).mean() for change in (small, -small))
    assert bias == pytest.approx(-(high - low) / (2 * small), rel=1e-3)


def test_the_whole_is_the_weighted_sum():
    truth, guess = random_images()
    weights = {name: 0.5 + place for place, name in enumerate(TWINS)}
    wanted = sum(weight * TWINS[name](truth, guess.astype(float)) for name, weight in weights.items())
    np.testing.assert_allclose(MaskLoss(**weights, reduction="none")(truth, guess), wanted, rtol=2e-5)
    assert float(MaskLoss(**weights)(truth, guess)) == pytest.approx(wanted.mean(), rel=2e-5)


def test_a_sample_weight_counts_its_image():
    truth, guess = random_images()
    each = np.asarray(only("dice")(truth, guess))
    weights = np.array([1, 0, 0.5, 0, 0], np.float32)
    found = float(MaskLoss(1, 0)(truth, guess, sample_weight=weights))
    assert found == pytest.approx((each[0] + each[2] / 2) / 5, rel=1e-5)


def test_settings_make_the_loss_that_they_describe():
    settings = LossSettings(
        dice=0.25, bce=0, focal_tversky=2.0, smooth=5, focal_gamma=0.75, presence=9, deep=8
    )
    truth, guess = random_images()
    wanted = 0.25 * dice_twin(truth, guess, 5) + 2 * focal_tversky_twin(truth, guess, 0.75, smooth=5)
    assert float(MaskLoss.from_settings(settings)(truth, guess)) == pytest.approx(wanted.mean(), rel=1e-5)


def test_no_loss_at_all_is_an_error():
    with pytest.raises(NerveError, match=r"weight 0; give one of loss\.dice, .*loss\.lovasz a weight\.$"):
        MaskLoss.from_settings(LossSettings(dice=0, bce=0))


def test_its_settings_are_saved():
    loss = MaskLoss.from_settings(LossSettings(0.5, 2.0, 7.0, focal=1, lovasz=3, smooth=4, tversky_beta=0.9))
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(loss))
    assert again.get_config() == loss.get_config()
    truth, guess = random_images()
    assert float(again(truth, guess)) == float(loss(truth, guess))


def test_a_loss_that_an_older_version_saved_is_still_read():
    saved = {
        "module": "kaggle_nerve.training.losses",
        "class_name": "MaskLoss",
        "config": {"name": "mask_loss", "reduction": "none", "dice": 0.5, "bce": 0.0, "smooth": 7.0},
        "registered_name": "kaggle_nerve>MaskLoss",
    }
    truth, guess = random_images()
    found = keras.saving.deserialize_keras_object(saved)(truth, guess)
    np.testing.assert_allclose(found, 0.5 * dice_twin(truth, guess, 7), rtol=1e-5)


def test_soft_truths_are_shares_of_pixels():
    # Half a pixel true and half claimed: found 0.25, false and missed 0.25 each.
    half = image([0.5, 0])
    assert value(only("dice"), half, half) == pytest.approx(1 - (0.5 + 1) / (1 + 1))
    assert value(only("tversky"), half, half) == pytest.approx(0.25 / (0.25 + 0.25 + 1))
    assert float(losses.focal(half, half, 0.0)[0]) == pytest.approx((np.log(2) + 0) / 2, abs=1e-6)
