"""Training and prediction on an accelerator, computed here on the processor: the same as the host's, and repeatable."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from processes import kill_when
from support import disc, write_competition
from training_support import Told, history, many_epochs, settings

from kaggle_nerve import devices
from kaggle_nerve.data.augment import augment, draw
from kaggle_nerve.data.batches import Batches
from kaggle_nerve.data.device_augment import augment_batch, stack
from kaggle_nerve.data.doubted import Marks
from kaggle_nerve.prediction import forward
from kaggle_nerve.settings import AugmentationSettings, load_preset
from kaggle_nerve.training import device_steps
from kaggle_nerve.training.device_steps import DeviceSteps, steps_for
from kaggle_nerve.training.optimisers import build_compiled
from kaggle_nerve.training.run_folds import train_folds
from kaggle_nerve.training.steps import HostSteps

SIZE = (30, 46)
STILL = AugmentationSettings(
    hflip=0, vflip=0, rotate=0, shift=0, scale=1, contrast=0, brightness=0, gamma=1, noise=0
)
EVERYTHING = dataclasses.replace(load_preset("default").augmentation, vflip=0.5, noise=0.0)


def pictures(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Noisy frames with a bright nerve, and their masks; every other one has none."""
    random = np.random.default_rng(0)
    frames = random.integers(0, 120, (count, *SIZE), np.uint8)
    masks = np.zeros_like(frames)
    masks[::2] = 255 * disc((14, 25), 7, SIZE)
    frames[::2] += masks[::2] // 3
    return frames, masks


def on_device(frames, masks, ranges, seeds, normal=None):
    draws = [draw(SIZE, np.random.default_rng(seed), ranges) for seed in seeds]
    stacked = stack(draws, sharpen=ranges.sharpness > 0, noise=ranges.noise > 0)
    tensors = [keras.ops.convert_to_tensor(values) for values in (frames, masks)]
    draws = {name: keras.ops.convert_to_tensor(values) for name, values in stacked.items()}
    return [keras.ops.convert_to_numpy(values) for values in augment_batch(*tensors, draws, normal)]


def on_host(frames, masks, ranges, seeds):
    pairs = [
        augment(frame, mask, np.random.default_rng(seed), ranges)
        for frame, mask, seed in zip(frames, masks, seeds, strict=True)
    ]
    return [np.stack(values).astype(float) for values in zip(*pairs, strict=True)]


@pytest.mark.parametrize(
    "ranges",
    [
        STILL,
        dataclasses.replace(STILL, hflip=1.0, vflip=1.0),
        dataclasses.replace(STILL, rotate=40.0, shift=0.3, scale=1.5),
        dataclasses.replace(STILL, elastic=0.1),
        dataclasses.replace(STILL, gamma=2.0, contrast=0.5, brightness=0.3),
        dataclasses.replace(STILL, gain=0.5),
        dataclasses.replace(STILL, sharpness=1.0),
        EVERYTHING,
    ],
    ids=["still", "flips", "affine", "elastic", "grey", "gain", "sharpness", "everything"],
)
def test_the_device_augments_as_the_host_does(ranges):
    frames, masks = pictures(12)
    seeds = [(3, number) for number in range(12)]
    mine, theirs = on_device(frames, masks, ranges, seeds), on_host(frames, masks, ranges, seeds)
    # The same draws, so the same frames: only the last digit of an interpolation may round to the other side.
    for one, other in zip(mine, theirs, strict=True):
        assert np.abs(one - other).max() <= 2
        assert (one != other).mean() < 0.03
    assert not mine[1][1::2].any()  # an empty mask stays empty
    assert all(mask.any() for mask in mine[1][::2])


def test_what_comes_from_beyond_the_border_is_black_in_both():
    white = np.full((6, *SIZE), 255, np.uint8)
    ranges = dataclasses.replace(STILL, shift=0.4)
    seeds = [(1, number) for number in range(6)]
    frames, masks = on_device(white, white, ranges, seeds)
    np.testing.assert_array_equal(frames == 0, on_host(white, white, ranges, seeds)[0] == 0)
    assert (frames == 0).mean() > 0.1
    assert np.abs(frames - masks).max() <= 70  # linear and cubic differ at the border's pixels alone
    assert (frames == masks).mean() > 0.9


