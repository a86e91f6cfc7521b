"""Pretrained encoders, their weights, and the architectures that read them."""

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor

import battery
import h5py
import keras
import numpy as np
import pytest

from kaggle_nerve.errors import NerveError
from kaggle_nerve.models import deeplab, encoders, fpn, weights
from kaggle_nerve.settings import ModelSettings, Settings, apply_changes
from kaggle_nerve.settings.schema import ENCODERS

CHEAP = "efficientnetv2-b0"
LARGER = (
    "efficientnetv2-b1",
    "efficientnetv2-b2",
    "efficientnetv2-b3",
    "efficientnetv2-s",
    "efficientnet-lite1",
    "efficientnet-lite2",
)
COMPILED = keras.backend.backend() == "jax"

# Without the classifier, as documented at keras.io; of efficientnet-b1's 6,575,239 seven belong to its own
# preprocessing (three means, three variances, a count), which is left out.
PARAMETERS = {
    "efficientnetv2-b0": 5_919_312,
    "efficientnetv2-b1": 6_931_124,
    "efficientnetv2-b2": 8_769_374,
    "efficientnetv2-b3": 12_930_622,
    "efficientnetv2-s": 20_331_360,
    "efficientnet-b1": 6_575_239 - 7,
    "resnet50": 23_587_712,
    "convnext-tiny": 27_820_128,
    "efficientnet-lite0": 3_413_024,
    "efficientnet-lite1": 4_189_344,
    "efficientnet-lite2": 4_869_168,
}

CHANNELS = {
    "efficientnetv2-b0": [16, 32, 48, 112, 1280],
    "efficientnetv2-b1": [16, 32, 48, 112, 1280],
    "efficientnetv2-b2": [16, 32, 56, 120, 1408],
    "efficientnetv2-b3": [16, 40, 56, 136, 1536],
    "efficientnetv2-s": [24, 48, 64, 160, 1280],
    "efficientnet-b1": [16, 24, 40, 112, 1280],
    "resnet50": [64, 256, 512, 1024, 2048],
    "convnext-tiny": [8, 96, 192, 384, 768],  # the first is ours, of the width
    "efficientnet-lite0": [16, 24, 40, 112, 1280],
    "efficientnet-lite1": [16, 24, 40, 112, 1280],
    "efficientnet-lite2": [16, 24, 48, 120, 1280],
}


def model_settings(*changes: str) -> ModelSettings:
    return apply_changes(Settings(), tuple(f"model.{change}" for change in changes)).model


def seen(*changes: str, size: tuple[int, int] = (45, 62)) -> keras.Model:
    """From frames to what the encoder is given."""
    frames = keras.Input((*size, 1))
    return keras.Model(frames, encoders.preprocess(frames, model_settings(*changes), ((9, 10), (1, 1))))


def write_published(application: keras.Model, path) -> None:
    """A file as keras.applications publishes them: a group for each layer, its arrays in order, nothing else."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [layer.name.encode() for layer in application.layers]
        for layer in application.layers:
            group = file.create_group(layer.name)
            arrays = [*layer.trainable_weights, *layer.non_trainable_weights]
            names = [f"{layer.name}/{number}:0" for number in range(len(arrays))]
            group.attrs["weight_names"] = [name.encode() for name in names]
            for name, array in zip(names, arrays, strict=True):
                group[name] = np.array(array)


def randomised(name: str, seed: int = 0) -> keras.Model:
    """An application in which no two weights are alike, its normalisations' included."""
    encoder = encoders.ENCODERS[name]
    return with_random_weights(encoder.application(input_shape=(32, 64, 3), **encoder.options), seed)


def in_its_place(seed: int = 0) -> keras.Model:
    """A network for tests of where files are looked for, which are the same for every network."""
    layers = [keras.Input((32, 64, 3)), keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization()]
    return with_random_weights(keras.Sequential(layers), seed)


def with_random_weights(model: keras.Model, seed: int) -> keras.Model:
    random = np.random.default_rng(seed)
    for variable in model.weights:
        variable.assign(random.uniform(0.5, 1.5, variable.shape).astype(variable.dtype))
    return model


