import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from processes import kill_when
from support import write_competition, write_tiff

from kaggle_nerve.competition import rle
from kaggle_nerve.competition.facts import SIZE
from kaggle_nerve.data import cache
from kaggle_nerve.data.frames import locate
from kaggle_nerve.data.tiff import read_grey
from kaggle_nerve.errors import NerveError
from kaggle_nerve.progress import Bar, Reporter

SMALL = (45, 62)


@pytest.fixture
def layout(tmp_path):
    write_competition(tmp_path, subjects=2, frames=4, test=3)
    return locate(tmp_path)


def test_rows_are_the_shrunken_frames_and_masks(layout):
    built = cache.open_training(layout, SMALL)
    assert (built.frames.shape, built.frames.dtype) == ((8, *SMALL), np.uint8)
    row = 4
    frame = read_grey(built.table.path[row])
    assert (built.frames[row] == cache.shrink(frame, SMALL)).all()
    mask = rle.decode(built.table.pixels[row]) * np.uint8(255)
    assert (built.masks[row] == cache.shrink(mask, SMALL)).all()
    # The share of a pixel that the mask covers is kept: area survives shrinking.
    assert built.masks[row].sum() / 255 / np.prod(SMALL) == pytest.approx(mask.mean() / 255, rel=0.01)
    assert not built.masks[1].any()


def test_test_frames_have_no_masks(layout):
    built = cache.open_test(layout, SMALL)
    assert built.masks is None
    assert len(built.frames) == 3


def test_the_same_data_elsewhere_has_the_same_source(layout, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "data"
    shutil.copytree(layout.root, elsewhere)
    moved, here = (cache.open_training(where, SMALL) for where in (locate(elsewhere), layout))
    assert moved.source == here.source
    assert cache.open_test(layout, SMALL).source != here.source


class Counting(Reporter):
    """Counts the frames that were read."""

    def __init__(self):
        self.updates: list[int] = []

    def bar(self, label, total, unit="frame"):
        outer = self

        class Counted(Bar):
            def update(self, steps=1):
                outer.updates.append(steps)

        return Counted()


def test_a_finished_cache_is_not_built_again(layout):
    first = cache.open_training(layout, SMALL)
    counting = Counting()
    second = cache.open_training(layout, SMALL, reporter=counting)
    assert counting.updates == []
    assert second.folder == first.folder


def test_other_sizes_and_changed_files_are_other_caches(layout):
    first = cache.open_training(layout, SMALL)
    assert cache.open_training(layout, (30, 40)).folder != first.folder
    write_tiff(layout.train / "1_1.tif", np.full(SIZE, 9, np.uint8))
    changed = cache.open_training(layout, SMALL)
    assert changed.folder != first.folder
    assert changed.frames[0].max() == 9


def test_a_damaged_frame_is_named_and_the_build_goes_on_once_it_is_mended(layout, monkeypatch):
    monkeypatch.setattr(cache, "CHUNK", 2)
    good = (layout.train / "2_1.tif").read_bytes()
    stamp = (layout.train / "2_1.tif").stat()
    (layout.train / "2_1.tif").write_bytes(b"\0" * len(good))
    os.utime(layout.train / "2_1.tif", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    with pytest.raises(NerveError, match=r"2_1\.tif is not a TIFF"):
        cache.open_training(layout, SMALL, workers=1)
    (layout.train / "2_1.tif").write_bytes(good)
    os.utime(layout.train / "2_1.tif", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    counting = Counting()
    built = cache.open_training(layout, SMALL, reporter=counting)
    assert counting.updates[0] == 4
    assert (built.frames[4] == cache.shrink(read_grey(layout.train / "2_1.tif"), SMALL)).all()


def test_two_builders_at_once_agree(layout):
    with ThreadPoolExecutor(2) as pool:
        built = list(pool.map(lambda _: cache.open_training(layout, SMALL), range(2)))
    assert (built[0].frames == built[1].frames).all()
    assert built[0].frames.any()


BUILD = """
import sys, time
from pathlib import Path
from kaggle_nerve.data import cache
from kaggle_nerve.data.frames import locate
cache.CHUNK = 1
plain, seen = cache.read_grey, []
def read(path):
    seen.append(path)
    if len(seen) == 4:
        time.sleep(60)  # it is killed here
    return plain(path)
cache.read_grey = read
cache.open_training(locate(Path(sys.argv[1])), (45, 62), workers=1)
"""


def test_kill_9_while_building_ends_as_if_nothing_had_happened(layout, tmp_path):
    kill_when([BUILD, str(tmp_path)], lambda: any(tmp_path.glob(".cache/*/partial.json")))
    counting = Counting()
    built = cache.open_training(layout, SMALL, reporter=counting)
    assert 0 < counting.updates[0] < 8
    expected = [cache.shrink(read_grey(path), SMALL) for path in built.table.path]
    assert (built.frames == np.array(expected)).all()


def test_where_no_cache_can_lie_beside_the_data_it_lies_in_the_home_folder(layout):
    (layout.root / ".cache").write_text("a file where the folder should be")
    built = cache.open_training(layout, SMALL)
    assert Path.home() in built.folder.parents
