"""Remarks on submissions that Kaggle would score but that cannot be meant, through `validate`."""

import cv2
import numpy as np
import pytest
from cli_support import command

from kaggle_nerve.competition import plausibility, rle, submission
from kaggle_nerve.competition.facts import HEIGHT, TEST_FRAMES, WIDTH

FRAMES, MASKS = 200, 80


def ellipses(size: tuple[int, int] = (HEIGHT, WIDTH), grow: float = 1.0) -> list[np.ndarray]:
    """Masks like those of the competition: about 120 rows by 96 columns, at 420x580."""
    rng = np.random.default_rng(0)
    masks = []
    for _ in range(MASKS):
        row, column = rng.integers(120, 180), rng.integers(280, 380)
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        axes = int(46 * grow), int(58 * grow)
        cv2.ellipse(mask, (int(column), int(row)), axes, 20.0, 0, 360, 1, cv2.FILLED)
        masks.append(cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST))
    return masks


def remarks(tmp_path, texts: list[str], frames: int = FRAMES) -> list[str]:
    """Write the texts as the first frames, validate, and return the remarks that a user reads."""
    rows = [(img + 1, texts[img] if img < len(texts) else "") for img in range(frames)]
    path, sample = tmp_path / "x.csv", tmp_path / "sample.csv"
    path.write_text("img,pixels\n" + "".join(f"{img},{text}\n" for img, text in rows))
    submission.write(sample, [(img, "") for img, _ in rows])
    lines = command(tmp_path, "validate", path, "--sample", sample).stdout.splitlines()
    assert "is valid" in lines[0]
    return lines[1:]


def test_masks_like_the_competitions_get_no_remark(tmp_path):
    assert not remarks(tmp_path, [rle.encode(mask) for mask in ellipses()])


@pytest.mark.parametrize("swapped", [False, True], ids=["row-major", "height and width swapped"])
def test_runs_along_rows(tmp_path, swapped):
    masks = ellipses()
    if swapped:
        texts = [rle.encode(np.ascontiguousarray(mask.T)) for mask in masks]
    else:
        texts = []
        for mask in masks:
            edges = np.flatnonzero(np.diff(np.pad(mask.reshape(-1), 1)))
            texts.append(" ".join(f"{a + 1} {b - a}" for a, b in edges.reshape(-1, 2)))
    (line,) = remarks(tmp_path, texts)
    assert line.startswith("Remark: 80 of 80 masks look like runs along rows")
    assert "encode the transposed mask" in line


def test_masks_of_a_smaller_size(tmp_path):
    (line,) = remarks(tmp_path, [rle.encode(mask) for mask in ellipses((96, 96))])
    assert "in the first 17 of 580 columns, as if encoded at a smaller size; enlarge each mask" in line


def test_all_ones(tmp_path):
    first, second = remarks(tmp_path, [f"1 {HEIGHT * WIDTH}"] * FRAMES)
    assert first == "Remark: 100.0% of the frames have a mask; of the training frames 41.2% have one."
    assert second.startswith(
        "Remark: 200 of 200 masks are larger than the largest training mask, 17439 pixels"
    )


def test_small_masks_far_away_in_pieces_and_few(tmp_path):
    masks = ellipses(grow=0.5)[:60]
    moved = [np.roll(mask, 100, axis=0) for mask in masks]
    for mask in moved:
        mask[400:405, 10:20] = 1
    lines = remarks(tmp_path, [rle.encode(mask) for mask in moved], frames=400)
    assert [line.split(" ")[1] for line in lines] == ["15.0%", "60", "the", "60"]
    assert "smaller than the smallest training mask, 2684 pixels" in lines[1]
    assert "in more than one piece" in lines[3]


def test_a_few_rows_say_nothing():
    whole = rle.runs(f"1 {HEIGHT * WIDTH}")
    assert plausibility.remark([whole] * 49, rows=49) == []
    assert plausibility.remark([whole] * 50, rows=50)


def test_a_faulty_file_is_not_remarked_on(tmp_path):
    (tmp_path / "x.csv").write_text(
        "img,pixels\n" + "".join(f"{img},1 243600\n" for img in range(1, 100)) + "100,3\n"
    )
    report = submission.check(tmp_path / "x.csv")
    assert report.faults
    assert not report.remarks


def test_without_a_sample_the_competitions_own_frames_are_expected(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.csv"
    submission.write(path, [(img, "") for img in range(1, TEST_FRAMES)])
    assert "frames are missing (1 in all): 5508" in command(tmp_path, "validate", path, code=1).stdout
    submission.write(path, [(img, "") for img in range(1, TEST_FRAMES + 1)])
    told = command(tmp_path, "validate", path).stdout
    assert "checked against the competition's 5508 frames" in told
    assert "Remark: 0.0% of the frames have a mask" in told
