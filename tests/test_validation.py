"""The field's figures of an epoch; the competition's own are tested where a fold is trained."""

import numpy as np
import pytest

from kaggle_nerve.competition import rle
from kaggle_nerve.maps.fullsize import Truths
from kaggle_nerve.training.logs import COLUMNS
from kaggle_nerve.training.validation import EpochScore, score_epoch

SIZE = (42, 58)


class Oracle:
    """Stands for a network: its mask is the frame, and it believes in none of them."""

    def predict_on_batch(self, chunk):
        return {"mask": chunk / 255, "presence": 0 * chunk[:, 0, 0]}


def square(top: int, bottom: int, left: int, right: int) -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def scored(truths: list[np.ndarray], claims: list[np.ndarray]) -> EpochScore:
    texts = [rle.encode(truth) if truth.any() else "" for truth in truths]
    return score_epoch(Oracle(), 255 * np.stack(claims), Truths(texts, SIZE), batch=2)


def test_pixel_figures_by_hand():
    # 200 true pixels of which 100 are found, and 50 false ones in a frame without a mask.
    empty = square(0, 0, 0, 0)
    truths = [square(10, 20, 10, 30), empty, empty]
    claims = [square(10, 20, 10, 20), square(5, 10, 40, 50), empty]
    found = scored(truths, claims)
    assert found.pixel_dice == pytest.approx(2 * 100 / (200 + 150))
    assert found.iou == pytest.approx(100 / (100 + 100 + 50))
    assert found.pixel_accuracy == pytest.approx(1 - (100 + 50) / (3 * 42 * 58))
    # The metric's presence rule drops all three masks (1 of 3 frames is lost); these figures do not know it.
    assert found.presence_threshold > 0
    assert found.dice == pytest.approx(2 / 3)


def test_they_are_not_the_mean_over_frames():
    # A large mask found and a small one missed: 2 * 600 / (600 + 620), where the mean of frames is 1/2.
    truths = [square(10, 30, 10, 40), square(5, 9, 5, 10)]
    found = scored(truths, [truths[0], square(0, 0, 0, 0)])
    assert found.pixel_dice == pytest.approx(1200 / 1220)
    assert found.iou == pytest.approx(600 / 620)
    assert found.present_dice == pytest.approx(0.5)


def test_a_fold_of_empty_frames_found_empty_is_perfect():
    empty = square(0, 0, 0, 0)
    found = scored([empty, empty, empty], [empty, empty, empty])
    assert (found.pixel_dice, found.iou, found.pixel_accuracy) == (1, 1, 1)
    found = scored([empty], [square(0, 42, 0, 58)])
    assert (found.pixel_dice, found.iou, found.pixel_accuracy) == (0, 0, 0)


def test_the_history_has_every_figure():
    assert set(vars(scored([square(1, 5, 1, 9)], [square(1, 5, 1, 9)]))) <= set(COLUMNS)
