"""The phantom: the real format to the byte, the real set's facts, the same bytes for the same seed."""

import struct
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from kaggle_nerve import phantom
from kaggle_nerve.competition import facts, rle
from kaggle_nerve.errors import NerveError
from kaggle_nerve.phantom import plan, subject
from kaggle_nerve.progress import Bar, Reporter
from kaggle_nerve.storage import read_json

SIZES = {"subjects": 5, "frames": 16, "test_subjects": 2, "test_frames": 12}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, pd.DataFrame]:
    out = tmp_path_factory.mktemp("phantom") / "competition"
    return out, phantom.write_competition(out, **SIZES, seed=3)


@pytest.fixture(scope="module")
def masks(made) -> dict[str, np.ndarray]:
    folder = made[0] / "train"
    return {path.name: read(path) for path in sorted(folder.glob("*_mask.tif"))}


def read(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def tiff_tags(path: Path) -> dict[int, int]:
    """The values of the first directory's short and long tags."""
    data = path.read_bytes()
    assert data[:4] == b"II*\0"
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    tags = {}
    for entry in range(count):
        tag, kind, _ = struct.unpack_from("<HHI", data, start + 2 + 12 * entry)
        tags[tag] = struct.unpack_from("<H" if kind == 3 else "<I", data, start + 10 + 12 * entry)[0]
    return tags


def all_bytes(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_files_are_named_and_numbered_as_kaggles(made):
    out, _ = made
    names = {path.name for path in (out / "train").iterdir()}
    numbers = [(s, f) for s in range(1, 6) for f in range(1, 17)]
    assert names == {f"{s}_{f}{end}" for s, f in numbers for end in (".tif", "_mask.tif")}
    assert {path.name for path in (out / "test").iterdir()} == {f"{n}.tif" for n in range(1, 25)}
    assert {path.name for path in out.iterdir()} == {
        "train",
        "test",
        facts.TRAIN_CSV,
        facts.SAMPLE_CSV,
        "README.txt",
        phantom.MARKER,
    }


def test_tiffs_are_grey_bytes_compressed_with_lzw(made):
    for path in [
        made[0] / "train" / "1_1.tif",
        made[0] / "train" / "5_16_mask.tif",
        made[0] / "test" / "24.tif",
    ]:
        tags = tiff_tags(path)
        assert (tags[256], tags[257], tags[258], tags[259]) == (580, 420, 8, 5)
        image = read(path)
        assert image.shape == facts.SIZE
        assert image.dtype == np.uint8


def test_tables_have_kaggles_headers_order_and_line_ends(made):
    out, solution = made
    train = (out / facts.TRAIN_CSV).read_bytes().decode()
    assert train.startswith("subject,img,pixels\n1,1,")
    assert "\r" not in train and '"' not in train and train.endswith("\n")
    table = pd.read_csv(out / facts.TRAIN_CSV)
    assert table[["subject", "img"]].values.tolist() == [[s, f] for s in range(1, 6) for f in range(1, 17)]
    sample = (out / facts.SAMPLE_CSV).read_text().splitlines()
    assert sample == ["img,pixels"] + [f"{n},1 1" for n in range(1, 25)]
    assert list(solution.columns) == ["img", "pixels"]
    assert solution.img.tolist() == list(range(1, 25))
    assert solution.pixels.map(type).eq(str).all()


def test_run_lengths_decode_to_the_mask_files(made, masks):
    table = pd.read_csv(made[0] / facts.TRAIN_CSV, dtype=str, keep_default_na=False)
    for row in table.itertuples():
        mask = masks[f"{row.subject}_{row.img}_mask.tif"]
        assert set(np.unique(mask)) <= {0, 255}
        assert np.array_equal(rle.decode(row.pixels) > 0, mask > 0)
        assert (row.pixels == "") == (not mask.any())


def test_masks_are_like_the_real_ones(made, masks):
    hidden = [rle.decode(text).astype(np.uint8) * 255 for text in made[1].pixels if text]
    outlines = [mask for mask in masks.values() if mask.any()] + hidden
    for mask in outlines:
        contours, hierarchy = cv2.findContours(mask, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        assert len(contours) == 1, "one component without holes"
        assert hierarchy.shape[1] == 1
        assert facts.SMALLEST_MASK <= np.count_nonzero(mask) <= 17_500
        assert not (mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())
        y, x = (axis.mean() for axis in np.nonzero(mask))
        assert 80 < y < 260 and 220 < x < 440
    areas = [np.count_nonzero(mask) for mask in outlines]
    assert 4500 < np.median(areas) < 10_000


def test_frames_look_like_ultrasound_by_their_figures(made):
    frames = np.stack([read(path) for path in sorted((made[0] / "test").iterdir())]).astype(np.float32)
    assert 70 < frames.mean() < 130
    assert 40 < frames.std() < 70
    flat = frames - frames.mean(axis=(1, 2), keepdims=True)
    down = (flat[:, 8:] * flat[:, :-8]).mean() / flat.var()
    across = (flat[:, :, 8:] * flat[:, :, :-8]).mean() / flat.var()
    assert across > down + 0.2, "tissue lies in layers"


def test_empty_share_of_either_split_is_the_real_one(made, masks):
    assert sum(not mask.any() for mask in masks.values()) == round(80 * subject.EMPTY_SHARE)
    assert (made[1].pixels == "").sum() == round(24 * subject.EMPTY_SHARE)


@pytest.mark.parametrize("subjects", [1, 2, 12, 47])
def test_subjects_differ_while_the_share_of_the_set_holds(subjects):
    for seed in range(20):
        counts = subject.positive_counts(np.random.default_rng(seed), subjects, 120)
        assert counts.sum() == round(subjects * 120 * (1 - subject.EMPTY_SHARE))
        assert counts.min() >= 2 and counts.max() <= 109
    if subjects == 47:
        assert 0.15 < (counts / 120).std() < 0.3


def test_contradictory_twins_exist_and_are_few(made):
    folder = made[0] / "train"
    stems = [f"{s}_{f}" for s in range(1, 6) for f in range(1, 17)]
    thumbs = np.stack([cv2.resize(read(folder / f"{stem}.tif"), (32, 24)) for stem in stems]).astype(
        np.float32
    )
    gaps = np.abs(thumbs[:, np.newaxis] - thumbs[np.newaxis]).mean(axis=(2, 3))
    pairs = np.argwhere(np.triu(gaps < 1.5, k=1))
    assert len(pairs) == 1
    one, other = (stems[place] for place in pairs[0])
    first, second = read(folder / f"{one}.tif"), read(folder / f"{other}.tif")
    assert 0 < np.abs(first.astype(int) - second).mean() < 2
    assert sorted(read(folder / f"{stem}_mask.tif").any() for stem in (one, other)) == [False, True]


def test_twins_are_three_percent_of_a_large_set():
    shots = plan.plan_train(0, subjects=20, frames=100)
    twins = [shot for shot in shots if shot.twin]
    assert len(twins) == 30
    by_seed = {shot.seed: shot for shot in shots if not shot.twin}
    for twin in twins:
        assert twin.nerve and not twin.labelled
        assert by_seed[twin.seed].labelled and by_seed[twin.seed].subject == twin.subject


def test_no_subject_is_in_both_splits_and_test_frames_are_mixed():
    train = plan.plan_train(7, subjects=5, frames=16)
    test = plan.plan_test(7, first=6, subjects=3, frames=16)
    assert not {shot.subject for shot in train} & {shot.subject for shot in test}
    order = [shot.subject for shot in test]
    assert order != sorted(order)
    assert [shot.img for shot in test] == list(range(1, 49))
    assert len({shot.seed for shot in train + test if not shot.twin}) == sum(not s.twin for s in train + test)


def test_same_seed_gives_the_same_bytes_whatever_the_workers(tmp_path):
    sizes = {"subjects": 2, "frames": 4, "test_subjects": 1, "test_frames": 3}
    one = phantom.write_competition(tmp_path / "one", **sizes, seed=5, workers=1)
    three = phantom.write_competition(tmp_path / "three", **sizes, seed=5, workers=3)
    phantom.write_competition(tmp_path / "other", **sizes, seed=6)
    assert all_bytes(tmp_path / "one") == all_bytes(tmp_path / "three")
    pd.testing.assert_frame_equal(one, three)
    frame = Path("train", "1_1.tif")
    assert (tmp_path / "one" / frame).read_bytes() != (tmp_path / "other" / frame).read_bytes()


def test_unfinished_phantom_is_written_again_to_the_same_bytes(tmp_path):
    sizes = {"subjects": 1, "frames": 2, "test_subjects": 1}
    phantom.write_competition(tmp_path, **sizes)
    whole = all_bytes(tmp_path)
    (tmp_path / "train" / "1_2.tif").write_bytes(b"II*\0 cut off")
    (tmp_path / facts.TRAIN_CSV).unlink()
    phantom.write_competition(tmp_path, **sizes)
    assert all_bytes(tmp_path) == whole


def test_smallest_set_works_and_counts_its_frames(tmp_path):
    class Counted(Bar, Reporter):
        steps, total = 0, None

        def bar(self, label, total, unit="frame"):
            self.total = total
            return self

        def update(self, steps=1):
            self.steps += steps

    counted = Counted()
    solution = phantom.write_competition(tmp_path, subjects=1, frames=2, test_subjects=1, reporter=counted)
    assert counted.steps == counted.total == 4
    assert len(solution) == 2
    assert (solution.pixels == "").sum() == 1


def test_it_says_that_it_is_synthetic(made, tmp_path):
    out, _ = made
    assert phantom.is_synthetic(out)
    assert not phantom.is_synthetic(tmp_path)
    assert "SYNTHETIC" in (out / "README.txt").read_text()
    assert read_json(out / phantom.MARKER)["complete"] is True


@pytest.mark.parametrize(
    "wrong",
    [
        {"subjects": 0},
        {"frames": -1},
        {"test_subjects": 0},
        {"test_frames": 0},
        {"workers": 0},
        {"seed": -1},
        {"frames": 2.5},
        {"seed": "7"},
    ],
)
def test_bad_arguments_are_refused_by_name(tmp_path, wrong):
    with pytest.raises(NerveError, match=next(iter(wrong))):
        phantom.write_competition(tmp_path / "out", **wrong)
    assert not (tmp_path / "out").exists()


def test_foreign_files_are_left_alone(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(NerveError, match="empty directory"):
        phantom.write_competition(tmp_path, subjects=1, frames=2, test_subjects=1)
    assert [path.name for path in tmp_path.iterdir()] == ["train"]


def test_another_phantom_is_left_alone(made):
    with pytest.raises(NerveError, match="empty directory"):
        phantom.write_competition(made[0], **SIZES, seed=4)


def test_a_path_that_cannot_be_a_directory_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NerveError, match="cannot be written"):
        phantom.write_competition(tmp_path / "file", subjects=1, frames=2, test_subjects=1)


def test_sheet_is_a_small_picture(tmp_path):
    from kaggle_nerve.phantom.sheet import draw_sheet

    draw_sheet(tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size < 400_000
    assert read(tmp_path / "sheet.png").shape[2] == 3