def network(*changes: str) -> keras.Model:
    """As ``battery.build``; XLA takes half a minute to compile an encoder, so TensorFlow does without it."""
    model = battery.build(*changes)
    model.jit_compile = COMPILED
    return model


def builds(name):
    """The others of EfficientNetV2 and of EfficientNet-Lite are made of the same blocks as the first."""
    return [pytest.mark.large if name in LARGER else pytest.mark.long]


@pytest.mark.parametrize("name", [pytest.param(name, marks=builds(name)) for name in ENCODERS])
def test_every_encoder_builds_at_any_size_and_saves(name, tmp_path):
    model = network(f"model.encoder={name}")
    battery.check_builds(model)
    battery.check_saves(model, tmp_path)


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        pytest.param("unet", CHEAP, marks=pytest.mark.long),
        *(pytest.param("unet", name, marks=pytest.mark.large) for name in ENCODERS if name != CHEAP),
        *(pytest.param(name, CHEAP, marks=pytest.mark.large) for name in ("unet++", "fpn", "deeplabv3+")),
    ],
)
def test_encoders_learn_by_heart(architecture, name):
    model = network(f"model.architecture={architecture}", f"model.encoder={name}")
    # The last to go are single false pixels in the empty frames: some encoders need 140 steps for them.
    battery.check_overfits(model, steps=80 if name == CHEAP else 160, rate=2e-3, jit=COMPILED)


@pytest.mark.one_backend
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long if name in LARGER else []) for name in ENCODERS]
)
def test_maps_are_at_strides_2_to_32_and_end_in_the_applications_own_output(name):
    frames = keras.Input((45, 62, 1))
    maps, margins = encoders.features(frames, model_settings(f"encoder={name}", "width=8"), (45, 62))
    assert margins == ((9, 10), (1, 1))
    assert [tuple(found.shape[1:3]) for found in maps] == [(32, 32), (16, 16), (8, 8), (4, 4), (2, 2)]
    assert [found.shape[-1] for found in maps] == CHANNELS[name]
    assert keras.Model(frames, maps).get_layer("encoder").count_params() == PARAMETERS[name]


def test_the_encoder_computes_what_the_application_computes():
    keras.utils.set_random_seed(0)
    application = keras.applications.EfficientNetV2B0(
        include_top=False, weights=None, input_shape=(64, 96, 3)
    )
    frames = keras.Input((64, 96, 1))
    maps, _ = encoders.features(frames, model_settings(f"encoder={CHEAP}", "normalise=unit"), (64, 96))
    model = keras.Model(frames, maps[-1])
    model.get_layer("encoder").set_weights(application.get_weights())
    grey = np.random.default_rng(0).uniform(0, 255, (2, 64, 96, 1)).astype(np.float32)
    wanted = application.predict_on_batch(np.repeat(grey, 3, axis=-1))
    assert wanted.std() > 0
    np.testing.assert_allclose(model.predict_on_batch(grey), wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("efficientnet-b1", [(0.4 - 0.485) / 0.229, (0.4 - 0.456) / 0.224, (0.4 - 0.406) / 0.225]),
        ("convnext-tiny", [(0.4 - 0.485) / 0.229, (0.4 - 0.456) / 0.224, (0.4 - 0.406) / 0.225]),
        ("efficientnetv2-s", [102 / 128 - 1] * 3),
        ("resnet50", [102 - 103.939, 102 - 116.779, 102 - 123.68]),
    ],
)
def test_grey_reaches_the_encoder_as_a_colour_would(name, wanted):
    colours = seen(f"encoder={name}", "normalise=unit").predict_on_batch(np.full((1, 45, 62, 1), 102.0))
    assert colours.shape == (1, 64, 64, 3)
    np.testing.assert_allclose(colours[0, 9:54, 1:63], np.broadcast_to(wanted, (45, 62, 3)), atol=1e-4)
    assert not colours[0, :9].any()
    assert not colours[0, 54:].any()
    assert not colours[0, :, [0, 63]].any()


