from math import comb

import keras
import numpy as np
import pytest

from kaggle_nerve.data.augment import augment
from kaggle_nerve.data.batches import Batches
from kaggle_nerve.data.doubted import Marks
from kaggle_nerve.data.sampling import arrange_batches, draw_rows, most_batches
from kaggle_nerve.errors import NerveError
from kaggle_nerve.settings import AugmentationSettings
from kaggle_nerve.training.losses import MaskLoss

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
    "change",
    [
        {"rotate": 20},
        {"shift": 0.2},
        {"scale": 1.4},
        {"hflip": 1, "rotate": 15},
        {"elastic": 0.1, "rotate": 9},
    ],
)
def test_geometry_moves_frame_and_mask_alike(change):
    # The frame is its own mask: whatever geometry does, its outline must stay where the mask's is.
    blob = np.zeros((30, 46), np.uint8)
    blob[8:20, 15:35] = 200
    moved = []
    for seed in range(20):
        frame, mask = augment(blob, blob, np.random.default_rng(seed), only(**change))
        assert ((frame >= 100) != (mask >= 100)).sum() <= 6
        moved.append(((mask >= 100) != (blob >= 100)).sum())
    assert max(moved) > 40


def test_moved_frames_keep_their_details():
    # A network that only ever sees blurred frames is at a loss with those that it predicts, which are not.
    speckle = np.random.default_rng(0).integers(60, 196, (60, 90), np.uint8)
    moved = [
        augment(speckle, speckle, np.random.default_rng(seed), only(shift=0.05))[0][12:-12, 12:-12]
        for seed in range(40)
    ]
    # By straight lines between pixels two thirds would be left.
    assert np.mean([frame.std() for frame in moved]) / speckle.std() > 0.8


def test_elastic_bends_by_at_most_its_share():
    across = np.tile(np.arange(100, 200, dtype=np.uint8), (80, 1))
    moved = []
    for seed in range(60):
        frame, _ = augment(across, across, np.random.default_rng(seed), only(elastic=0.05))
        inside = frame[12:-12, 12:-12].astype(int) - across[12:-12, 12:-12]
        # Here a grey value is a column.
        assert np.abs(inside).max() <= 0.05 * 100 + 1
        assert np.abs(np.diff(inside, axis=1)).max() <= 2
        moved.append(inside.mean())
    assert np.abs(moved).max() > 0.5
    assert abs(np.mean(moved)) < 0.5


def test_gain_is_smooth_around_1_and_within_its_share():
    flat = np.full((60, 90), 100, np.uint8)
    fields = np.stack(
        [augment(flat, flat, np.random.default_rng(seed), only(gain=0.3))[0] / 100 for seed in range(60)]
    )
    assert 0.69 < fields.min() < 0.75
    assert 1.25 < fields.max() < 1.31
    assert abs(fields.mean() - 1) < 0.03
    assert np.abs(np.diff(fields, axis=2)).max() < 0.05
    assert fields.std(axis=(1, 2)).min() > 0.02


def test_sharpness_adds_or_takes_the_finest_details():
    speckle = np.random.default_rng(0).integers(60, 196, (60, 90), np.uint8)
    frames = [
        augment(speckle, speckle, np.random.default_rng(seed), only(sharpness=0.5))[0] for seed in range(60)
    ]
    ratios = np.array([frame.std() for frame in frames]) / speckle.std()
    assert 0.6 < ratios.min() < 0.75
    assert 1.2 < ratios.max() < 1.4
    assert np.abs([frame.mean() - speckle.mean() for frame in frames]).max() < 1


@pytest.mark.parametrize(
    "change",
    [{"contrast": 0.5}, {"brightness": 0.3}, {"gamma": 2}, {"noise": 0.2}, {"gain": 0.3}, {"sharpness": 0.5}],
)
def test_grey_values_change_the_frame_alone(picture, change):
    frame, mask = augment(*picture, np.random.default_rng(1), only(**change))
    assert (frame != picture[0]).any()
    assert (mask == picture[1]).all()


