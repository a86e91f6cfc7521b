import keras
import numpy as np
import pytest

from kaggle_nerve.training.losses import MaskLoss


def numpy_twin(truth, guess, dice, bce, smooth):
    axes = (1, 2, 3)
    both, either = (truth * guess).sum(axes), truth.sum(axes) + guess.sum(axes)
    guess = np.clip(guess, 1e-7, 1 - 1e-7)
    entropy = -(truth * np.log(guess) + (1 - truth) * np.log(1 - guess)).mean(axes)
    return dice * (1 - (2 * both + smooth) / (either + smooth)) + bce * entropy


def image(*rows) -> np.ndarray:
    return np.array(rows, np.float32)[None, ..., None]


def test_the_example_by_hand():
    # 2 true pixels, one of them found, one other claimed: 1 - (2*1 + 1) / (2 + 2 + 1) = 0.4.
    loss = MaskLoss(dice=1, bce=0, smooth=1)
    value = loss(image([1, 1, 0], [0, 0, 0]), image([1, 0, 0], [0, 1, 0]))
    assert float(value) == pytest.approx(0.4)


def test_a_perfect_empty_frame_costs_nothing_and_a_false_pixel_does():
    loss = MaskLoss(dice=1, bce=0, smooth=1)
    empty = image([0, 0, 0], [0, 0, 0])
    assert float(loss(empty, empty)) == 0
    # One false pixel: 1 - (0 + 1) / (0 + 1 + 1) = 0.5.
    assert float(loss(empty, image([0, 0, 0], [0, 1, 0]))) == pytest.approx(0.5)


def test_it_is_taken_image_by_image():
    # One perfect empty image and one missed pixel: the mean of 0 and 0.5, not the Dice of the batch.
    truth = np.concatenate([image([0, 0, 0]), image([0, 1, 0])])
    guess = np.zeros_like(truth)
    assert float(MaskLoss(dice=1, bce=0, smooth=1)(truth, guess)) == pytest.approx(0.25)


@pytest.mark.parametrize(("dice", "bce"), [(1, 0), (0, 1), (0.7, 2.0)])
def test_it_equals_its_numpy_twin(dice, bce):
    random = np.random.default_rng(0)
    truth = (random.random((5, 7, 11, 1)) > 0.6).astype(np.float32)
    truth[2] = 0
    guess = random.random((5, 7, 11, 1)).astype(np.float32)
    values = MaskLoss(dice=dice, bce=bce, smooth=3.0, reduction="none")(truth, guess)
    np.testing.assert_allclose(values, numpy_twin(truth, guess, dice, bce, 3.0), rtol=1e-5)


def test_half_precision_does_not_overflow():
    # 420x580 ones sum to 243600, beyond the largest float16.
    ones = np.ones((1, 420, 580, 1), np.float16)
    assert float(MaskLoss(dice=1, bce=0)(ones, ones)) == pytest.approx(0, abs=1e-6)


def test_its_settings_are_saved():
    loss = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(MaskLoss(0.5, 2.0, 7.0)))
    assert (loss.dice, loss.bce, loss.smooth) == (0.5, 2.0, 7.0)
