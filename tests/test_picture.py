"""Anybody's pictures: read as grey frames, and drawn with outlines."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from support import disc

from kaggle_nerve.data.overlay import PREDICTED, TRUE, overlay, png
from kaggle_nerve.data.picture import read_picture
from kaggle_nerve.errors import NerveError

SIZE = (42, 58)
FRAME = np.random.default_rng(0).integers(0, 256, SIZE, np.uint8)
FRAME[0, :2] = 0, 255


def kinds() -> dict[str, np.ndarray]:
    """The same frame in many ways."""
    colour = cv2.cvtColor(FRAME, cv2.COLOR_GRAY2BGR)
    return {
        "grey": FRAME,
        "colour": colour,
        "transparent": np.dstack([colour, np.full(SIZE, 7, np.uint8)]),
        "sixteen": FRAME.astype(np.uint16) * 257,
        "twelve": np.round(FRAME * (4095 / 255)).astype(np.uint16),
        "eight of sixteen": FRAME.astype(np.uint16),
        "sixteen in colour": colour.astype(np.uint16) * 257,
    }


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("kind", kinds())
def test_depths_and_colours_give_the_same_frame(tmp_path, kind, suffix):
    path = tmp_path / f"frame.{suffix}"
    assert cv2.imwrite(str(path), kinds()[kind])
    np.testing.assert_array_equal(read_picture(path), FRAME)


@pytest.mark.parametrize(
    ("orientation", "turned"), [(1, FRAME), (3, FRAME[::-1, ::-1]), (6, np.rot90(FRAME, -1))]
)
def test_a_photo_that_says_how_it_was_taken_is_read_upright(tmp_path, orientation, turned):
    whole, exif = png(FRAME), b"MM\0*" + struct.pack(">IHHHIHxxI", 8, 1, 274, 3, 1, orientation, 0)
    chunk = struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif))
    header = 8 + 25  # the signature and IHDR
    path = write(tmp_path / "photo.png", whole[:header] + chunk + whole[header:])
    np.testing.assert_array_equal(read_picture(path), turned)


@pytest.mark.parametrize("kind", ["grey", "sixteen", "twelve"])
def test_a_tiff_in_which_0_is_white_is_inverted(tmp_path, kind):
    path = tmp_path / "frame.tif"
    assert cv2.imwrite(str(path), kinds()[kind])
    data = bytearray(path.read_bytes())
    order = {b"II": "<", b"MM": ">"}[bytes(data[:2])]
    (start,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, start)
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        if struct.unpack_from(f"{order}H", data, entry) == (262,):
            struct.pack_into(f"{order}H", data, entry + 8, 0)
    np.testing.assert_array_equal(read_picture(write(path, bytes(data))), 255 - FRAME)


def write(path, content):
    path.write_bytes(content)
    return path


def test_what_is_no_picture_is_named(tmp_path):
    whole = png(FRAME)
    (tmp_path / "folder").mkdir()
    cv2.imwrite(str(tmp_path / "float.tif"), FRAME.astype(np.float32))
    for path, told in (
        (tmp_path / "nowhere.png", "There is no file"),
        (tmp_path / "folder", "is a folder"),
        (write(tmp_path / "empty.png", b""), "is empty"),
        (write(tmp_path / "text.png", b"a,b\n1,2\n"), "is not a picture"),
        (write(tmp_path / "half.png", whole[: len(whole) // 4]), "is not a picture"),
        (write(tmp_path / "tiny.png", png(FRAME[:9])), r"is 58x9 pixels"),
        (tmp_path / "float.tif", "has pixels of type float32"),
    ):
        with pytest.raises(NerveError, match=f"{path.name}.*{told}|{told}.*{path.name}"):
            read_picture(path)


def rgb(colour):
    return [int(colour[start : start + 2], 16) for start in (1, 3, 5)]


def test_outlines_lie_on_the_rim_of_the_mask_and_nowhere_else():
    frame, mask = np.full((90, 120), 40, np.uint8), disc((45, 60), 20, (90, 120))
    found = overlay(frame, [(mask, TRUE), (np.roll(mask, 30, axis=1), PREDICTED)])
    assert found.shape == (90, 120, 3)
    np.testing.assert_allclose(found[45, 40], rgb(TRUE), atol=20)  # smoothed
    np.testing.assert_allclose(found[45, 110], rgb(PREDICTED), atol=20)
    assert (found[45, 60] == 40).all()
    assert (found[:20] == 40).all()
    assert (overlay(frame, [(mask * 0, TRUE)]) == 40).all()


@pytest.mark.parametrize("size", [(16, 16), (90, 120), (420, 580), (1700, 600)])
def test_a_caption_stands_below_the_frame(size):
    frame = np.full(size, 40, np.uint8)
    found = overlay(frame, [], "presence 0.84, mask of 10698 pixels at 580x420")
    assert (found[: size[0]] == 40).all()
    strip = found[size[0] :]
    assert strip.shape[1] == size[1]
    assert strip.max() > 60
    assert (strip[:, -1] == strip[0, 0]).all()  # nothing runs out of the picture


def test_a_png_holds_the_very_pixels():
    for picture in (FRAME, overlay(FRAME, [(disc((20, 30), 9, SIZE), TRUE)])):
        read = cv2.imdecode(np.frombuffer(png(picture), np.uint8), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(read if read.ndim == 2 else read[..., ::-1], picture)
