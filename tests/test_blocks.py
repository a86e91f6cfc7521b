"""Each block, skip and head against a count of its parameters and a computation by hand."""

from collections.abc import Sequence

import keras
import numpy as np
import pytest

from kaggle_nerve.models import blocks, heads, skips
from kaggle_nerve.settings import ModelSettings

PLAIN = {"batch_norm": False}


def one(shape: tuple[int, int, int], make) -> keras.Model:
    """A model of one frame through ``make``."""
    tensor = keras.Input(shape)
    return keras.Model(tensor, make(tensor))


def set_all(model: keras.Model, value: float = 0.0, **by_name: list) -> None:
    """Give each layer its arrays in ``by_name``; all other weights become ``value``."""
    for layer in model.layers:
        arrays = by_name.get(layer.name, [np.full_like(array, value) for array in layer.get_weights()])
        layer.set_weights([np.reshape(a, w.shape) for a, w in zip(arrays, layer.get_weights(), strict=True)])


def sigmoid(value):
    return 1 / (1 + np.exp(-np.asarray(value, float)))


@pytest.mark.parametrize(("before", "shortcut"), [(3, (3 + 1) * 5), (5, 0)])
def test_a_residual_block_has_a_shortcut_convolution_where_channels_change(before, shortcut):
    settings = ModelSettings(**PLAIN, block="residual")
    model = one((4, 6, before), lambda tensor: blocks.block(tensor, 5, settings, "here"))
    assert model.output_shape == (None, 4, 6, 5)
    assert model.count_params() == (9 * before + 1) * 5 + (9 * 5 + 1) * 5 + shortcut


def test_a_residual_block_of_zeros_is_its_activation():
    settings = ModelSettings(**PLAIN, block="residual", activation="elu")
    model = one((4, 6, 2), lambda tensor: blocks.block(tensor, 2, settings, "here"))
    set_all(model)
    frame = np.random.default_rng(0).normal(size=(1, 4, 6, 2)).astype(np.float32)
    wanted = np.where(frame > 0, frame, np.exp(frame) - 1)
    np.testing.assert_allclose(model.predict_on_batch(frame), wanted, atol=1e-6)


def test_an_inception_block_has_the_competition_networks_proportions():
    def built(settings, channels=16):
        return one((4, 6, 3), lambda tensor: blocks.block(tensor, channels, settings, "here"))

    model = built(ModelSettings(**PLAIN, block="inception"))
    point = (3 + 1) * 4
    small = (3 + 1) * 6 + (3 * 6 + 1) * 8 + (3 * 8 + 1) * 8
    large = (3 + 1) * 1 + (5 * 1 + 1) * 2 + (5 * 2 + 1) * 2
    pooled = (3 + 1) * 2
    assert model.output_shape == (None, 4, 6, 16)
    assert model.count_params() == point + small + large + pooled
    # The flat convolutions lose their bias of 8 and 2; they and the whole are normalised, by 4 numbers each.
    normed = built(ModelSettings(block="inception"))
    assert normed.count_params() == model.count_params() - 10 + 4 * (8 + 2 + 16)
    assert built(ModelSettings(block="inception"), 1).output_shape == (None, 4, 6, 4)
    assert built(ModelSettings(block="inception"), 8).output_shape == (None, 4, 6, 8)


def test_inception_looks_two_pixels_far_and_takes_the_largest_of_nine():
    settings = ModelSettings(**PLAIN, block="inception")
    model = one((7, 9, 1), lambda tensor: blocks.block(tensor, 16, settings, "here"))
    set_all(model, 1.0)
    for layer in model.layers:
        if layer.weights:
            layer.set_weights([layer.get_weights()[0], np.zeros_like(layer.get_weights()[1])])
    frame = np.zeros((1, 7, 9, 1), np.float32)
    frame[0, 3, 4] = 1
    seen = model.predict_on_batch(frame)[0]
    reach = [np.argwhere(seen[..., channel]).tolist() for channel in (0, 4, 12, 14)]
    assert reach[0] == [[3, 4]]
    assert (len(reach[1]), len(reach[2]), len(reach[3])) == (9, 25, 9)
    assert reach[2][0] == [1, 2]
    assert seen[..., 14].max() == 1


def test_squeeze_and_excitation_by_hand():
    model = one((1, 2, 2), lambda tensor: blocks.squeeze_excite(tensor, "here"))
    assert model.count_params() == (2 + 1) * 1 + (1 + 1) * 2 + (2 + 1)
    set_all(
        model,
        here_excite_a=[[1, 1], [0]],
        here_excite_b=[[1, -1], [0, 0]],
        here_excite_pixel=[[1, 0], [-1]],
    )
    frame = np.array([[[[1, 2], [3, 6]]]], np.float32)
    # Means 2 and 4, hidden 6: the channels' weights are sigmoid(6), sigmoid(-6); the pixels' sigmoid(0), sigmoid(2).
    weights = sigmoid([6, -6])[None] + sigmoid([0, 2])[:, None]
    np.testing.assert_allclose(model.predict_on_batch(frame)[0, 0], frame[0, 0] * weights, rtol=1e-5)


def gate(channels: int = 6) -> keras.Model:
    fine, coarse = keras.Input((2, 8, channels)), keras.Input((1, 4, 5))
    return keras.Model(
        [fine, coarse], skips.connection(fine, coarse, ModelSettings(skip="attention"), "gate")
    )


