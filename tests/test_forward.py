"""Views of test-time augmentation, and outputs that only training looks at."""

import gc
import weakref
from itertools import pairwise

import keras
import numpy as np
import pytest
from keras import layers
from support import disc

from kaggle_nerve.maps import blending
from kaggle_nerve.prediction import forward, views
from kaggle_nerve.settings.schema import COMBINE, TTA

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


def joined(model, frames, tta, batch=2, combine="mean"):
    parts = list(forward.probabilities(model, frames, batch=batch, tta=tta, combine=combine))
    return forward.ModelOutput(*(np.concatenate(part) for part in zip(*parts, strict=True)))


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
    masks, presence, *_ = joined(model, frames, tta)
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
    masks, presence, *_ = joined(model, frames, "none")
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


class Drawn:
    """Stands for a network: ``draw`` makes the masks of a batch (b, height, width) of grey from 0 to 1.

    It believes in a mask as far as the left half of the frame is bright.
    """

    def __init__(self, draw):
        self.draw = draw

    def predict_on_batch(self, chunk):
        frames = chunk[..., 0] / 255
        left = frames[:, :, : frames.shape[2] // 2].mean(axis=(1, 2))
        return {"mask": self.draw(frames)[..., None], "presence": left[:, None]}


WIDE = (61, 91)


def bright_disc() -> np.ndarray:
    return 255 * disc((22, 60), 12, WIDE)[None]


def centroid(mask: np.ndarray) -> np.ndarray:
    places = np.indices(mask.shape).reshape(2, -1)
    return places @ mask.reshape(-1) / mask.sum()


@pytest.mark.parametrize("zoom", [0.9, 1.0, 1.1])
def test_a_zoom_is_about_the_centre_and_is_undone(zoom):
    frame = bright_disc().astype(np.float32) / 255
    seen = views.apply_view(frame, views.View((), zoom))
    assert seen.shape == frame.shape
    # The centre of 61 x 91 is (30, 45); the disc's lies 8 above and 15 to the right of it.
    np.testing.assert_allclose(centroid(seen[0]), [30 - 8 * zoom, 45 + 15 * zoom], atol=0.05)
    assert seen.sum() == pytest.approx(zoom**2 * frame.sum(), rel=0.01)
    back = views.undo_view(seen, views.View((), zoom))
    np.testing.assert_allclose(centroid(back[0]), [22, 60], atol=0.05)
    assert np.abs(back - frame).mean() < 0.01


def test_a_frame_has_a_rim_where_a_mask_has_none():
    ones = np.ones((1, *WIDE), np.float32)
    np.testing.assert_allclose(views.apply_view(ones, views.View((), 0.9)), ones)
    back = views.undo_view(ones, views.View((2,), 1.1))[0]
    # The enlarged frame shows 91 / 1.1 columns, so that four on each side are unseen.
    assert back[30, :3].max() == back[30, -3:].max() == back[:2].max() == 0
    np.testing.assert_allclose(back[5:-5, 6:-6], 1)


@pytest.mark.parametrize("tta", [name for name in views.VIEWS if name != "none"])
def test_the_views_of_a_mask_come_back_aligned(tta):
    # The masks are the frames, so that a view which is not brought back is a disc somewhere else.
    frames = bright_disc()
    masks, _, agreement, _ = joined(Drawn(lambda frames: frames), frames, tta)
    assert np.abs(masks[0] - frames[0] / 255).mean() < 0.01
    assert agreement[0] > 0.97


def test_agreement_and_spread_by_hand():
    def left_ten(frames):
        masks = np.zeros_like(frames)
        masks[:, :, :10] = 0.9
        return masks

    frames = np.zeros((3, 9, 14), np.uint8)
    frames[1, :, :7] = 255
    # Mirrored and brought back these are the right ten of 14 columns: 6 are shared, Dice 12 / 20.
    one = joined(Drawn(left_ten), frames, "hflip")
    np.testing.assert_allclose(one.agreement, 0.6)
    np.testing.assert_allclose(one.presence, [0, 0.5, 0])
    np.testing.assert_allclose(one.spread, [0, 0.5, 0])
    # Up-down changes nothing: of six pairs of views two are alike.
    np.testing.assert_allclose(joined(Drawn(left_ten), frames, "flips").agreement, (2 + 4 * 0.6) / 6)
    alone = joined(Drawn(left_ten), frames, "none")
    assert (alone.agreement.tolist(), alone.spread.tolist()) == ([1, 1, 1], [0, 0, 0])
    assert joined(Drawn(np.zeros_like), frames, "hflip").agreement.tolist() == [1, 1, 1]


@pytest.mark.parametrize("combine", ["logits", "agreement"])
def test_views_are_combined_frame_by_frame(combine):
    height, width = WIDE
    ramp = np.add.outer(np.arange(height) / height, np.arange(width) / width) - 1
    surer = 1 / (1 + np.exp(-6 * ramp)).astype(np.float32)  # the further down and right
    model = Drawn(lambda frames: frames * surer)
    frames = np.stack([255 * disc(centre, 14, WIDE) for centre in ((22, 60), (45, 70), (30, 20))])
    mirrors = np.s_[:, :, :], np.s_[:, :, ::-1], np.s_[:, ::-1, :], np.s_[:, ::-1, ::-1]
    each = np.stack([direct(model, frames[mirror])[0][mirror] for mirror in mirrors])
    masks = joined(model, frames, "flips", combine=combine).masks
    wanted = [blending.combine(each[:, row], combine) for row in range(len(frames))]
    np.testing.assert_allclose(masks, wanted, atol=2e-3)
    assert np.abs(masks - each.mean(axis=0)).max(axis=(1, 2)).min() > 0.01


def test_what_the_settings_name_is_there():
    assert set(TTA) == set(views.VIEWS)
    assert set(COMBINE) == set(blending.METHODS)