@pytest.mark.parametrize(
    ("name", "means", "deviations"),
    [
        ("efficientnetv2-b0", [0, 0, 0], [1, 1, 1]),
        ("resnet50", [0, 0, 0], [255 * 0.225, 255 * 0.224, 255 * 0.229]),
        (
            "efficientnetv2-s",
            [255 / 128 * mean - 1 for mean in (0.485, 0.456, 0.406)],
            [255 / 128 * deviation for deviation in (0.229, 0.224, 0.225)],
        ),
    ],
)
def test_standardised_frames_have_the_mean_and_deviation_of_imagenet(name, means, deviations):
    frames = np.random.default_rng(0).uniform(20, 90, (2, 45, 62, 1)).astype(np.float32)
    colours = seen(f"encoder={name}", "normalise=image").predict_on_batch(frames)[:, 9:54, 1:63]
    for frame in colours:
        np.testing.assert_allclose(frame.mean((0, 1)), means, atol=1e-3)
        np.testing.assert_allclose(frame.std((0, 1)), deviations, rtol=2e-3)


@pytest.mark.one_backend
@pytest.mark.parametrize(
    "name",
    [
        CHEAP,
        *(
            pytest.param(name, marks=pytest.mark.long)
            for name in ("efficientnet-b1", "resnet50", "convnext-tiny")
        ),
    ],
)
def test_a_published_file_gives_every_weight(name, tmp_path):
    published = randomised(name)
    path = tmp_path / encoders.ENCODERS[name].file.name
    write_published(published, path)
    application = randomised(name, seed=1)
    weights.load(application, name, encoders.ENCODERS[name].file, str(path))
    for mine, theirs in zip(application.get_weights(), published.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.one_backend
def test_settings_name_the_file_and_the_saved_model_needs_it_no_more(tmp_path):
    path = tmp_path / "mine.weights.h5"
    published = randomised(CHEAP)
    published.save_weights(path)
    model = battery.build(f"model.encoder={CHEAP}", f"model.weights={path}")
    model.save(tmp_path / "model.keras")
    path.unlink()
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    for found in (model, again):
        mine = found.get_layer("encoder").get_weights()
        for one, other in zip(mine, published.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)


def test_imagenet_is_looked_for_in_the_named_folder_and_then_in_attached_data(tmp_path, monkeypatch):
    name = encoders.ENCODERS[CHEAP].file.name
    own, attached = tmp_path / "own", tmp_path / "input"
    for seed, place in ((1, own / name), (2, attached / "some-dataset" / "keras" / name)):
        place.parent.mkdir(parents=True)
        write_published(in_its_place(seed), place)
    application = in_its_place()
    weights.load(application, CHEAP, encoders.ENCODERS[CHEAP].file, "imagenet", attached)
    np.testing.assert_array_equal(application.get_weights()[0], in_its_place(2).get_weights()[0])
    monkeypatch.setenv(weights.FOLDER_VARIABLE, str(own))
    weights.load(application, CHEAP, encoders.ENCODERS[CHEAP].file, "imagenet", attached)
    np.testing.assert_array_equal(application.get_weights()[0], in_its_place(1).get_weights()[0])


def test_keras_own_cache_is_read(tmp_path, monkeypatch):
    path = tmp_path / "models" / encoders.ENCODERS[CHEAP].file.name
    path.parent.mkdir()
    published = in_its_place(seed=3)
    write_published(published, path)
    digest = hashlib.md5(path.read_bytes()).hexdigest()
    file = weights.KerasFile("https://localhost", path.name, digest)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delenv(weights.FOLDER_VARIABLE, raising=False)
    application = in_its_place()
    weights.load(application, CHEAP, file, "imagenet", tmp_path / "none")
    np.testing.assert_array_equal(application.get_weights()[0], published.get_weights()[0])


def test_folds_side_by_side_take_turns_at_the_download(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.delenv(weights.FOLDER_VARIABLE, raising=False)
    inside, most, path = [], [], tmp_path / "file.h5"

    def download(name, *_, **__):
        inside.append(name)
        most.append(len(inside))
        time.sleep(0.1)
        inside.remove(name)
        return path

    monkeypatch.setattr(keras.utils, "get_file", download)
    with ThreadPoolExecutor(3) as pool:
        asked = [
            pool.submit(encoders.ENCODERS[CHEAP].file.locate, CHEAP, tmp_path / "none") for _ in range(3)
        ]
        assert [one.result() for one in asked] == [path] * 3
    assert most == [1, 1, 1]


def test_without_the_file_one_sentence_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    monkeypatch.setenv(weights.FOLDER_VARIABLE, str(tmp_path / "own"))
    with pytest.raises(NerveError) as caught:
        weights.load(in_its_place(), CHEAP, encoders.ENCODERS[CHEAP].file, "imagenet", tmp_path / "input")
    told = str(caught.value)
    for part in ("efficientnetv2-b0_notop.h5", "own", "input", "keras/models", "model.weights=FILE"):
        assert part in told
    assert "\n" not in told


def test_a_file_that_is_not_there_or_does_not_fit_is_named(tmp_path):
    with pytest.raises(NerveError, match=r'model\.weights = "nowhere\.h5" is not a file'):
        weights.load(in_its_place(), CHEAP, encoders.ENCODERS[CHEAP].file, "nowhere.h5")
    other = tmp_path / "other.h5"
    write_published(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]), other)
    with pytest.raises(NerveError, match=r"other\.h5 does not hold weights of efficientnetv2-b0"):
        weights.load(in_its_place(), CHEAP, encoders.ENCODERS[CHEAP].file, str(other))
    broken = tmp_path / "broken.h5"
    broken.write_bytes(b"not h5")
    with pytest.raises(NerveError, match=r"broken\.h5 does not hold weights"):
        weights.load(in_its_place(), CHEAP, encoders.ENCODERS[CHEAP].file, str(broken))


