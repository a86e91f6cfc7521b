"""Submission files: what is written, what is read, and every fault that the check must find."""

import gzip
import io
import time
import zipfile

import numpy as np
import pytest

from kaggle_nerve.competition import rle, submission
from kaggle_nerve.errors import NerveError

GOOD = "img,pixels\n1,\n2,1 1 5 2\n3,\n"


@pytest.fixture
def sample(tmp_path):
    path = tmp_path / "sample_submission.csv"
    path.write_text("img,pixels\n1,1 1\n2,1 1\n3,1 1\n")
    return path


@pytest.fixture
def checked(tmp_path, sample):
    """Check some bytes or text against the three-frame sample: (line, message) of each fault."""

    def check(content, against=sample):
        path = tmp_path / "submission.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return submission.check(path, against)

    return check


def test_writes_the_one_form_in_rising_order(tmp_path):
    path = tmp_path / "new" / "submission.csv"
    submission.write(path, ((img, text) for img, text in [(10, ""), (np.int64(2), "1 1 5 2"), (1, "")]))
    assert path.read_bytes() == b"img,pixels\n1,\n2,1 1 5 2\n10,\n"
    assert [entry.name for entry in path.parent.iterdir()] == ["submission.csv"]


def test_what_is_written_passes_the_check_and_reads_back(tmp_path, sample):
    path = tmp_path / "submission.csv"
    submission.write(path, [(1, ""), (2, "1 1 5 2"), (3, "")])
    report = submission.check(path, sample)
    assert report.faults == ()
    assert (report.rows, report.non_empty, report.pixels) == (3, 1, 3)
    report.raise_if_faulty()
    table = submission.read(path)
    assert table["img"].tolist() == [1, 2, 3]
    assert table["img"].dtype == np.int64
    assert table["pixels"].tolist() == ["", "1 1 5 2", ""]
    assert all(isinstance(text, str) for text in table["pixels"])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(1, ""), (1, "1 1")], "frame 1 .* twice"),
        ([(0, "")], "frames count from 1"),
        ([(4, "1 2 2 1")], "frame 4 .*overlaps"),
        ([(4, None)], "frame 4 .*expected run-length text"),
        ([], "there are no frames"),
    ],
)
def test_a_faulty_submission_is_not_written(tmp_path, rows, message):
    path = tmp_path / "submission.csv"
    path.write_text("the old one")
    with pytest.raises(NerveError, match=message):
        submission.write(path, rows)
    assert path.read_text() == "the old one"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failing_generator_leaves_nothing(tmp_path):
    def rows():
        yield 1, ""
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        submission.write(tmp_path / "submission.csv", rows())
    assert list(tmp_path.iterdir()) == []


