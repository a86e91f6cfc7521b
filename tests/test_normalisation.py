"""The fused batch normalisation against the plain one."""

import keras
import numpy as np
import pytest

from kaggle_nerve.models.layers import FusedBatchNormalization


def trained_once(kind: type, policy: str) -> tuple[np.ndarray, ...]:
    """Weights after one large step on two frames, and the predictions before and after."""
    keras.utils.set_random_seed(3)
    frames = keras.Input((5, 7, 2))
    tensor = keras.layers.Conv2D(3, 3, padding="same", use_bias=False, dtype=policy)(frames)
    tensor = kind(momentum=0.6, epsilon=1e-2, dtype=policy)(tensor)
    model = keras.Model(frames, keras.layers.Conv2D(1, 1, dtype="float32")(tensor))
    model.compile(keras.optimizers.SGD(0.5), loss="mse", jit_compile=False, auto_scale_loss=False)
    random = np.random.default_rng(0)
    batch = random.normal(3, 5, (2, 5, 7, 2)).astype(np.float32)
    truth = random.normal(0, 1, (2, 5, 7, 1)).astype(np.float32)
    before = model.predict_on_batch(batch)
    model.train_on_batch(batch, truth)
    return before, model.predict_on_batch(batch), *model.get_weights()


@pytest.mark.parametrize(("policy", "digit"), [("float32", 1e-4), ("mixed_bfloat16", 3e-2)])
def test_it_learns_and_remembers_as_the_plain_one_does(policy, digit):
    plain = trained_once(keras.layers.BatchNormalization, policy)
    fused = trained_once(FusedBatchNormalization, policy)
    for wanted, found in zip(plain, fused, strict=True):
        np.testing.assert_allclose(found, wanted, atol=digit, rtol=digit)
    assert np.abs(plain[0] - plain[1]).max() > 0.05


def test_its_variance_is_that_of_the_batch_by_hand():
    layer = FusedBatchNormalization(momentum=0.0)
    layer(np.array([0.0, 2.0, 4.0, 6.0], np.float32).reshape(1, 2, 2, 1), training=True)
    # Mean 3; squares 9, 1, 1, 9: variance 20 / 4 = 5.
    np.testing.assert_allclose(layer.moving_mean, [3.0], rtol=1e-6)
    np.testing.assert_allclose(layer.moving_variance, [5.0], rtol=1e-6)