@pytest.fixture
def small_encoder(monkeypatch):
    """In the place of an application: five convolutions, each halving what it sees."""

    def build(name, shape, where):
        tensor = frames = keras.Input(shape)
        maps = []
        for _ in range(5):
            tensor = keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu")(tensor)
            maps.append(tensor)
        return keras.Model(frames, maps, name="encoder")

    monkeypatch.setattr(encoders, "build", build)


@pytest.mark.parametrize(
    "changes",
    [
        ("model.architecture=fpn",),
        pytest.param(("model.architecture=fpn", "model.hypercolumns=true"), marks=pytest.mark.long),
        pytest.param(
            ("model.architecture=fpn", "model.presence=false", "model.batch_norm=false"),
            marks=pytest.mark.long,
        ),
        pytest.param(("model.architecture=deeplabv3+",), marks=pytest.mark.one_backend),
        pytest.param(
            ("model.architecture=deeplabv3+", "model.presence=false", "model.batch_norm=false"),
            marks=pytest.mark.one_backend,
        ),
    ],
    ids=str,
)
def test_decoders_build_save_and_learn(changes, small_encoder, tmp_path):
    model = network("model.encoder=resnet50", *changes)
    battery.check_builds(model, presence="model.presence=false" not in changes)
    battery.check_saves(model, tmp_path)
    battery.check_learns(model, jit=COMPILED)


@pytest.mark.long
@pytest.mark.parametrize(
    "changes", [("model.architecture=fpn",), ("model.architecture=deeplabv3+",)], ids=str
)
def test_decoders_learn_by_heart(changes, small_encoder):
    battery.check_overfits(network("model.encoder=resnet50", *changes), jit=COMPILED)


@pytest.mark.one_backend
@pytest.mark.parametrize(
    "architecture",
    ["unet++", *(pytest.param(name, marks=pytest.mark.long) for name in ("fpn", "deeplabv3+"))],
)
def test_every_architecture_stands_on_a_real_encoder(architecture):
    battery.check_builds(network(f"model.architecture={architecture}", f"model.encoder={CHEAP}"))


@pytest.mark.one_backend
def test_every_level_of_a_deeply_supervised_pyramid_learns(small_encoder):
    model = network("model.encoder=resnet50", "model.architecture=fpn", "model.deep_supervision=true")
    assert list(model.output) == ["mask", "mask_1", "mask_2", "mask_3", "presence"]
    battery.check_learns(model, steps=60, jit=COMPILED)
    frames, masks = battery.frames_and_masks()
    outputs = model.predict_on_batch(frames)
    for name in ("mask_1", "mask_2"):  # strides 8 and 16, still finer than the ellipses
        guess = outputs[name] >= 0.5
        assert 2 * (guess * masks).sum() / (guess.sum() + masks.sum()) > 0.5, name