def test_noise_has_its_deviation_and_changes_no_mask():
    frames = np.full((40, *SIZE), 100, np.uint8)
    ranges = dataclasses.replace(STILL, noise=0.1)
    seeds = [(2, number) for number in range(40)]
    normal = np.random.default_rng(0).standard_normal(frames.shape, np.float32)
    noisy, masks = on_device(frames, frames, ranges, seeds, keras.ops.convert_to_tensor(normal))
    wanted = [draw(SIZE, np.random.default_rng(seed), ranges).noise for seed in seeds]
    np.testing.assert_allclose((noisy - 100).std(axis=(1, 2)), wanted, rtol=0.06, atol=0.3)
    assert abs((noisy - 100).mean()) < 0.1
    assert (masks == 100).all()


def batches(chosen, count=24, **options) -> Batches:
    frames, masks = pictures(count)
    options = {"outputs": ("mask", "presence"), "ranges": None, **options}
    present = masks.any(axis=(1, 2))
    return Batches(frames, masks, present, np.arange(count), batch=chosen.training.batch, seed=5, **options)


def network(*changes):
    chosen = settings(f"size=[{SIZE[0]}, {SIZE[1]}]", "model.dropout=0", *changes)
    keras.utils.set_random_seed(4)
    return build_compiled(chosen), chosen


def weights(model):
    return [np.array(keras.ops.convert_to_numpy(value)) for value in model.trainable_variables]


@pytest.mark.one_backend
def test_steps_are_those_of_the_host(monkeypatch):
    monkeypatch.setattr(device_steps, "FIRST_STEPS", 3)
    marks = Marks(weights=np.linspace(0.5, 1, 24), presence=np.linspace(0.1, 0.9, 24))
    results = []
    for place in (HostSteps, DeviceSteps):
        model, chosen = network("optimiser.name=sgd", "training.average=ema")
        rates, counts = iter([0.0, 0.02, 0.05, 0.0, 0.01]), []
        steps = place(model, batches(chosen, marks=marks))
        loss = steps.run(5, rates.__next__, lambda count, counts=counts: counts.append(count))
        results.append((loss, weights(model), sum(counts), float(model.optimizer.iterations)))
        rate = float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
        assert rate == pytest.approx(0.01)
    (loss, mine, count, taken), (other_loss, theirs, other_count, other_taken) = results
    assert loss == pytest.approx(other_loss, rel=1e-4)
    assert count == other_count == taken == other_taken == 5
    for one, other in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.one_backend
def test_a_loop_is_compiled_once_and_each_frame_follows_from_seed_epoch_and_position():
    model, chosen = network()
    real, traces = model.train_step, []

    def counted(*values):
        traces.append(values)
        return real(*values)

    model.train_step = counted
    steps = DeviceSteps(model, batches(chosen, ranges=dataclasses.replace(EVERYTHING, noise=0.1)))
    for count in (1, 3, 6):
        steps.run(count, lambda: 0.01, lambda number: False)
    assert len(traces) == 1
    inputs = [steps._prepare(2), steps._prepare(2)]
    steps.batches.start_epoch(1)
    inputs.append(steps._prepare(2))
    for name, values in inputs[0].items():
        np.testing.assert_array_equal(values, inputs[1][name])
        assert (values != inputs[2][name]).any()


@pytest.mark.one_backend
def test_an_epoch_ends_early_and_counts_every_step_it_took(monkeypatch):
    monkeypatch.setattr(device_steps, "FIRST_STEPS", 2)
    model, chosen = network()
    steps, counts = DeviceSteps(model, batches(chosen, count=48)), []

    def stop(count: int) -> bool:
        counts.append(count)
        return True

    steps.run(12, lambda: 0.01, stop)
    # The call that was ahead is finished, too; no further one begins.
    assert counts == [2, 2]
    assert float(model.optimizer.iterations) == 4