FAULTS = {
    "header missing": ("1,\n2,\n3,\n", [(1, "header is missing")]),
    "header wrong": ("image,pixels\n1,\n2,\n3,\n", [(1, "header is 'image,pixels'")]),
    "header quoted": ('"img","pixels"\n1,\n2,\n3,\n', [(1, "the header is")]),
    "header with a space": ("img, pixels\n1,\n2,\n3,\n", [(1, "the header is")]),
    "unknown frame": (GOOD + "4,\n", [(5, "frame 4 is unknown")]),
    "missing frame": ("img,pixels\n1,\n3,\n", [(None, "frames are missing (1 in all): 2")]),
    "repeated frame": ("img,pixels\n1,\n2,\n2,\n3,\n", [(4, "frame 2 stands on line 3 already")]),
    "frame no number": (
        "img,pixels\n1,\n2.0,\n3,\n",
        [(3, "frame number is '2.0'"), (None, "frames are missing (1 in all): 2")],
    ),
    "frame with a zero before": ("img,pixels\n01,\n2,\n3,\n", [(2, "'01'"), (None, "missing")]),
    "odd count": ("img,pixels\n1,5\n2,\n3,\n", [(2, "odd count")]),
    "zero": ("img,pixels\n1,\n2,0 4\n3,\n", [(3, "start below 1")]),
    "negative": ("img,pixels\n1,\n2,4 -4\n3,\n", [(3, "length below 1")]),
    "unsorted": ("img,pixels\n1,\n2,9 1 4 1\n3,\n", [(3, "unsorted")]),
    "overlap": ("img,pixels\n1,\n2,4 4 7 1\n3,\n", [(3, "overlaps")]),
    "past the end": ("img,pixels\n1,\n2,\n3,243600 2\n", [(4, "past the end")]),
    "no number": ("img,pixels\n1,a b\n2,\n3,\n", [(2, "not a whole number")]),
    "stray space": ("img,pixels\n1, 1 1\n2,\n3,\n", [(2, "stray space")]),
    "NaN": ("img,pixels\n1,NaN\n2,nan\n3,\n", [(2, "an empty mask is nothing"), (3, "an empty mask")]),
    "trailing comma": ("img,pixels\n1,,\n2,\n3,\n", [(2, "3 columns")]),
    "trailing column": ("img,pixels\n1,1 1,0.5\n2,\n3,\n", [(2, "3 columns")]),
    "index column": (
        ",img,pixels\n0,1,\n1,2,\n2,3,\n",
        [
            (1, "the header is"),
            *((2, "3 columns"), (2, "'0'"), (2, "odd")),
            *((3, "3 columns"), (3, "odd"), (4, "3 columns"), (4, "odd")),
            (None, "missing (1 in all): 3"),
        ],
    ),
    "no comma": ("img,pixels\n1\n2,\n3,\n", [(2, "no comma")]),
    "quotes": ('img,pixels\n1,\n2,"1 1"\n3,""\n', [(3, "quotation marks"), (4, "quotation marks")]),
    "blank line": ("img,pixels\n1,\n\n2,\n3,\n", [(3, "blank")]),
    "blank line at the end": (GOOD + "\n", [(5, "blank")]),
    "byte-order mark": (b"\xef\xbb\xbf" + GOOD.encode(), [(1, "byte-order mark")]),
    "old Mac": (GOOD.replace("\n", "\r"), [(1, "CR (old Mac), 4 in all")]),
    "old Mac in part": ("img,pixels\r\n1,\r2,\r\n3,\r\n", [(2, "CR (old Mac), 1 in all")]),
    "empty": (b"", [(None, "the file is empty")]),
    "white space": (b" \n\n", [(None, "the file is empty")]),
    "header only": ("img,pixels\n", [(None, "no rows"), (None, "frames are missing (3 in all): 1-3")]),
    "gzip": (gzip.compress(GOOD.encode()), [(None, "gzip-compressed")]),
    "UTF-16": (GOOD.encode("utf-16"), [(None, "UTF-16")]),
    "not UTF-8": (b"img,pixels\n1,\n2,\xe9\n", [(3, "byte 17 of the file is not UTF-8 text")]),
    "binary": (b"img,pixels\n1,\0\n", [(2, "byte 14 of the file")]),
}


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_found_with_its_line(checked, name):
    content, expected = FAULTS[name]
    report = checked(content)
    found = [(fault.line, fault.message) for fault in report.faults]
    assert [line for line, _ in found] == [line for line, _ in expected], found
    for (_, message), (_, part) in zip(found, expected, strict=True):
        assert part in message
    with pytest.raises(NerveError, match="not a valid submission"):
        report.raise_if_faulty()


@pytest.mark.parametrize(
    ("content", "line", "part"),
    [
        (GOOD.replace("\n", "\r\n"), 1, "CRLF (Windows), 4 in all; Kaggle accepts them"),
        (GOOD.replace("1,\n", "1,\r\n"), 2, "CRLF (Windows), 1 in all"),
        (
            "img,pixels\n1,\n3,\n2,\n",
            4,
            "frame 2 stands after frame 3, 1 rows in all are out of the competition's order; Kaggle accepts any",
        ),
    ],
)
def test_what_kaggle_accepts_is_a_remark(checked, content, line, part):
    report = checked(content)
    assert report.faults == ()
    (remark,) = report.remarks
    assert remark.line == line
    assert part in remark.message
    assert report.as_dict()["remarks"] == [{"line": line, "message": remark.message}]


def test_a_zip_given_by_mistake(checked):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("submission.csv", GOOD)
    assert [str(fault) for fault in checked(packed.getvalue()).faults] == [
        "the file is a zip archive; unpack it first"
    ]


def test_many_faults_are_all_told(checked):
    report = checked("img,pixels\n2,1\n2,NaN\n9,3 1 1 1\n1,\n")
    assert [str(fault).split(":")[0] for fault in report.faults] == [
        "line 2",  # odd count
        "line 3",  # NaN
        "line 3",  # repeated
        "line 4",  # unsorted
        "line 4",  # unknown
        "frames are missing (1 in all)",
    ]
    with pytest.raises(NerveError, match=r"line 2: .*odd count.*and 5 more"):
        report.raise_if_faulty()
    assert report.as_dict()["faults"][0]["line"] == 2


@pytest.mark.parametrize("content", [GOOD, GOOD.removesuffix("\n"), GOOD.replace("3,\n", "3,1 2 3 4\n")])
def test_good_files_have_no_fault(checked, content):
    assert checked(content).faults == ()


