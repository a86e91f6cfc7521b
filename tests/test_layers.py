"""Pooling that remembers where, and its inverse, by hand."""

import subprocess
import sys

import battery
import keras
import numpy as np
import pytest

from kaggle_nerve.models.layers import PoolWithPositions, Unpool

# Two rows of three windows: the largest in each corner, a tie of two, and a window of equal values.
FRAME = np.array(
    [
        [9, 1, 0, 8, 2, 2],
        [3, 4, 5, 6, 7, 1],
        [-4, -3, 5, 5, 6, 6],
        [-2, -1, 1, 0, 6, 6],
    ],
    np.float32,
)
VALUES = [[9, 8, 7], [-1, 5, 6]]
POSITIONS = [[0, 1, 2], [3, 0, 0]]
BACK = [
    [9, 0, 0, 8, 0, 0],
    [0, 0, 0, 0, 7, 0],
    [0, 0, 5, 0, 6, 0],
    [0, -1, 0, 0, 0, 0],
]


def as_numpy(tensor) -> np.ndarray:
    return keras.ops.convert_to_numpy(tensor)


def test_pooling_by_hand():
    values, positions = PoolWithPositions()(FRAME[None, ..., None])
    np.testing.assert_array_equal(as_numpy(values)[0, ..., 0], VALUES)
    np.testing.assert_array_equal(as_numpy(positions)[0, ..., 0], POSITIONS)
    np.testing.assert_array_equal(
        values, keras.layers.MaxPooling2D()(keras.ops.convert_to_tensor(FRAME[None, ..., None]))
    )


def test_unpooling_by_hand():
    values, positions = np.array(VALUES, np.float32), np.array(POSITIONS, np.uint8)
    back = Unpool()(values[None, ..., None], positions[None, ..., None])
    np.testing.assert_array_equal(as_numpy(back)[0, ..., 0], BACK)


def test_frames_and_channels_do_not_mix():
    tensor = np.random.default_rng(0).normal(size=(3, 4, 10, 5)).astype(np.float32)
    back = as_numpy(Unpool()(*PoolWithPositions()(tensor)))
    # (frame, row of windows, row within, column of windows, column within, channel): what is kept stays put.
    windows = tensor.reshape(3, 2, 2, 5, 2, 5)
    kept = np.where(windows == windows.max(axis=(2, 4), keepdims=True), windows, 0)
    np.testing.assert_array_equal(back, kept.reshape(tensor.shape))


class Picture(keras.layers.Layer):
    """A frame as weights, so that a step of training shows its gradient."""

    def build(self, shape):
        self.picture = self.add_weight(shape=(1, *shape[1:]), name="picture")

    def call(self, tensor):
        return 0 * tensor + self.picture


@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("unpooled", [False, True])
def test_the_gradient_reaches_the_pixel_that_was_taken_and_no_other(jit, unpooled):
    frame = keras.Input((4, 6, 1))
    layer = Picture()
    values, positions = PoolWithPositions()(layer(frame))
    model = keras.Model(frame, Unpool()(values, positions) if unpooled else values)
    layer.set_weights([FRAME[None, ..., None]])
    model.compile(keras.optimizers.SGD(1.0), loss=lambda true, guess: keras.ops.sum(guess), jit_compile=jit)
    model.train_on_batch(np.zeros((1, 4, 6, 1), np.float32), np.zeros((1, *model.output_shape[1:])))
    change = FRAME - layer.get_weights()[0][0, ..., 0]
    np.testing.assert_array_equal(change, np.array(BACK) != 0)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a_segnet_of_half_precision_gives_float32(policy):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = battery.build("model.architecture=segnet", "model.skip=attention", "model.scse=true")
    finally:
        keras.config.set_dtype_policy(before)
    assert model.get_layer("unpool0").output.dtype == policy.removeprefix("mixed_")
    battery.check_builds(model)


LOAD = """
import sys, keras
from kaggle_nerve.prediction import ensemble
print(keras.saving.load_model(sys.argv[1], compile=False).name)
"""


@pytest.mark.one_backend
def test_another_process_loads_a_segnet_without_building_one(tmp_path):
    battery.build("model.architecture=segnet").save(tmp_path / "model.keras")
    words = [sys.executable, "-c", LOAD, str(tmp_path / "model.keras")]
    told = subprocess.run(words, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "segnet"
