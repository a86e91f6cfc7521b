"""Views of test-time augmentation, and outputs that only training looks at."""

import gc
import weakref
from itertools import pairwise

import keras
import numpy as np
import pytest
from keras import layers

from kaggle_nerve.models import forward

SIZE = (9, 14)


def network() -> keras.Model:
    """Two masks and presence that depend on where in the frame something is."""
    keras.utils.set_random_seed(3)
    frames = keras.Input((*SIZE, 1))
    tensor = layers.Rescaling(1 / 255)(frames)
    tensor = layers.Conv2D(4, 3, padding="same", activation="tanh")(tensor)
    where = layers.Dense(1, activation="sigmoid", name="presence")(layers.Flatten()(tensor))
    fine = layers.Conv2D(1, 3, padding="same", activation="sigmoid", name="mask")(tensor)
    coarse = layers.Conv2D(1, 1, activation="sigmoid", name="mask_1")(tensor)
    model = keras.Model(frames, {"mask": fine, "mask_1": coarse, "presence": where})
    model.compile(keras.optimizers.SGD(1.0), loss="mse", jit_compile=False)
    return model


@pytest.fixture
def frames():
    return np.random.default_rng(0).integers(0, 256, (5, *SIZE), np.uint8)


def joined(model, frames, tta, batch=2):
    parts = list(forward.probabilities(model, frames, batch=batch, tta=tta))
    return tuple(np.concatenate(part) for part in zip(*parts, strict=True))


def direct(model, frames):
    outputs = model.predict_on_batch(frames[..., None].astype(np.float32))
    return outputs["mask"][..., 0], outputs["presence"][:, 0]


@pytest.mark.parametrize(
    ("tta", "mirrors"),
    [
        ("none", [np.s_[:, :, :]]),
        ("hflip", [np.s_[:, :, :], np.s_[:, :, ::-1]]),
        ("flips", [np.s_[:, :, :], np.s_[:, :, ::-1], np.s_[:, ::-1, :], np.s_[:, ::-1, ::-1]]),
    ],
)
def test_views_are_mirrored_there_and_back_and_averaged(frames, tta, mirrors):
    model = network()
    single = [direct(model, frames[mirror]) for mirror in mirrors]
    masks, presence = joined(model, frames, tta)
    wanted = np.mean([mask[mirror] for (mask, _), mirror in zip(single, mirrors, strict=True)], axis=0)
    np.testing.assert_allclose(masks, wanted, atol=1e-6)
    np.testing.assert_allclose(presence, np.mean([there for _, there in single], axis=0), atol=1e-6)
    assert (masks.dtype, presence.dtype) == (np.float32, np.float32)
    # The views do differ, or the mean would say nothing.
    assert all(np.abs(mask - single[0][0]).max() > 1e-3 for mask, _ in single[1:])


def test_coarser_masks_are_left_out_and_weights_stay_shared(frames):
    model = network()
    before = joined(model, frames, "none")
    model.predict_on_batch = None  # whatever is asked now, it is not the whole network
    np.testing.assert_array_equal(joined(model, frames, "none")[0], before[0])
    del model.predict_on_batch
    model.layers[-1].set_weights([weights + 1 for weights in model.layers[-1].get_weights()])
    model.get_layer("presence").bias.assign([20.0])
    model.get_layer("mask").bias.assign([0.7])
    masks, presence = joined(model, frames, "none")
    np.testing.assert_allclose(masks, direct(model, frames)[0], atol=1e-6)
    assert presence.min() > 0.99
    assert np.abs(masks - before[0]).max() > 0.05


def test_training_goes_on_after_a_prediction(frames):
    model = network()
    truth = {
        "mask": np.ones((5, *SIZE, 1), np.float32),
        "mask_1": np.zeros((5, *SIZE, 1), np.float32),
        "presence": np.ones((5, 1), np.float32),
    }
    first = joined(model, frames, "none")[0].mean()
    chunk = frames[..., None].astype(np.float32)

    class Look(keras.callbacks.Callback):
        means = ()

        def on_epoch_end(self, epoch, logs=None):
            self.means = (*self.means, joined(self.model, frames, "none")[0].mean())

    look = Look()
    model.fit(chunk, truth, batch_size=5, epochs=3, verbose=0, callbacks=[look])
    means = [first, *look.means]
    assert all(later > earlier + 1e-4 for earlier, later in pairwise(means))
    np.testing.assert_allclose(means[-1], direct(model, frames)[0].mean(), atol=1e-6)


def test_a_network_that_is_gone_leaves_nothing_behind(frames):
    model = network()
    joined(model, frames, "none")
    gone = [weakref.ref(model), weakref.ref(forward._short[model])]
    del model
    gc.collect()
    gc.collect()  # the first lets go of the part's only holder
    assert [reference() for reference in gone] == [None, None]