def test_brightness_adds_its_share(picture):
    flat = np.full((30, 46), 100, np.uint8)
    greys = [augment(flat, flat, np.random.default_rng(s), only(brightness=0.1))[0][0, 0] for s in range(200)]
    assert 74 <= min(greys) < 80
    assert 120 < max(greys) <= 126


def test_noise_is_normal_unbiased_and_as_strong_as_asked():
    flat = np.full((200, 310), 100, np.uint8)
    changes = np.array(
        [
            augment(flat, flat, np.random.default_rng(s), only(noise=0.1))[0].astype(float) - 100
            for s in range(60)
        ]
    )
    # The deviation is drawn uniformly from 0 to 25.5 grey values; it never leaves that range.
    deviations = changes.std(axis=(1, 2))
    assert deviations.min() < 2
    assert 23 < deviations.max() < 25.7
    strongest = changes[deviations.argmax()]
    assert abs(strongest.mean()) < 0.5
    # Of a normal distribution 68.3 % lie within one deviation and 95.4 % within two.
    assert (np.abs(strongest) < deviations.max()).mean() == pytest.approx(0.683, abs=0.02)
    assert (np.abs(strongest) < 2 * deviations.max()).mean() == pytest.approx(0.954, abs=0.01)
    # Neighbours have nothing to do with one another.
    assert abs(np.corrcoef(strongest[:, 1:].ravel(), strongest[:, :-1].ravel())[0, 1]) < 0.02


def batches(count=40, batch=8, ranges=STILL, every=4, **options) -> Batches:
    frames = np.arange(count, dtype=np.uint8)[:, None, None] * np.ones((1, 6, 10), np.uint8)
    masks = np.zeros_like(frames)
    has_mask = np.arange(count) % every == 0
    masks[has_mask] = 255
    return Batches(frames, masks, has_mask, np.arange(count), batch=batch, seed=5, ranges=ranges, **options)


def shown(epoch: Batches) -> list[int]:
    return [number for batch in shown_batches(epoch) for number in batch]


def shown_batches(epoch: Batches) -> list[list[int]]:
    return [epoch[index][0][:, 0, 0, 0].astype(int).tolist() for index in range(len(epoch))]


def test_shapes_ranges_and_targets():
    frames, targets = batches()[0]
    assert (frames.shape, frames.dtype) == ((8, 6, 10, 1), np.float32)
    assert targets["mask"].shape == (8, 6, 10, 1)
    assert set(np.unique(targets["mask"])) <= {0, 1}
    numbers = frames[:, 0, 0, 0].astype(int)
    assert (targets["presence"][:, 0] == (numbers % 4 == 0)).all()
    assert (targets["mask"][:, 0, 0, 0] == targets["presence"][:, 0]).all()


def test_every_output_of_the_network_gets_its_target():
    _, targets = batches(outputs=("mask", "mask_1", "mask_2", "presence"))[0]
    assert list(targets) == ["mask", "mask_1", "mask_2", "presence"]
    assert targets["presence"].shape == (8, 1)
    assert targets["mask"].any()
    assert (targets["mask_1"] == targets["mask"]).all()
    assert (targets["mask_2"] == targets["mask"]).all()
    assert set(batches(outputs=("mask",))[0][1]) == {"mask"}


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


def test_how_many_batches_of_different_subjects_there_are():
    # 2 subjects of 3 and 1 frames: one batch of two. 3, 3 and 3: four of two (8 of 9 frames).
    assert most_batches(np.array([3, 1]), 2) == 1
    assert most_batches(np.array([3, 0, 3, 3]), 2) == 4
    assert most_batches(np.array([9, 2, 2]), 2) == 4
    assert most_batches(np.array([9, 2, 2]), 3) == 2
    assert most_batches(np.array([9, 2]), 3) == 0


