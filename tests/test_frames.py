import cv2
import numpy as np
import pytest
from support import disc, write_competition, write_tiff

from kaggle_nerve.competition.facts import SIZE
from kaggle_nerve.data.frames import locate, read_train_csv, training_frames
from kaggle_nerve.data.frames import test_frames as numbered_frames
from kaggle_nerve.data.tiff import read_grey
from kaggle_nerve.data.verify import verify
from kaggle_nerve.errors import NerveError


@pytest.fixture
def root(tmp_path):
    write_competition(tmp_path, subjects=2, frames=4, test=11)
    return tmp_path


def test_the_table_says_what_the_files_hold(root):
    table = training_frames(locate(root))
    assert table[["subject", "img"]].to_numpy().tolist() == [[s, i] for s in (1, 2) for i in (1, 2, 3, 4)]
    assert table.has_mask.tolist() == [True, False] * 4
    area = int(disc((200, 200), 50).sum())
    assert table.area.tolist() == [area, 0] * 4
    assert all(path.is_file() for path in [*table.path, *table.mask_path])


def test_test_frames_are_in_the_order_of_numbers(root):
    assert numbered_frames(locate(root)).img.tolist() == list(range(1, 12))


def test_old_nested_unpackings_are_understood(root):
    for name in ("train", "test"):
        (root / name).rename(root / "moved")
        (root / name).mkdir()
        (root / "moved").rename(root / name / name)
    assert len(training_frames(locate(root))) == 8
    assert not verify(root).problems


def test_an_empty_folder_inside_hides_nothing(root):
    for name in ("train", "test"):
        (root / name / name).mkdir()
    assert len(training_frames(locate(root))) == 8
    assert len(numbered_frames(locate(root))) == 11


def test_a_faulty_row_is_named_with_its_line_and_frame(root):
    path = root / "train_masks.csv"
    lines = path.read_text().splitlines()
    assert lines[5].startswith("2,1,")
    path.write_text("\n".join([*lines[:5], lines[5] + " ", *lines[6:], ""]))
    for read in (lambda: read_train_csv(path), lambda: training_frames(locate(root))):
        with pytest.raises(
            NerveError, match=r"train_masks\.csv line 6, frame 2_1: .*stray space.*fetch it again"
        ):
            read()
    assert any("line 6, frame 2_1" in problem for problem in verify(root).problems)


def test_a_table_that_was_cut_off_is_not_trained_on(root):
    path = root / "train_masks.csv"
    path.write_text("\n".join([*path.read_text().splitlines()[:7], ""]))
    with pytest.raises(
        NerveError, match=r"no row for 2 of the frames .*the first is 2_3\.tif: it was cut off"
    ):
        training_frames(locate(root))


def test_a_missing_frame_is_named(root):
    (root / "train" / "2_3.tif").unlink()
    with pytest.raises(NerveError, match=r"lacks 1 of 8 frames.*2_3\.tif"):
        training_frames(locate(root))


def test_a_lost_test_frame_is_named_before_any_work(root):
    (root / "test" / "3.tif").rename(root / "test" / "99.tif")
    with pytest.raises(
        NerveError, match=r"test lacks 1 of 11 frames of sample_submission.csv, the first is 3\.tif"
    ):
        numbered_frames(locate(root))
    (root / "test" / "99.tif").rename(root / "test" / "3.tif")
    (root / "test" / "77.tif").write_bytes(b"")
    with pytest.raises(NerveError, match=r"no row for 1 of the frames in .*test, the first is 77\.tif"):
        numbered_frames(locate(root))


@pytest.mark.parametrize("ending", [".TIF", ".tiff"])
def test_other_endings_are_renamed_not_removed(root, ending):
    for path in [*(root / "train").iterdir(), *(root / "test").iterdir()]:
        path.rename(path.with_suffix(ending))
    for read in (training_frames, numbered_frames):
        with pytest.raises(
            NerveError, match=rf"files such as 1(_1)?\{ending}; rename them so that all end in \.tif"
        ):
            read(locate(root))
    problems = verify(root).problems
    assert [problem.split(" has ")[1] for problem in problems] == [
        f"16 files such as 1_1{ending}; rename them so that all end in .tif.",
        f"11 files such as 1{ending}; rename them so that all end in .tif.",
    ]


