"""Near-identical frames: what is found against all pairs by brute force."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from support import tissue, write_frames

from kaggle_nerve.audit import twins as module
from kaggle_nerve.audit.twins import LEAST, candidates, likeness, twins
from kaggle_nerve.competition.facts import SIZE
from kaggle_nerve.data.cache import open_training
from kaggle_nerve.data.frames import locate
from kaggle_nerve.data.tiff import read_grey
from kaggle_nerve.errors import NerveError


def found_in(root, least=LEAST):
    """The twins of a data directory as (name, name), and the table."""
    cache = open_training(locate(root), module.SIZE)
    table = twins(cache, least)
    names = [path.stem for path in cache.table.path]
    return [(names[row], names[other]) for row, other in zip(table.row, table.other, strict=True)], table


def by_brute_force(root):
    """Correlations of all pairs of frames at full size."""
    paths = (root / "train").glob("*_*.tif")
    names = sorted(path.stem for path in paths if not path.stem.endswith("_mask"))
    correlations = np.corrcoef([read_grey(root / "train" / f"{name}.tif").ravel() for name in names])
    every = combinations(range(len(names)), 2)
    return {frozenset((names[row], names[other])): correlations[row, other] for row, other in every}


def equals_brute_force(root, every, least=LEAST):
    """The found pairs, once they are the ones of ``every`` pair that correlate by ``least``."""
    pairs, table = found_in(root, least)
    assert set(map(frozenset, pairs)) == {pair for pair, value in every.items() if value >= least}
    assert table.correlation.to_numpy() == pytest.approx([every[frozenset(pair)] for pair in pairs], abs=1e-5)
    return pairs


def test_candidates_equal_all_pairs_whatever_the_blocks(monkeypatch):
    random = np.random.default_rng(0)
    bases = random.integers(0, 200, (5, 6, 11))
    frames = [base + random.integers(0, most, base.shape) for base in bases for most in (1, 30, 50, 55)]
    frames = np.array(frames, np.uint8)[random.permutation(20)]
    correlations = np.corrcoef(frames.reshape(20, -1))
    expected = [list(pair) for pair in combinations(range(20), 2) if correlations[pair] >= 0.95]
    assert 5 < len(expected) < 30
    for block in (1, 3, 7, 20, 512):
        monkeypatch.setattr(module, "BLOCK", block)
        assert candidates(frames, 0.95).tolist() == expected


def test_likeness_by_hand():
    first = np.array([[0, 10, 20], [30, 40, 50]], np.uint8)
    assert likeness(first, first) == (1.0, 0.0)
    assert likeness(first, first + 7) == pytest.approx((1.0, 7.0))
    assert likeness(first, 50 - first) == pytest.approx((-1.0, 30.0))
    even = np.full((2, 3), 9, np.uint8)
    assert likeness(even, even) == (1.0, 0.0)
    assert likeness(even, first)[0] == likeness(even, even + 1)[0] == 0
    other = np.array([[200, 3, 20], [0, 255, 1]], np.uint8)
    correlation, difference = likeness(first, other)
    assert correlation == pytest.approx(np.corrcoef(first.ravel(), other.ravel())[0, 1])
    assert difference == abs(first.astype(int) - other).mean()


def test_pairs_within_and_across_subjects(tmp_path):
    black = np.zeros(SIZE, np.uint8)
    frames = {
        (1, 1): tissue(1),
        (1, 2): tissue(2),
        (1, 10): tissue(1, noise=20),
        (2, 1): tissue(3),
        (2, 2): tissue(1),  # of another subject, equal in every pixel
        (3, 1): black,
        (3, 2): black,
        (3, 3): black + 4,
    }
    write_frames(tmp_path, {name: (frame, None) for name, frame in frames.items()})
    pairs, table = found_in(tmp_path)
    assert pairs[:2] == [("1_1", "2_2"), ("3_1", "3_2")]
    assert set(pairs[2:]) == {("1_1", "1_10"), ("1_10", "2_2")}
    assert table.correlation[:2].tolist() == [1, 1]
    assert table.difference[:2].tolist() == [0, 0]
    assert table.difference[2] == pytest.approx(10, abs=0.1)
    assert (table.row < table.other).all()


def test_the_found_are_those_of_brute_force_over_all_pairs(tmp_path):
    frames = {
        (1 + seed % 2, 1 + 4 * seed + place): (tissue(seed, noise), None)
        for seed in range(3)
        for place, noise in enumerate((0, 40, 80, 120))
    }
    write_frames(tmp_path, frames)
    every = by_brute_force(tmp_path)
    counts = [len(equals_brute_force(tmp_path, every, least)) for least in (0.8, 0.9, 0.95, 0.999)]
    assert 18 >= counts[0] > counts[1] > counts[2] > counts[3] == 0


def test_one_frame_has_no_twin(tmp_path):
    write_frames(tmp_path, {(1, 1): (tissue(1), None)})
    pairs, table = found_in(tmp_path)
    assert pairs == []
    assert list(table.columns) == ["row", "other", "correlation", "difference"]


def test_a_frame_that_was_damaged_since_is_named(tmp_path):
    write_frames(tmp_path, {(1, 1): (tissue(1), None), (1, 2): (tissue(1), None)})
    cache = open_training(locate(tmp_path), module.SIZE)
    (tmp_path / "train" / "1_2.tif").write_bytes(b"II*\0")
    with pytest.raises(NerveError, match=r"1_2\.tif is truncated or damaged; delete it and run"):
        twins(cache)


def test_a_frame_is_read_once_though_it_has_many_twins(tmp_path, monkeypatch):
    write_frames(tmp_path, {(1, img): (tissue(1, noise=img), None) for img in range(1, 7)})
    cache = open_training(locate(tmp_path), module.SIZE)
    read = []
    monkeypatch.setattr(module, "read_grey", lambda path: read.append(path) or read_grey(path))
    assert len(twins(cache, workers=1)) == 15
    assert len(read) == 6


@pytest.mark.shared_data
def test_on_real_frames_the_found_are_those_of_brute_force(shared_data, tmp_path):
    root = tmp_path / "data"
    root.mkdir()
    (root / "train").symlink_to(shared_data / "original" / "train")
    frames = pd.DataFrame({"subject": 1, "img": range(1, 51), "pixels": ""})
    frames.to_csv(root / "train_masks.csv", index=False)
    every = by_brute_force(root)
    found = equals_brute_force(root, every)
    assert len(found) == 13
    assert found[0] == ("1_9", "1_14")
    # The small copies correlate more, in every pair: so none is lost among the candidates.
    cache = open_training(locate(root), module.SIZE)
    small = np.corrcoef(cache.frames.reshape(50, -1))
    names = [path.stem for path in cache.table.path]
    gains = [small[a, b] - every[frozenset((names[a], names[b]))] for a, b in combinations(range(50), 2)]
    assert 0 < min(gains) < max(gains) < 0.09
