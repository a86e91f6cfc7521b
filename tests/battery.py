"""What every network has to pass, on every backend; a model's own test is a line of settings."""

import keras
import numpy as np

from kaggle_nerve.models import registry
from kaggle_nerve.models.statistics import recompute
from kaggle_nerve.settings import Settings, apply_changes
from kaggle_nerve.training.losses import MaskLoss

SIZE = (45, 62)
SMALL = (f"size={list(SIZE)}", "model.width=8", "model.depth=2", "model.dropout=0")


def build(*changes: str) -> keras.Model:
    """A small network with ``changes``, the same weights each time."""
    keras.utils.set_random_seed(1)
    return registry.build(apply_changes(Settings(), (*SMALL, *changes)))


def frames_and_masks(size: tuple[int, int] = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """8 frames of noise (float32, 0 to 255); a brighter ellipse in 6 of them is the mask, 2 are empty."""
    random = np.random.default_rng(0)
    frames = random.uniform(0, 90, (8, *size, 1)).astype(np.float32)
    masks = np.zeros_like(frames)
    rows, columns = np.ogrid[: size[0], : size[1]]
    for place in range(6):
        row, column = random.uniform(0.35, 0.65, 2) * size
        inside = ((rows - row) / (size[0] / 4)) ** 2 + ((columns - column) / (size[1] / 5)) ** 2 <= 1
        masks[place, inside, 0] = 1
    return frames + 130 * masks, masks


def check_builds(model: keras.Model, size: tuple[int, int] = SIZE, presence: bool = True) -> None:
    """Frames of an odd, non-square size come back as probabilities of that size."""
    frames, _ = frames_and_masks(size)
    outputs = model.predict_on_batch(frames)
    for name, values in outputs.items():
        assert values.shape == ((8, 1) if name == "presence" else (8, *size, 1)), name
        assert values.dtype == np.float32
        assert np.isfinite(values).all()
        assert values.min() >= 0
        assert values.max() <= 1
    assert ("presence" in outputs) is presence


def check_learns(model: keras.Model, *, steps: int = 20, rate: float = 5e-3, jit: bool = True) -> None:
    """The loss falls, and every weight moves: none is left out of the gradient."""
    losses = _train(model, steps, rate, jit)
    assert np.mean(losses[-3:]) < 0.9 * losses[0], losses


def check_overfits(model: keras.Model, *, steps: int = 200, rate: float = 5e-3, jit: bool = True) -> None:
    """8 frames are learned by heart: mean Dice over 0.95 with the masks of a forward pass as in prediction.

    The last false pixel of an empty frame, which costs 0.125, goes after 80 to 150 steps.
    """
    frames, masks = frames_and_masks(model.input_shape[1:3])
    _train(model, steps, rate, jit)
    recompute(model, [frames])
    guess = model.predict_on_batch(frames)["mask"] >= 0.5
    both, either = (guess * masks).sum((1, 2, 3)), guess.sum((1, 2, 3)) + masks.sum((1, 2, 3))
    dice = np.where(either == 0, 1.0, 2 * both / np.maximum(either, 1))
    assert dice.mean() > 0.95, dice.round(3)


def _train(model: keras.Model, steps: int, rate: float, jit: bool) -> list[float]:
    """Train on the 8 frames, which moves every weight; returns the loss of each step."""
    before = [keras.ops.convert_to_numpy(weight).copy() for weight in model.trainable_weights]
    frames, masks = frames_and_masks(model.input_shape[1:3])
    targets = {
        name: masks.any(axis=(1, 2)).astype(np.float32) if name == "presence" else masks
        for name in model.output
    }
    loss = {name: "binary_crossentropy" if name == "presence" else MaskLoss(smooth=1.0) for name in targets}
    model.compile(keras.optimizers.Adam(rate, global_clipnorm=1.0), loss=loss, jit_compile=jit)
    # As in training: with all variables there, TensorFlow traces the step once.
    model.optimizer.build(model.trainable_variables)
    model.compute_loss(y=targets, y_pred=targets)
    losses = []
    for _ in range(steps):
        model.reset_metrics()
        losses.append(float(model.train_on_batch(frames, targets, return_dict=True)["loss"]))
    still = [
        weight.path
        for weight, values in zip(model.trainable_weights, before, strict=True)
        if np.array_equal(keras.ops.convert_to_numpy(weight), values)
    ]
    assert not still
    return losses


def check_saves(model: keras.Model, folder) -> None:
    """A saved model loads without custom_objects and predicts the same, bit for bit."""
    frames, _ = frames_and_masks(model.input_shape[1:3])
    before = model.predict_on_batch(frames)
    model.save(folder / "model.keras")
    again = keras.saving.load_model(folder / "model.keras", compile=False)
    again.jit_compile = model.jit_compile  # compiled or not, the last digits differ
    after = again.predict_on_batch(frames)
    assert after.keys() == before.keys()
    for name, values in before.items():
        np.testing.assert_array_equal(after[name], values)
