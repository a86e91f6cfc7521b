import keras
import numpy as np
import pytest

from kaggle_nerve.errors import NerveError
from kaggle_nerve.models import blocks, heads, registry, summary
from kaggle_nerve.prediction import forward
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


def test_a_window_takes_away_what_the_halvings_do_not_need():
    assert blocks.margins((80, 112), 32, 0.8) == ((-4, -12), (-8, -8))
    # 0.8 of 96 rows is 77, which 32 divides from 96 on; of 60 columns 48, to which 4 are added on the way to 64.
    assert blocks.margins((96, 60), 32, 0.8) == ((0, 0), (2, 2))


@pytest.mark.parametrize("architecture", ["unet", "unet++", "segnet"])
def test_a_network_sees_the_window_alone_and_finds_no_mask_outside(architecture):
    model = built(
        f"model.architecture={architecture}", "size=[40, 48]", "model.window=0.75", "model.dropout=0"
    )
    frames = np.random.default_rng(0).uniform(0, 255, (1, 40, 48, 1)).astype(np.float32)
    # 30 rows and 36 columns at least, in multiples of 4: 2 rows are left out above and 6 below, 6 columns on each side.
    inside = np.zeros((40, 48), bool)
    inside[2:34, 6:42] = True
    mask = np.asarray(model(frames)["mask"])[0, ..., 0]
    assert mask.shape == (40, 48)
    assert (mask[inside] > 0).all() and (mask[~inside] == 0).all()
    frames[0, ~inside] = frames[0, ~inside][::-1]  # the frame's mean and deviation stay
    np.testing.assert_allclose(np.asarray(model(frames)["mask"])[0, ..., 0], mask, atol=1e-5)


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


def convolved(before: int, after: int, kernel: int = 3) -> int:
    """Parameters of a convolution with bias."""
    return (kernel * kernel * before + 1) * after


def double(before: int, after: int) -> int:
    return convolved(before, after) + convolved(after, after)