def test_a_missing_directory_says_what_to_do(tmp_path):
    with pytest.raises(NerveError, match="kaggle-nerve fetch"):
        locate(tmp_path / "nowhere")


def test_reading_gives_height_by_width(root):
    image = read_grey(root / "train" / "1_1.tif")
    assert (image.shape, image.dtype) == (SIZE, np.uint8)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_named(root, share):
    path = root / "train" / "1_1.tif"
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(NerveError, match=r"1_1\.tif is (truncated|not a TIFF)"):
        read_grey(path)


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros(SIZE, np.uint16), "16 bits"),
        (np.zeros((*SIZE, 3), np.uint8), "3 colour channels"),
        (np.zeros(SIZE[::-1], np.uint8), "420x580 pixels instead of 580x420"),
    ],
)
def test_a_file_of_another_kind_is_named(tmp_path, image, said):
    write_tiff(tmp_path / "x.tif", image)
    with pytest.raises(NerveError) as caught:
        read_grey(tmp_path / "x.tif")
    assert "x.tif" in str(caught.value)
    assert said in str(caught.value)


def test_a_png_under_a_tiff_name_is_named(tmp_path):
    cv2.imwrite(str(tmp_path / "x.png"), np.zeros(SIZE, np.uint8))
    (tmp_path / "x.png").rename(tmp_path / "x.tif")
    with pytest.raises(NerveError, match="not a TIFF"):
        read_grey(tmp_path / "x.tif")


def test_verify_finds_nothing_in_good_data(root):
    found = verify(root)
    assert found.problems == []
    assert (found.train_frames, found.train_masks, found.with_mask, found.subjects, found.test_frames) == (
        8,
        8,
        4,
        2,
        11,
    )
    assert not found.complete


def test_verify_names_every_problem(root):
    write_tiff(root / "train" / "1_2_mask.tif", disc((200, 300), 3) * 255)
    write_tiff(root / "train" / "2_2_mask.tif", disc((200, 300), 3) * 7)
    (root / "train" / "2_1_mask.tif").unlink()
    (root / "train" / "notes.txt").write_text("")
    for folder, name in (("train", ".DS_Store"), ("train", "._1_1.tif"), ("test", "Thumbs.db")):
        (root / folder / name).write_text("")  # left by systems: no problem
    (root / "test" / "11.tif").unlink()
    write_tiff(root / "test" / "12.tif", np.zeros(SIZE, np.uint8))
    (root / "test" / "4.tif").write_bytes(b"II*\0")
    problems = "\n".join(verify(root).problems)
    pixels = int(disc((200, 300), 3).sum())
    assert f"1_2_mask.tif differs from train_masks.csv in {pixels} pixels" in problems
    assert "2_2_mask.tif has the value 7" in problems
    assert "2_1_mask.tif is missing" in problems
    assert "notes.txt is not a name of the competition" in problems
    assert "11.tif is missing" in problems
    assert "12.tif has no row in sample_submission.csv" in problems
    assert "4.tif is truncated" in problems
    assert problems.count("\n") == 6


@pytest.mark.shared_data
def test_the_real_masks_equal_the_real_table(shared_data, tmp_path):
    import io
    import zipfile

    import pandas as pd

    (tmp_path / "train").symlink_to(shared_data / "original" / "train")
    (tmp_path / "test").symlink_to(shared_data / "original" / "test")
    with zipfile.ZipFile(shared_data / "surrogate.zip") as archive:
        table = pd.read_csv(io.BytesIO(archive.read("train_masks.csv")), keep_default_na=False)
    table[(table.subject == 1) & (table.img <= 50)].to_csv(tmp_path / "train_masks.csv", index=False)
    pd.DataFrame({"img": range(1, 26), "pixels": "1 1"}).to_csv(
        tmp_path / "sample_submission.csv", index=False
    )
    found = verify(tmp_path)
    assert found.problems == []
    assert (found.train_masks, found.with_mask, found.test_frames) == (50, 24, 25)
