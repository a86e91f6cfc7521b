import keras
import numpy as np
import pytest

from kaggle_nerve.models import blocks, forward, registry
from kaggle_nerve.settings import apply_changes, load_preset


def built(*changes: str) -> keras.Model:
    return registry.build(
        apply_changes(
            load_preset("tiny"), ("size=[48, 64]", "model.stem=1", "model.width=4", "model.depth=2", *changes)
        )
    )


@pytest.mark.parametrize("size", ["[45, 62]", "[17, 23]", "[64, 80]", "[8, 9]"])
@pytest.mark.parametrize("stem", [1, 2])
def test_any_size_comes_back_as_it_went_in(size, stem):
    model = built(f"size={size}", f"model.stem={stem}")
    height, width = model.input_shape[1:3]
    outputs = model(np.zeros((2, height, width, 1), np.float32))
    assert outputs["mask"].shape == (2, height, width, 1)
    assert outputs["presence"].shape == (2, 1)
    assert 0 < float(np.min(outputs["mask"])) <= float(np.max(outputs["mask"])) < 1


def test_margins_are_what_is_missing():
    assert blocks.margins((45, 62), 16) == ((1, 2), (1, 1))
    assert blocks.margins((48, 64), 16) == ((0, 0), (0, 0))


def test_what_is_cropped_is_what_was_padded():
    # With a mirrored frame a symmetric network must give the mirrored mask; an off-by-one crop would not.
    model = built("size=[20, 22]", "model.depth=1", "model.normalise=unit")
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            kernel, *bias = layer.get_weights()
            layer.set_weights([(kernel + kernel[:, ::-1]) / 2, *bias])
    frame = np.random.default_rng(0).uniform(0, 255, (1, 20, 22, 1)).astype(np.float32)
    straight = np.asarray(model(frame)["mask"])
    mirrored = np.asarray(model(frame[:, :, ::-1])["mask"])
    np.testing.assert_allclose(mirrored[:, :, ::-1], straight, atol=1e-5)


def test_parameters_equal_a_count_by_hand():
    # Width 4, depth 1, no batch norm: convolutions (k*k*in + 1)*out.
    model = built("model.depth=1", "model.batch_norm=false")
    down = (9 * 1 + 1) * 4 + (9 * 4 + 1) * 4
    bottom = (9 * 4 + 1) * 8 + (9 * 8 + 1) * 8
    up = (1 * 8 + 1) * 4 + (9 * 8 + 1) * 4 + (9 * 4 + 1) * 4
    heads = (4 + 1) * 1 + (8 + 1) * 1
    assert model.count_params() == down + bottom + up + heads


def test_standardised_frames_do_not_depend_on_gain_and_brightness():
    model = built("model.normalise=image")
    frame = np.random.default_rng(0).uniform(0, 100, (1, 48, 64, 1)).astype(np.float32)
    np.testing.assert_allclose(model(frame)["mask"], model(frame * 2 + 30)["mask"], atol=1e-3)
    plain = built("model.normalise=unit")
    assert np.abs(np.asarray(plain(frame)["mask"]) - np.asarray(plain(frame * 2 + 30)["mask"])).max() > 1e-3


def test_without_a_presence_head_the_mask_tells():
    model = built("model.presence=false")
    assert set(model.output) == {"mask"}
    frames = np.random.default_rng(0).integers(0, 256, (3, 48, 64), np.uint8)
    ((masks, presence),) = forward.probabilities(model, frames, batch=4, tta="none")
    np.testing.assert_allclose(presence, masks.max(axis=(1, 2)))


def test_forward_passes_give_the_rows_in_order_whatever_the_batch():
    model = built()
    frames = np.random.default_rng(0).integers(0, 256, (7, 48, 64), np.uint8)

    def joined(batch):
        parts = list(forward.probabilities(model, frames, batch=batch, tta="none"))
        return np.concatenate([m for m, _ in parts]), np.concatenate([p for _, p in parts])

    masks, presence = joined(3)
    whole, whole_presence = joined(7)
    assert masks.shape == (7, 48, 64)
    np.testing.assert_allclose(masks, whole, atol=1e-5)
    np.testing.assert_allclose(presence, whole_presence, atol=1e-5)


def test_flip_augmentation_is_the_mean_of_both_views():
    model = built()
    frames = np.random.default_rng(0).integers(0, 256, (2, 48, 64), np.uint8)
    ((plain, presence),) = forward.probabilities(model, frames, batch=2, tta="none")
    ((mirrored, presence_mirrored),) = forward.probabilities(model, frames[:, :, ::-1], batch=2, tta="none")
    ((both, presence_both),) = forward.probabilities(model, frames, batch=2, tta="hflip")
    np.testing.assert_allclose(both, (plain + mirrored[:, :, ::-1]) / 2, atol=1e-6)
    np.testing.assert_allclose(presence_both, (presence + presence_mirrored) / 2, atol=1e-6)


def test_a_saved_model_loads_without_custom_objects_and_predicts_the_same(tmp_path):
    model = built("size=[45, 62]", "model.stem=2")
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    frame = np.random.default_rng(0).uniform(0, 255, (1, 45, 62, 1)).astype(np.float32)
    np.testing.assert_array_equal(again(frame)["mask"], model(frame)["mask"])
