"""The linear model of true masks: what it can and cannot draw, and its file."""

import numpy as np
import pytest
from support import disc

from kaggle_nerve.competition import rle
from kaggle_nerve.competition.rle import RunLengthError
from kaggle_nerve.decision import shape_prior
from kaggle_nerve.errors import NerveError

SMALL, GRID = (42, 58), (21, 29)


def made(count: int = 30, seed: int = 0) -> np.ndarray:
    """Discs and bars of several places and sizes, bool (count, height, width)."""
    random = np.random.default_rng(seed)
    masks = []
    for index in range(count):
        mask = disc((random.integers(14, 28), random.integers(16, 42)), random.integers(6, 11), SMALL)
        if index % 3 == 0:
            mask[18:24, 10:40] = 1
        masks.append(mask.astype(bool))
    return np.array(masks)


def fitted(masks: np.ndarray, components: int, **how) -> shape_prior.ShapePrior:
    return shape_prior.fit(rle.encode_many(masks), components, **{"grid": GRID, "size": SMALL, **how})


def dice(first: np.ndarray, second: np.ndarray) -> float:
    return 2 * (first & second).sum() / (first.sum() + second.sum())


def test_enough_components_draw_the_masks_they_were_learned_from():
    masks = made()
    prior = fitted(masks, 100, grid=SMALL)
    assert prior.components.shape == (29, *SMALL)
    for mask in masks:
        found = prior.apply(mask)
        assert (found.shape, found.dtype) == (SMALL, bool)
        assert (found != mask).sum() <= 1


def test_a_coarser_grid_costs_only_the_outline():
    masks = made()
    prior = fitted(masks, 29)
    assert prior.mean.shape == GRID
    assert min(dice(prior.apply(mask), mask) for mask in masks) > 0.95


def test_few_components_leave_out_what_true_masks_do_not_have():
    masks = made(60)
    prior = fitted(masks, 8)
    speckled = masks[1].copy()
    speckled[2:5, 50:54] = True
    assert not prior.apply(speckled)[:8, 48:].any()
    priors = [fitted(masks, count) for count in (1, 8, 30)]
    fits = [np.mean([dice(prior.apply(mask), mask) for mask in masks]) for prior in priors]
    assert fits[0] < fits[1] < fits[2]


def test_the_mean_and_components_by_hand():
    # Two masks of 2 x 4 pixels on a grid of 1 x 2: cells of (1, 0) and (1/2, 1).
    first = np.array([[1, 1, 0, 0], [1, 1, 0, 0]], bool)
    second = np.array([[1, 0, 1, 1], [1, 0, 1, 1]], bool)
    prior = fitted(np.array([first, second]), 5, grid=(1, 2), size=(2, 4))
    np.testing.assert_allclose(prior.mean, [[0.75, 0.5]])
    # The one direction is (-1/2, 1), of which the largest entry is made positive.
    np.testing.assert_allclose(prior.components, [[[-(0.2**0.5), 0.8**0.5]]], atol=5e-4)
    # Cells (0, 1) become (0.4, 1.2): interpolated, the columns are 0.4, 0.6, 1.0 and 1.2.
    found = prior.apply(np.array([[0, 0, 1, 1]] * 2, bool))
    np.testing.assert_array_equal(found, np.array([[0, 1, 1, 1]] * 2, bool))


def test_the_prior_repeats_with_its_signs():
    masks = made()
    first, second = fitted(masks, 6), fitted(masks, 6)
    np.testing.assert_array_equal(first.components, second.components)
    np.testing.assert_array_equal(first.mean, second.mean)
    other = fitted(masks, 6, seed=1)
    np.testing.assert_allclose(other.components[:3], first.components[:3], atol=0.02)


def test_a_saved_prior_is_the_same_when_read_back(tmp_path):
    masks = made()
    prior = fitted(masks, 7)
    prior.save(tmp_path / "new" / "prior.npz")
    read = shape_prior.load(tmp_path / "new" / "prior.npz")
    assert read.size == SMALL
    np.testing.assert_array_equal(read.components, prior.components)
    np.testing.assert_array_equal(read.mean, prior.mean)
    assert read.components.dtype == prior.components.dtype == np.float32
    for mask in made(9, seed=5):
        np.testing.assert_array_equal(read.apply(mask), prior.apply(mask))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["prior.npz"]


def test_empty_stays_empty_and_nothing_becomes_empty():
    prior = fitted(made(), 3)
    empty = np.zeros(SMALL, bool)
    assert not prior.apply(empty).any()
    # Discs far apart: their mean stays below one half, and one pixel adds next to nothing to it.
    apart = np.array([disc((8 + 6 * i, 8 + 9 * i), 5, SMALL) for i in range(5)])
    prior = fitted(apart, 2)
    speck = empty.copy()
    speck[40, 2] = True
    np.testing.assert_array_equal(prior.apply(speck), speck)


def test_masks_that_are_all_alike_are_drawn_whatever_is_given():
    masks = np.repeat(made(1), 4, axis=0)
    for count in (1, 4):
        prior = fitted(masks[:count], 3, grid=SMALL)
        assert prior.components.shape == (0, *SMALL)
        np.testing.assert_array_equal(prior.apply(np.ones(SMALL, bool)), masks[0])


def test_empty_texts_are_left_out():
    texts = rle.encode_many(made())
    prior = shape_prior.fit(["", *texts, ""], 4, grid=GRID, size=SMALL)
    np.testing.assert_array_equal(prior.mean, fitted(made(), 4).mean)


def test_full_size_is_the_default():
    texts = [rle.encode(disc((200, 300 + 20 * i), 45)) for i in range(4)]
    prior = shape_prior.fit(texts, 2)
    assert (prior.size, prior.mean.shape) == ((420, 580), (105, 145))
    assert dice(prior.apply(disc((200, 320), 45).astype(bool)), disc((200, 320), 45).astype(bool)) > 0.9


def test_faults_are_named(tmp_path):
    with pytest.raises(NerveError, match="at least one true mask"):
        shape_prior.fit(["", ""], 3)
    with pytest.raises(RunLengthError):
        shape_prior.fit(["1 1", "5"], 3)
    with pytest.raises(NerveError, match=r"masks of \(42, 58\), got one of \(58, 42\)"):
        fitted(made(), 3).apply(np.zeros((58, 42), bool))
    with pytest.raises(NerveError, match="There is no shape prior at"):
        shape_prior.load(tmp_path / "none.npz")


def test_damaged_files_are_named(tmp_path):
    path = tmp_path / "prior.npz"
    fitted(made(), 7).save(path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    for damaged in (b"", b"text", whole[: len(whole) // 2], whole[:-30], bytes(flipped)):
        path.write_bytes(damaged)
        with pytest.raises(NerveError, match=r"prior\.npz is not a shape prior"):
            shape_prior.load(path)
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(NerveError, match="is not a shape prior"):
        shape_prior.load(tmp_path / "one.npy")
    for parts in ({"mean": np.zeros(GRID)}, {"mean": np.zeros(5), "components": np.zeros((2, 5)), "size": 3}):
        np.savez(path, **parts)
        with pytest.raises(NerveError, match="is not a shape prior"):
            shape_prior.load(path)