def test_the_pyramid_adds_the_coarser_levels_to_the_finer():
    # One channel, laterals that pass on what they get and convolutions of the centre alone.
    fine, coarse = keras.Input((2, 4, 1)), keras.Input((1, 2, 1))
    levels = fpn.pyramid([fine, coarse], model_settings("width=1", "widest=1", "batch_norm=false"))
    model = keras.Model([fine, coarse], levels)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            kernel = np.zeros(layer.kernel.shape, np.float32)
            kernel[kernel.shape[0] // 2, kernel.shape[1] // 2] = 1
            layer.set_weights([kernel, np.zeros(1)])
    first = np.arange(8, dtype=np.float32).reshape(1, 2, 4, 1)
    second = np.array([10, 20], np.float32).reshape(1, 1, 2, 1)
    finest, coarsest = model.predict_on_batch([first, second])
    np.testing.assert_array_equal(finest[0, ..., 0], [[10, 11, 22, 23], [14, 15, 26, 27]])
    np.testing.assert_array_equal(coarsest, second)


@pytest.mark.one_backend
def test_the_pyramids_parameters_equal_a_count_by_hand():
    # Width 4, no batch norm, maps of 3, 5 and 7 channels: a pyramid of 16, a head of 8.
    maps = [keras.Input((8, 12, 3)), keras.Input((4, 6, 5)), keras.Input((2, 3, 7))]
    settings = model_settings("width=4", "batch_norm=false")
    model = keras.Model(maps, fpn.merge(fpn.pyramid(maps, settings), settings))
    assert model.output.shape == (None, 8, 12, 8)
    laterals = (3 + 1) * 16 + (5 + 1) * 16 + (7 + 1) * 16
    smooth = 3 * (9 * 16 + 1) * 16
    first, second = (9 * 16 + 1) * 8, (9 * 8 + 1) * 8
    assert model.count_params() == laterals + smooth + 3 * first + second


@pytest.mark.one_backend
def test_the_atrous_pyramids_parameters_equal_a_count_by_hand():
    tensor = keras.Input((4, 6, 3))
    model = keras.Model(tensor, deeplab.pyramid_pooling(tensor, 5, model_settings("batch_norm=false")))
    assert model.output.shape == (None, 4, 6, 5)
    point = (3 + 1) * 5
    atrous = (9 + 1) * 3 + (3 + 1) * 5
    assert model.count_params() == point + 3 * atrous + point + (5 * 5 + 1) * 5


def test_atrous_rates_are_shares_of_the_map():
    assert deeplab.rates((33, 40)) == (6, 12, 18)
    assert deeplab.rates((36, 28)) == (5, 10, 15)
    assert deeplab.rates((3, 4)) == (1, 1, 2)


def test_an_atrous_convolution_looks_as_far_as_its_rate():
    tensor = keras.Input((9, 11, 1))
    settings = model_settings("batch_norm=false", "activation=relu")
    model = keras.Model(tensor, deeplab.separable_convolution(tensor, 1, settings, "atrous", rate=3))
    for layer in model.layers:
        if layer.weights:
            layer.set_weights([np.ones_like(layer.get_weights()[0]), np.zeros(1)])
    frame = np.zeros((1, 9, 11, 1), np.float32)
    frame[0, 4, 5] = 1
    wanted = np.zeros((9, 11))
    wanted[np.ix_([1, 4, 7], [2, 5, 8])] = 1
    np.testing.assert_array_equal(model.predict_on_batch(frame)[0, ..., 0], wanted)


@pytest.mark.one_backend
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (("architecture=fpn", "skip=attention"), '"attention" does nothing with model.architecture = "fpn"'),
        (("architecture=deeplabv3+", "deep_supervision=true"), "model.deep_supervision = true does nothing"),
        (("architecture=deeplabv3+", "scse=true"), 'with model.architecture = "deeplabv3+"; set it to false.'),
        (("stem=2",), 'model.stem = 2 does nothing with model.encoder = "efficientnetv2-b0"; set it to 1.'),
        (("architecture=unet++", "down=stride"), 'set it to "pool".'),
    ],
)  # fmt: skip
def test_options_without_a_use_are_refused(changes, told):
    with pytest.raises(NerveError) as caught:
        battery.build(f"model.encoder={CHEAP}", *(f"model.{change}" for change in changes))
    assert told in str(caught.value)