def test_the_sample_decides_frames_and_order(checked, tmp_path):
    other = tmp_path / "other.csv"
    other.write_text("img,pixels\n5,1 1\n3,1 1\n")
    assert checked("img,pixels\n5,\n3,\n", other).faults == ()
    (remark,) = checked("img,pixels\n3,\n5,\n", other).remarks
    assert (remark.line, "the competition's order" in remark.message) == (3, True)


def test_without_a_sample_frames_run_from_one_without_gaps(checked):
    assert checked(GOOD, None).faults == ()
    faults = checked("img,pixels\n2,\n3,\n7,\n999999999999,\n", None).faults
    assert [str(fault) for fault in faults] == [
        "frames are missing (999999999995 in all): 1, 4-6, 8-999999999998",
    ]
    assert "numerical order" in checked("img,pixels\n1,\n3,\n2,\n", None).remarks[0].message


def test_an_unusable_sample_or_path_is_an_error(tmp_path, checked):
    with pytest.raises(NerveError, match=r"cannot read .*nowhere\.csv"):
        submission.check(tmp_path / "nowhere.csv")
    with pytest.raises(NerveError, match="check the path"):
        submission.check(tmp_path)
    bad = tmp_path / "bad.csv"
    bad.write_text("img,pixels\n")
    with pytest.raises(NerveError, match="has no rows"):
        checked(GOOD, bad)
    bad.write_text("something,else\n1,\n")
    with pytest.raises(NerveError, match="header"):
        checked(GOOD, bad)


def test_reading_forgives_what_does_not_change_the_meaning(tmp_path):
    path = tmp_path / "theirs.csv"
    path.write_bytes(b'\xef\xbb\xbf"img","pixels"\r\n2,"1 1"\r\n1,""\r\n\r\n')
    table = submission.read(path)
    assert table["img"].tolist() == [2, 1]
    assert table["pixels"].tolist() == ["1 1", ""]


def test_reading_keeps_the_word_nan_as_text(tmp_path):
    path = tmp_path / "theirs.csv"
    path.write_text("img,pixels\n1,NaN\n")
    assert submission.read(path)["pixels"].tolist() == ["NaN"]


def test_reading_a_solution(tmp_path):
    path = tmp_path / "solution.csv"
    path.write_text("img,pixels,Usage\n1,,Public\n2,1 1,Private\n")
    table = submission.read_solution(path)
    assert list(table) == ["img", "pixels", "Usage"]
    assert table["Usage"].tolist() == ["Public", "Private"]
    with pytest.raises(NerveError, match="header"):
        submission.read(path)
    path.write_text(GOOD)
    assert list(submission.read_solution(path)) == ["img", "pixels"]


def test_a_solution_may_have_further_columns_in_any_order(tmp_path):
    path = tmp_path / "solution.csv"
    path.write_text("subject,img,Usage,pixels\n7,2,Private,1 1\n7,1,Public,\n")
    table = submission.read_solution(path)
    assert table.img.tolist() == [2, 1]
    assert table.pixels.tolist() == ["1 1", ""]
    assert table.subject.tolist() == ["7", "7"]
    for header in ("subject,img,Usage", "img,pixels,img"):
        path.write_text(f"{header}\n1,,Public\n")
        with pytest.raises(NerveError, match=r"it must be img,pixels, with other columns beside these two"):
            submission.read_solution(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (gzip.compress(b"img,pixels\n"), "gzip"),
        (b"img,pixels\n1,\nx,\n", "line 3 is 'x,'"),
        (b"img,pixels\n1,,\n", "line 2 is '1,,'"),
    ],
    ids=["empty", "gzip", "no comma", "two commas"],
)
def test_what_is_no_table_is_not_read(tmp_path, content, message):
    path = tmp_path / "theirs.csv"
    path.write_bytes(content)
    with pytest.raises(NerveError, match=message):
        submission.read(path)


def test_a_full_submission_is_checked_quickly(tmp_path):
    rows, columns = np.ogrid[:420, :580]
    text = rle.encode((rows - 160) ** 2 / 45**2 + (columns - 330) ** 2 / 50**2 < 1)
    path = tmp_path / "submission.csv"
    submission.write(path, ((img, text if img % 5 < 2 else "") for img in range(1, 5509)))
    begun = time.perf_counter()
    report = submission.check(path, path)
    # About 0.1 s on a quiet machine; the limit only catches a change of kind.
    assert time.perf_counter() - begun < 5
    assert (report.rows, report.faults) == (5508, ())
    assert report.share == pytest.approx(0.4, abs=0.001)
    assert report.mean_area == rle.area(text)