def test_where_to_augment(monkeypatch):
    model, chosen = network()
    frames = batches(chosen)

    def chosen_steps(place: str) -> type:
        return type(steps_for(model, frames, dataclasses.replace(chosen.training, augment_on=place)))

    assert chosen_steps("auto") is chosen_steps("host") is HostSteps
    assert chosen_steps("device") is DeviceSteps
    monkeypatch.setattr(devices, "is_accelerated", lambda: True)
    assert chosen_steps("auto") is DeviceSteps
    assert chosen_steps("host") is HostSteps
    monkeypatch.setattr(device_steps, "MOST_BYTES", frames.frames.nbytes)
    assert chosen_steps("auto") is HostSteps  # it would not fit


@pytest.mark.one_backend
@pytest.mark.parametrize("presence", ["true", "false"])
@pytest.mark.parametrize(
    ("tta", "combine"), [("flips", "logits"), ("scales", "mean"), ("scales", "agreement")]
)
def test_views_on_the_device_are_those_of_the_host(monkeypatch, tta, combine, presence):
    model, _ = network(f"model.presence={presence}")
    bias = next(variable for variable in model.variables if variable.path == "mask_logit/bias")
    kernel = next(variable for variable in model.variables if variable.path == "mask_logit/kernel")
    kernel.assign(np.random.default_rng(1).normal(0, 3, kernel.shape))
    bias.assign([-0.5])
    frames = pictures(7)[0]
    results = []
    for accelerated in (False, True):
        monkeypatch.setattr(devices, "is_accelerated", lambda accelerated=accelerated: accelerated)
        parts = forward.probabilities(model, frames, batch=3, tta=tta, combine=combine)
        results.append([np.concatenate(values) for values in zip(*parts, strict=True)])
    for mine, theirs in zip(*results, strict=True):
        assert mine.dtype == theirs.dtype == np.float32
        np.testing.assert_allclose(mine, theirs, atol=1e-5)
    assert results[0][0].std() > 0.02
    assert results[0][2].min() < 1  # the views do not agree everywhere, or the figure would say nothing


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("device")
    write_competition(folder)
    return folder


DEVICE = ("training.augment_on=device", "training.average=ema", "model.dropout=0.3")
TRAIN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[3])
from training_support import many_epochs, settings
from kaggle_nerve.training.run_folds import train_folds
changes = (*many_epochs(12), *sys.argv[4:])
train_folds(Path(sys.argv[1]), Path(sys.argv[2]), "run", settings(*changes), fold=0)
"""


@pytest.mark.long
def test_kill_9_within_a_call_of_several_steps_resumes_with_the_same_history_length(data, tmp_path, request):
    state = tmp_path / "run" / "fold-0" / "checkpoint" / "state.json"
    words = [str(data), str(tmp_path), str(request.path.parent), *DEVICE]
    kill_when([TRAIN, *words], lambda: state.is_file() and json.loads(state.read_text())["epoch"] >= 2)
    kept = json.loads(state.read_text())["epoch"]
    told, chosen = Told(), settings(*many_epochs(12), *DEVICE)
    run, results = train_folds(data, tmp_path, "run", chosen, fold=0, reporter=told)
    assert any(f"going on after epoch {kept}" in line for line in told.lines)
    assert results[0].finished
    undisturbed, _ = train_folds(data, tmp_path, "other", chosen, fold=0)
    mine, theirs = history(run.fold(0).folder), history(undisturbed.fold(0).folder)
    assert [row["epoch"] for row in mine] == [str(epoch) for epoch in range(1, 13)]
    assert [row["learning_rate"] for row in mine] == [row["learning_rate"] for row in theirs]
    assert float(mine[-1]["loss"]) == pytest.approx(float(theirs[-1]["loss"]), rel=0.05)