def test_no_more_batches_can_be_dealt_than_that():
    # Always taking from those who have most left is known to deal the most.
    for seed in range(40):
        random = np.random.default_rng(seed)
        counts, batch = random.integers(0, 9, random.integers(3, 8)), int(random.integers(1, 4))
        left, number = counts.copy(), 0
        while np.count_nonzero(left) >= batch:
            left[np.argsort(-left)[:batch]] -= 1
            number += 1
        assert most_batches(counts, batch) == number


def test_dealing_keeps_all_rows_and_parts_their_groups():
    groups = np.repeat(np.arange(5), [8, 8, 5, 2, 1])
    for seed in range(30):
        order = arrange_batches(np.random.default_rng(seed), np.arange(24), groups, 3)
        assert sorted(order) == list(range(24))
        assert all(len(set(batch)) == 3 for batch in groups[order].reshape(8, 3))
        # The first two have as many rows as there are batches, so they are in each.
        assert all({0, 1} <= set(batch) for batch in groups[order].reshape(8, 3))


def test_dealing_mixes_subjects():
    # 6 subjects of 20 frames in batches of 2: a pair of subjects meets in 1 of 15 batches, about.
    groups = np.repeat(np.arange(6), 20)
    met = np.zeros((6, 6))
    for seed in range(30):
        order = arrange_batches(np.random.default_rng(seed), np.arange(120), groups, 2)
        for one, other in groups[order].reshape(60, 2):
            met[min(one, other), max(one, other)] += 1
    shares = met[np.triu_indices(6, 1)] / met.sum()
    assert shares.min() > 0.7 / comb(6, 2)
    assert shares.max() < 1.3 / comb(6, 2)


def test_drawing_ends_where_no_group_has_room():
    groups = np.array([0, 0, 0, 1])
    found = draw_rows(np.random.default_rng(0), [(np.arange(4), 9)], groups, room=2)
    assert len(found) == 4
    assert sorted(groups[found]) == [0, 0, 1, 1]
    assert len(set(found[groups[found] == 0])) == 2


SUBJECTS = np.repeat([7, 3, 11, 50, 2], [12, 12, 8, 6, 2])


def test_no_batch_has_two_frames_of_a_subject_and_few_frames_are_left_out():
    # At most 10 frames of each can be shown in 10 batches of 4: 10 + 10 + 8 + 6 + 2 = 36 < 40; in 9: 34 < 36.
    # In 8: 8 + 8 + 8 + 6 + 2 = 32 = 8 * 4.
    epoch = batches(batch=4, subjects=SUBJECTS)
    assert len(epoch) == 8
    first = shown_batches(epoch)
    assert all(len({SUBJECTS[number] for number in batch}) == 4 for batch in first)
    numbers = [number for batch in first for number in batch]
    assert len(set(numbers)) == 32
    epoch.start_epoch(1)
    again = shown_batches(epoch)
    assert again != first
    # Other frames of the two big subjects are left out.
    assert set(numbers) != {number for batch in again for number in batch}


def test_subjects_of_equal_size_lose_no_frame():
    epoch = batches(batch=4, subjects=np.arange(40) % 5)
    assert sorted(shown(epoch)) == list(range(40))


@pytest.mark.parametrize("rate", [0.0, 0.25, 0.5, 0.75])
def test_subjects_kept_apart_go_with_a_positive_rate(rate):
    # Every subject has frames of both kinds, so the rate is met exactly.
    subjects = np.arange(40) // 8
    epoch = batches(batch=4, subjects=subjects)
    epoch.start_epoch(3, rate)
    found = shown_batches(epoch)
    assert len(found) == len(epoch) == 10
    assert all(len({subjects[number] for number in batch}) == 4 for batch in found)
    assert sum(number % 4 == 0 for batch in found for number in batch) == round(40 * rate)


def test_a_rate_that_subjects_kept_apart_cannot_give_is_met_as_far_as_can_be():
    # Masks are in frames 0, 4, ..., 36: with these subjects all of subject 0, who gives one frame a batch.
    subjects = np.where(np.arange(40) % 4 == 0, 0, np.arange(40) % 4)
    epoch = batches(batch=2, subjects=subjects)
    assert len(epoch) == 20
    epoch.start_epoch(0, 0.9)
    found = shown_batches(epoch)
    assert len(found) == 20
    assert all(subjects[one] != subjects[other] for one, other in found)
    assert sum(number % 4 == 0 for batch in found for number in batch) == 20


