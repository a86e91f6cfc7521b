import numpy as np
import pytest

from kaggle_nerve.data.augment import augment
from kaggle_nerve.data.batches import Batches
from kaggle_nerve.settings import AugmentationSettings

STILL = AugmentationSettings(
    hflip=0, vflip=0, rotate=0, shift=0, scale=1, contrast=0, brightness=0, gamma=1, noise=0
)


def only(**change) -> AugmentationSettings:
    return AugmentationSettings(**{**vars(STILL), **change})


@pytest.fixture
def picture():
    frame = np.random.default_rng(0).integers(0, 256, (30, 46), np.uint8)
    mask = np.zeros((30, 46), np.uint8)
    mask[8:15, 30:40] = 255
    return frame, mask


def test_no_range_means_no_change(picture):
    frame, mask = augment(*picture, np.random.default_rng(0), STILL)
    assert (frame == picture[0]).all()
    assert (mask == picture[1]).all()


def test_flips_are_exact_mirrors(picture):
    frame, mask = augment(*picture, np.random.default_rng(0), only(hflip=1))
    assert (frame == picture[0][:, ::-1]).all()
    assert (mask == picture[1][:, ::-1]).all()
    frame, mask = augment(*picture, np.random.default_rng(0), only(vflip=1))
    assert (frame == picture[0][::-1]).all()
    assert (mask == picture[1][::-1]).all()


@pytest.mark.parametrize(
    "change", [{"rotate": 20}, {"shift": 0.2}, {"scale": 1.4}, {"hflip": 1, "rotate": 15}]
)
def test_geometry_moves_frame_and_mask_alike(change):
    # The frame is its own mask: whatever geometry does, they must stay equal.
    blob = np.zeros((30, 46), np.uint8)
    blob[8:20, 15:35] = 200
    for seed in range(20):
        frame, mask = augment(blob, blob, np.random.default_rng(seed), only(**change))
        assert (frame == mask).all()
    assert (frame != blob).any()


@pytest.mark.parametrize("change", [{"contrast": 0.5}, {"brightness": 0.3}, {"gamma": 2}, {"noise": 0.2}])
def test_grey_values_change_the_frame_alone(picture, change):
    frame, mask = augment(*picture, np.random.default_rng(1), only(**change))
    assert (frame != picture[0]).any()
    assert (mask == picture[1]).all()


def test_brightness_adds_its_share(picture):
    flat = np.full((30, 46), 100, np.uint8)
    greys = [augment(flat, flat, np.random.default_rng(s), only(brightness=0.1))[0][0, 0] for s in range(200)]
    assert 74 <= min(greys) < 80
    assert 120 < max(greys) <= 126


def batches(count=40, batch=8, ranges=STILL, every=4, **options) -> Batches:
    frames = np.arange(count, dtype=np.uint8)[:, None, None] * np.ones((1, 6, 10), np.uint8)
    masks = np.zeros_like(frames)
    has_mask = np.arange(count) % every == 0
    masks[has_mask] = 255
    return Batches(frames, masks, has_mask, np.arange(count), batch=batch, seed=5, ranges=ranges, **options)


def shown(epoch: Batches) -> list[int]:
    return [int(frame[0, 0, 0]) for index in range(len(epoch)) for frame in epoch[index][0]]


def test_shapes_ranges_and_targets():
    frames, targets = batches()[0]
    assert (frames.shape, frames.dtype) == ((8, 6, 10, 1), np.float32)
    assert targets["mask"].shape == (8, 6, 10, 1)
    assert set(np.unique(targets["mask"])) <= {0, 1}
    numbers = frames[:, 0, 0, 0].astype(int)
    assert (targets["presence"][:, 0] == (numbers % 4 == 0)).all()
    assert (targets["mask"][:, 0, 0, 0] == targets["presence"][:, 0]).all()
    assert "presence" not in batches(presence=False)[0][1]


def test_an_epoch_shows_every_frame_once_in_another_order():
    epoch = batches()
    first = shown(epoch)
    epoch.start_epoch(1)
    assert sorted(first) == sorted(shown(epoch)) == list(range(40))
    assert first != shown(epoch)


def test_a_resumed_epoch_is_the_same_epoch():
    ranges = AugmentationSettings()
    one, other = batches(ranges=ranges), batches(ranges=ranges)
    one.start_epoch(1)
    one.start_epoch(2, 0.5)
    other.start_epoch(2, 0.5)
    for index in reversed(range(len(one))):
        assert (one[index][0] == other[index][0]).all()
    assert (one[0][0] == one[0][0]).all()


@pytest.mark.parametrize("rate", [0.0, 0.25, 0.5, 0.8, 1.0])
def test_the_positive_rate_is_as_asked(rate):
    epoch = batches()
    epoch.start_epoch(0, rate)
    numbers = shown(epoch)
    assert len(numbers) == 40
    assert sum(number % 4 == 0 for number in numbers) == round(40 * rate)
    counts = np.bincount([number for number in numbers if number % 4 == 0], minlength=1)
    used = counts[counts > 0]
    assert not len(used) or used.max() - used.min() <= 1


def test_a_rate_without_frames_of_one_kind_still_fills_the_epoch():
    epoch = batches(every=1)
    epoch.start_epoch(0, 0.8)
    assert sorted(shown(epoch)) == list(range(40))


def test_the_last_part_of_a_batch_is_left_out():
    assert len(batches(count=41)) == 5
    assert len(batches(count=5, batch=8)) == 1
