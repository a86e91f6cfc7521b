import numpy as np
import pandas as pd

from kaggle_nerve.data.cache import Cache
from kaggle_nerve.data.contradictions import contradictions


def cache_of(frames, table):
    return Cache(folder=None, source="", frames=np.array(frames, np.uint8), masks=None, table=table)


def test_the_likest_frame_without_a_mask_is_found_within_the_subject():
    random = np.random.default_rng(0)
    marked, other, foreign = (random.integers(0, 250, (7, 9)) for _ in range(3))
    frames = [marked, other, marked + 3, foreign, marked]
    table = pd.DataFrame({"subject": [1, 1, 1, 2, 2], "img": [4, 5, 6, 1, 2], "area": [90, 0, 0, 80, 80]})
    found = contradictions(cache_of(frames, table), least=0.9)
    assert found[["subject", "with_mask", "without_mask", "row", "other"]].values.tolist() == [
        [1, 4, 6, 0, 2]
    ]
    assert found.correlation[0] > 0.999


def test_even_frames_and_subjects_of_one_kind_are_no_pairs():
    frames = [np.zeros((4, 5)), np.zeros((4, 5)), np.full((4, 5), 9)]
    table = pd.DataFrame({"subject": [1, 1, 2], "img": [1, 2, 1], "area": [9, 0, 9]})
    assert contradictions(cache_of(frames, table)).empty