def test_held_out_subjects_are_no_subjects_to_deal():
    frames = np.zeros((12, 6, 10), np.uint8)
    rows, subjects = np.arange(6), np.arange(12) // 2
    options = {"seed": 0, "ranges": None, "subjects": subjects}
    epoch = Batches(frames, frames, np.arange(12) % 2 == 0, rows, batch=3, **options)
    assert len(epoch) == 2
    assert sorted(epoch.order) == list(range(6))
    told = r"^training\.batch=4 is more than the 3 subjects to train on, .* set training\.batch=3 or less\.$"
    with pytest.raises(NerveError, match=told):
        Batches(frames, frames, np.arange(12) % 2 == 0, rows, batch=4, **options)


def test_a_resumed_epoch_of_subjects_kept_apart_is_the_same_epoch():
    one, other = batches(batch=4, subjects=SUBJECTS), batches(batch=4, subjects=SUBJECTS)
    one.start_epoch(1)
    one.start_epoch(2, 0.5)
    other.start_epoch(2, 0.5)
    assert shown(one) == shown(other)


def test_doubted_labels_count_less_in_every_output():
    weights = np.linspace(0, 1, 40).astype(np.float32)
    frames, targets, counting = batches(marks=Marks(weights=weights))[1]
    numbers = frames[:, 0, 0, 0].astype(int)
    assert set(counting) == set(targets) == {"mask", "presence"}
    for values in counting.values():
        assert values.dtype == np.float32
        assert (values == weights[numbers]).all()
    assert (targets["presence"][:, 0] == (numbers % 4 == 0)).all()


def test_softened_labels_change_the_presence_target_alone():
    presence = np.linspace(0, 1, 40).astype(np.float32)
    frames, targets = batches(marks=Marks(presence=presence))[1]
    numbers = frames[:, 0, 0, 0].astype(int)
    assert (targets["presence"][:, 0] == presence[numbers]).all()
    assert (targets["mask"][:, 0, 0, 0] == (numbers % 4 == 0)).all()


@pytest.mark.parametrize("jit", [False, True])
def test_keras_trains_on_deep_masks_and_weights(jit):
    # A network that says 0.5 of everything: Dice loss of a mask's image 1 - (60 + 1) / (60 + 30 + 1), of an empty
    # one 1 - 1 / (30 + 1); entropy ln 2. Only the frames 0 (with a mask) and 1 (without) count, and half.
    frames = keras.Input((6, 10, 1))
    logit = keras.layers.Conv2D(1, 1, kernel_initializer="zeros")(frames)
    outputs = {name: keras.layers.Activation("sigmoid", name=name)(logit) for name in ("mask", "mask_1")}
    mean = keras.layers.GlobalAveragePooling2D()(logit)
    outputs["presence"] = keras.layers.Activation("sigmoid", name="presence")(mean)
    model = keras.Model(frames, outputs)
    loss = {"mask": MaskLoss(1, 0), "mask_1": MaskLoss(1, 0), "presence": keras.losses.BinaryCrossentropy()}
    share = {"mask": 1.0, "mask_1": 0.5, "presence": 1.0}
    model.compile(keras.optimizers.SGD(0.0), loss=loss, loss_weights=share, jit_compile=jit)
    weights = np.zeros(40, np.float32)
    weights[:2] = 0.5
    found = model.fit(
        batches(outputs=tuple(model.output), marks=Marks(weights=weights)), shuffle=False, verbose=0
    ).history["loss"][0]
    dice = (1 - 61 / 91) + (1 - 1 / 31)
    assert found == pytest.approx(0.5 * (1.5 * dice + 2 * np.log(2)) / 40, rel=1e-5)
