"""Several maps of a frame into one, by hand."""

import numpy as np
import pytest

from kaggle_nerve.maps import blending

A = np.array([[0.9, 0.8, 0.1], [0.1, 0.1, 0.1]])
B = np.array([[0.1, 0.1, 0.1], [0.1, 0.6, 0.7]])
"""Two masks of two pixels that share none."""


def test_two_who_agree_outweigh_the_third():
    # Pairwise Dice is 1 between the first two and 0 with the last: the leading eigenvector is (1, 1, 0) / sqrt 2.
    powers = np.array([100**0.5**0.5, 100**0.5**0.5, 1])
    wanted = powers / powers.sum()
    np.testing.assert_allclose(blending.agreement_weights(np.stack([A, A, B])), wanted)
    mixed = blending.combine(np.stack([A, A, B]), "agreement")
    np.testing.assert_allclose(mixed, (wanted[0] + wanted[1]) * A + wanted[2] * B, atol=1e-6)


@pytest.mark.parametrize(
    "members",
    [(A, B), (B, A), (A, 0 * A), (0 * A, A), (A, B, 0 * A), (A, A, B, B), (B, A, B, A)],
    ids=["two", "two turned", "an empty one", "empty first", "three", "two pairs", "two pairs mixed"],
)
def test_members_that_share_nothing_weigh_the_same(members):
    # Whose vector comes last is chance: it must not decide whether there is a mask.
    weights = blending.agreement_weights(np.stack(members))
    np.testing.assert_allclose(weights, np.full(len(members), 1 / len(members)))


def test_log_odds_by_hand():
    # Odds 4 and 1/9: their geometric mean is 2/3, which is the probability 0.4.
    mixed = blending.combine(np.array([[[0.8]], [[0.1]]]), "logits")
    assert mixed.item() == pytest.approx(0.4)
    assert blending.combine(np.array([[[0.8]], [[0.1]]])).item() == pytest.approx(0.45)
    certain = blending.combine(np.array([[[1.0]], [[0.0]]]), "logits")
    assert certain.item() == pytest.approx(0.5, abs=1e-3)


def test_mean_agreement_by_hand():
    half = np.array([[0.9, 0.1, 0.1], [0.1, 0.6, 0.1]])  # one pixel of A, one of B
    assert blending.mean_agreement(np.stack([A, half])) == pytest.approx(0.5)
    assert blending.mean_agreement(np.stack([A, B, half])) == pytest.approx((0 + 0.5 + 0.5) / 3)
    assert blending.mean_agreement(np.stack([0 * A, 0 * B])) == 1
    assert blending.mean_agreement(np.stack([A, 0 * B])) == 0
    assert blending.mean_agreement(A[None]) == 1


def mixed(method: str, maps: np.ndarray, presences: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    mixer = blending.Mixer(method)
    for each, presence in zip(maps, presences, strict=True):
        mixer.add(each, presence)
    return mixer.result()


@pytest.mark.parametrize("method", blending.METHODS)
def test_members_one_by_one_are_combined_frame_by_frame(method):
    random = np.random.default_rng(0)
    maps = random.uniform(size=(3, 4, 9, 14))
    maps[1, :, :, 5:] /= 3  # or all would agree alike
    maps = maps.astype(np.float16).astype(np.float32)  # what agreement has to keep, it keeps as float16
    presences = random.uniform(size=(3, 4)).astype(np.float32)
    found, presence = mixed(method, maps, presences)
    assert (found.dtype, presence.dtype) == (np.float32, np.float32)
    for row in range(4):
        np.testing.assert_allclose(found[row], blending.combine(maps[:, row], method), atol=1e-6)
        if method != "mean":
            assert np.abs(found[row] - maps[:, row].mean(axis=0)).max() > 0.01


def test_presence_is_combined_like_the_maps():
    maps = np.stack([A, A, B])[:, None]
    presences = np.array([[0.8], [0.6], [0.1]], np.float32)
    assert mixed("mean", maps, presences)[1] == pytest.approx([0.5])
    weights = blending.agreement_weights(maps[:, 0])
    assert mixed("agreement", maps, presences)[1] == pytest.approx(weights @ presences[:, 0])
    assert mixed("logits", maps[:2], np.array([[0.8], [0.1]], np.float32))[1] == pytest.approx([0.4])