def test_the_parameters_of_options_equal_a_count_by_hand():
    plain = built("model.batch_norm=false").count_params()  # width 4, depth 2: 4, 8 and 16 channels

    def more(*changes: str) -> int:
        return built("model.batch_norm=false", *changes).count_params() - plain

    assert more("model.down=stride") == convolved(4, 4) + convolved(8, 8)
    assert more("model.skip=residual") == convolved(4, 4, 1) + convolved(8, 8, 1)
    gates = (4 * 4 * 2 + convolved(8, 2, 1) + 3) + (4 * 8 * 4 + convolved(16, 4, 1) + 5)
    assert more("model.skip=attention") == gates
    shortcuts = sum(
        convolved(before, after, 1) for before, after in [(1, 4), (4, 8), (8, 16), (16, 8), (8, 4)]
    )
    assert more("model.block=residual") == shortcuts
    squeezes = {
        channels: convolved(channels, channels // 2, 1) + convolved(channels // 2, channels, 1) + channels + 1
        for channels in (4, 8, 16)
    }
    assert more("model.scse=true") == 2 * squeezes[4] + 2 * squeezes[8] + squeezes[16]
    assert more("model.hypercolumns=true") == 8
    assert more("model.deep_supervision=true") == 8 + 1
    assert more("model.activation=elu") == more("model.skip_dropout=0.5") == 0


def test_unet_plus_plus_parameters_equal_a_count_by_hand():
    model = built("model.architecture=unet++", "model.batch_norm=false")
    encoder = double(1, 4) + double(4, 8) + double(8, 16)
    first = convolved(8, 4, 1) + double(4 + 4, 4)
    below = convolved(16, 8, 1) + double(8 + 8, 8)
    last = convolved(8, 4, 1) + double(4 + 4 + 4, 4)
    assert model.count_params() == encoder + first + below + last + (4 + 1) + (16 + 1)


def test_segnet_parameters_equal_a_count_by_hand():
    changes = ("model.architecture=segnet", "model.depth=1", "model.batch_norm=false")
    shared = double(1, 4) + double(4, 8) + convolved(8, 4, 1) + (4 + 1) + (8 + 1)
    assert built(*changes).count_params() == shared + double(4, 4)
    gate = 4 * 4 * 2 + convolved(8, 2, 1) + 3
    assert built(*changes, "model.skip=attention").count_params() == shared + gate + double(4 + 4, 4)


def test_a_segnet_unpools_where_it_pooled():
    model = built("model.architecture=segnet", "model.depth=1")
    inside = keras.Model(
        model.input, [model.get_layer("down0b_relu").output, model.get_layer("unpool0").output]
    )
    frame = np.random.default_rng(0).uniform(0, 255, (1, 48, 64, 1)).astype(np.float32)
    features, unpooled = inside.predict_on_batch(frame)
    windows = features.reshape(1, 24, 2, 32, 2, 4)
    largest = (windows == windows.max(axis=(2, 4), keepdims=True)).reshape(features.shape)
    assert (unpooled > 0).any()
    assert not unpooled[~largest].any()


def test_a_segnet_refuses_what_leaves_no_positions():
    with pytest.raises(NerveError, match=r"model\.down"):
        built("model.architecture=segnet", "model.down=stride")
    with pytest.raises(NerveError, match=r"model\.encoder"):
        built("model.architecture=segnet", "model.encoder=resnet50")


@pytest.mark.parametrize(("depth", "count"), [(1, 0), (2, 1), (5, 3)])
@pytest.mark.parametrize("architecture", ["unet", "unet++", "segnet"])
def test_deep_supervision_has_a_mask_for_each_coarser_level_but_three_at_most(architecture, depth, count):
    model = built(
        f"model.architecture={architecture}",
        f"model.depth={depth}",
        "model.width=1",
        "model.deep_supervision=true",
    )
    masks = [f"mask_{number}" for number in range(1, count + 1)]
    assert set(model.output) == {"mask", "presence", *masks}
    assert all(model.output[name].shape == (None, 48, 64, 1) for name in masks)


def test_coarser_masks_of_unet_plus_plus_are_read_at_the_finest_resolution():
    model = built("model.architecture=unet++", "model.depth=3", "model.deep_supervision=true")
    for name, node in {"mask": "node0_3b", "mask_1": "node0_2b", "mask_2": "node0_1b"}.items():
        assert model.get_layer(f"{name}_logit").input is model.get_layer(f"{node}_relu").output


def test_layers_keep_the_names_that_stored_weights_go_by():
    def pair(name):
        return [f"{name}{part}_{kind}" for part in "ab" for kind in ("conv", "norm", "relu")]

    wanted = ["frames", "unit", "standardise", "pad", "stem", *pair("down0"), "pool0", *pair("bottom")]
    wanted += ["bottom_dropout", "narrow0_conv", "narrow0_norm", "narrow0_relu", "enlarge0", "join0"]
    wanted += [*pair("up0"), "mask_logit", "enlarge_mask", "crop", "mask", "presence_mean", "presence"]
    names = [layer.name for layer in built("model.depth=1", "model.stem=2").layers]
    assert sorted(names) == sorted(wanted)


def test_the_table_of_layers():
    model = built("model.depth=1", "model.architecture=segnet")
    rows = {row.name: row for row in summary.layer_table(model)}
    assert rows["down0b_conv"] == ("down0b_conv", "Conv2D", "48 x 64 x 4", 9 * 4 * 4)
    assert rows["pool0"] == ("pool0", "PoolWithPositions", "24 x 32 x 4, 24 x 32 x 4", 0)
    assert rows["presence"] == ("presence", "Dense", "1", 8 + 1)
    counts = summary.parameter_counts(model)
    assert sum(row.parameters for row in rows.values()) == sum(counts) == model.count_params()
    # A mean and a variance for each channel that is normalised.
    assert counts.fixed == 2 * (4 + 4 + 8 + 8 + 4 + 4 + 4)


def test_a_network_within_a_network_is_one_row():
    frame = keras.Input((4, 6, 1))
    inner = keras.Model(frame, keras.layers.Conv2D(3, 1)(frame), name="encoder")
    outer = keras.Input((4, 6, 1))
    table = summary.layer_table(keras.Model(outer, inner(outer)))
    assert table[1:] == [("encoder", "Functional", "4 x 6 x 3", 6)]


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
    ((masks, presence, *_),) = forward.probabilities(model, frames, batch=4, tta="none")
    np.testing.assert_allclose(presence, masks.max(axis=(1, 2)))


def test_the_presence_head_by_attention_is_a_mean_and_weighted_means():
    rng = np.random.default_rng(0)
    shapes = [(3, 4, 5), (6, 8, 2)]
    features = [rng.normal(size=(2, *shape)).astype(np.float32) for shape in shapes]
    bottleneck, coarse = (keras.Input(shape) for shape in shapes)
    head = keras.Model([bottleneck, coarse], heads.presence_head([bottleneck, coarse], "attention"))
    weights = {layer.name: layer.get_weights() for layer in head.layers}
    means = [features[0].mean(axis=(1, 2))]
    for level, values in enumerate(features):
        flat = values.reshape(2, -1, values.shape[-1])
        scores = flat @ weights[f"presence_attended{level}_scores"][0]
        share = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        means.append((share * flat).sum(axis=1))
    logit = np.concatenate(means, axis=1) @ weights["presence"][0] + weights["presence"][1]
    np.testing.assert_allclose(head(features), 1 / (1 + np.exp(-logit)), rtol=1e-5)


def test_attention_reads_the_two_deepest_features_and_the_two_coarsest_of_the_decoder():
    # Depth 4 from width 4: 64 and 32 deepest channels, then 32 and 16 in the decoder; finer ones are not read.
    # A source adds its channels' weights to the head, and a score for each channel with a constant.
    attention = built("model.depth=4", "model.widest=64", "model.presence_pool=attention")
    plain = built("model.depth=4", "model.widest=64")
    assert attention.count_params() - plain.count_params() == 2 * (64 + 32 + 32 + 16) + 4


def test_forward_passes_give_the_rows_in_order_whatever_the_batch():
    model = built()
    frames = np.random.default_rng(0).integers(0, 256, (7, 48, 64), np.uint8)

    def joined(batch):
        parts = list(forward.probabilities(model, frames, batch=batch, tta="none"))
        return np.concatenate([m for m, *_ in parts]), np.concatenate([p for _, p, *_ in parts])

    masks, presence = joined(3)
    whole, whole_presence = joined(7)
    assert masks.shape == (7, 48, 64)
    np.testing.assert_allclose(masks, whole, atol=1e-5)
    np.testing.assert_allclose(presence, whole_presence, atol=1e-5)


def test_flip_augmentation_is_the_mean_of_both_views():
    model = built()
    frames = np.random.default_rng(0).integers(0, 256, (2, 48, 64), np.uint8)
    ((plain, presence, *_),) = forward.probabilities(model, frames, batch=2, tta="none")
    ((mirrored, presence_mirrored, *_),) = forward.probabilities(
        model, frames[:, :, ::-1], batch=2, tta="none"
    )
    ((both, presence_both, *_),) = forward.probabilities(model, frames, batch=2, tta="hflip")
    np.testing.assert_allclose(both, (plain + mirrored[:, :, ::-1]) / 2, atol=1e-6)
    np.testing.assert_allclose(presence_both, (presence + presence_mirrored) / 2, atol=1e-6)


def test_a_saved_model_loads_without_custom_objects_and_predicts_the_same(tmp_path):
    model = built("size=[45, 62]", "model.stem=2")
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    frame = np.random.default_rng(0).uniform(0, 255, (1, 45, 62, 1)).astype(np.float32)
    np.testing.assert_array_equal(again(frame)["mask"], model(frame)["mask"])