def test_an_attention_gate_opens_where_the_coarse_features_say():
    model = gate()
    assert model.count_params() == 4 * 6 * 3 + (5 + 1) * 3 + (3 + 1)
    set_all(model, gate_asked=[np.eye(5)[:, :3], np.zeros(3)], gate_weight=[[40, 0, 0], [-20]])
    fine = np.random.default_rng(0).normal(size=(1, 2, 8, 6)).astype(np.float32)
    coarse = np.zeros((1, 1, 4, 5), np.float32)
    coarse[0, 0, :2, 0] = 1
    found = model.predict_on_batch([fine, coarse])
    # Open for the coarse columns 0 and 1; enlarged, the columns 3 and 4 lie a quarter from the border.
    weight = np.array([1, 1, 1, 0.75, 0.25, 0, 0, 0])[None, None, :, None]
    np.testing.assert_allclose(found, fine * weight, atol=1e-6)


def test_an_attention_gate_sees_the_fine_features_too():
    model = gate(2)
    set_all(model, gate_seen=[np.full((2, 2, 2, 1), 0.25)], gate_weight=[[1], [0]])
    fine = np.ones((1, 2, 8, 2), np.float32)
    found = model.predict_on_batch([fine, np.zeros((1, 1, 4, 5), np.float32)])
    np.testing.assert_allclose(found, sigmoid(2) * fine, rtol=1e-5)


def test_a_residual_skip_adds_a_tenth():
    settings = ModelSettings(**PLAIN, skip="residual")
    model = one((2, 4, 2), lambda tensor: skips.connection(tensor, None, settings, "skip"))
    assert model.count_params() == (2 + 1) * 2
    set_all(model, skip_conv=[[[1, 1], [0, 0]], [0, 0]])
    frame = np.random.default_rng(0).normal(size=(1, 2, 4, 2)).astype(np.float32)
    wanted = np.maximum(frame + 0.1 * frame[..., :1], 0)
    np.testing.assert_allclose(model.predict_on_batch(frame), wanted, atol=1e-6)


def test_skip_dropout_takes_whole_channels_in_training_only():
    settings = ModelSettings(skip_dropout=0.5)
    keras.utils.set_random_seed(0)
    model = one((3, 4, 64), lambda tensor: skips.connection(tensor, None, settings, "skip"))
    frame = np.ones((1, 3, 4, 64), np.float32)
    np.testing.assert_array_equal(model(frame, training=False), frame)
    dropped = keras.ops.convert_to_numpy(model(frame, training=True))[0].reshape(12, 64)
    assert set(np.unique(dropped)) == {0, 2}
    np.testing.assert_array_equal(dropped.min(axis=0), dropped.max(axis=0))


def headed(read: Sequence[int] = (0, 1, 2), **options) -> keras.Model:
    """Heads on maps at 1/2 (4 x 8), 1/4 and 1/8 of a frame padded by (1, 2) rows and (0, 3) columns.

    ``read`` numbers the maps that these heads read: Keras before 3.15 refuses inputs that nothing reads.
    """
    maps = [keras.Input((4, 8, 2)), keras.Input((2, 4, 3)), keras.Input((1, 2, 5))]
    outputs = heads.outputs(
        maps[0], maps[2:], ModelSettings(**options), ((1, 2), (0, 3)), 2, deep=maps[1:], columns=maps[1:]
    )
    return keras.Model([maps[number] for number in read], outputs)


def maps_and_larger() -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Random maps for ``headed``, and all of them at the size of the first."""
    random = np.random.default_rng(0)
    maps = [
        random.normal(size=shape).astype(np.float32) for shape in [(1, 4, 8, 2), (1, 2, 4, 3), (1, 1, 2, 5)]
    ]
    larger = [
        np.asarray(keras.layers.UpSampling2D(factor, interpolation="bilinear")(array))
        for factor, array in zip((1, 2, 4), maps, strict=True)
    ]
    return maps, larger


def test_hypercolumns_equal_one_convolution_of_all_maps_enlarged_and_concatenated():
    model = headed(hypercolumns=True, presence=False)
    assert model.count_params() == (2 + 3 + 5) + 1
    maps, larger = maps_and_larger()
    kernels = [model.get_layer(name).get_weights()[0] for name in ("mask_logit", "column_1", "column_2")]
    kernel = np.concatenate([kernel.reshape(-1) for kernel in kernels])
    logit = (np.concatenate(larger, axis=-1) @ kernel)[..., None]
    full = np.asarray(keras.layers.UpSampling2D(2, interpolation="bilinear")(logit))
    found = model.predict_on_batch(maps)["mask"]
    assert found.shape == (1, 5, 13, 1)
    np.testing.assert_allclose(found, sigmoid(full[:, 1:-2, :-3]), atol=1e-5)


def test_coarser_masks_are_enlarged_and_cropped_like_the_mask():
    model = headed(deep_supervision=True)
    assert list(model.output) == ["mask", "mask_1", "mask_2", "presence"]
    assert model.count_params() == (2 + 1) + (3 + 1) + (5 + 1) + (5 + 1)
    maps, _ = maps_and_larger()
    found = model.predict_on_batch(maps)
    for name, array, factor in zip(("mask", "mask_1", "mask_2"), maps, (2, 4, 8), strict=True):
        kernel = model.get_layer(f"{name}_logit").get_weights()[0].reshape(-1)
        logit = (array @ kernel)[..., None]
        full = np.asarray(keras.layers.UpSampling2D(factor, interpolation="bilinear")(logit))
        np.testing.assert_allclose(found[name], sigmoid(full[:, 1:-2, :-3]), atol=1e-5)


def test_presence_reads_the_mean_of_the_bottleneck():
    model = headed(read=(0, 2))
    assert set(model.output) == {"mask", "presence"}
    maps, _ = maps_and_larger()
    kernel, bias = model.get_layer("presence").get_weights()
    wanted = sigmoid(maps[2].mean(axis=(1, 2)) @ kernel + bias)
    found = model.predict_on_batch([maps[0], maps[2]])["presence"]
    np.testing.assert_allclose(found, wanted, atol=1e-6)
