"""The table of doubted labels, and what is made of it."""

import numpy as np
import pandas as pd
import pytest

from kaggle_nerve.data.doubted import marks, read
from kaggle_nerve.errors import NerveError
from kaggle_nerve.settings import TrainingSettings

FRAMES = pd.DataFrame({"subject": [1, 1, 2, 10], "img": [1, 2, 1, 1], "has_mask": [True, False, True, False]})
HEADER = "subject,img,weight,presence\n"


@pytest.fixture
def table(tmp_path):
    def write(text: str):
        path = tmp_path / "doubted.csv"
        path.write_bytes(text.encode())
        return path

    return write


def test_marked_frames_get_their_values_and_others_keep_their_own(table):
    weights, presence = read(table(HEADER + "10,1,0.25,0.5\n1,1,0,0.75\n"), FRAMES)
    assert weights.dtype == presence.dtype == np.float32
    assert weights.tolist() == [0, 1, 1, 0.25]
    assert presence.tolist() == [0.75, 0, 1, 0.5]


def test_the_frames_table_stays_as_it_was(table):
    before = FRAMES.copy()
    read(table(HEADER + "1,1,0,0.75\n"), FRAMES)
    pd.testing.assert_frame_equal(FRAMES, before)


def test_other_columns_another_order_and_blank_lines_are_understood(table):
    text = '\ufeffimg,note,presence,weight,subject\r\n\r\n1,"near 1_2, perhaps",1,0.5,2\r\n'
    weights, presence = read(table(text), FRAMES)
    assert weights.tolist() == [1, 1, 0.5, 1]
    assert presence.tolist() == [1, 0, 1, 0]


def test_a_table_without_rows_marks_nothing(table):
    weights, presence = read(table(HEADER), FRAMES)
    assert weights.tolist() == [1, 1, 1, 1]
    assert presence.tolist() == [1, 0, 1, 0]


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ("1,1,1,1\n3,1,1,1\n", "line 3: '3_1' is no training frame; run `kaggle-nerve audit` again."),
        ("a,1,1,1\n", "line 2: 'a_1' is no training frame; run `kaggle-nerve audit` again."),
        ("1\n", "line 2: '1_' is no training frame; run `kaggle-nerve audit` again."),
        (
            "1,2,1,1\n1,1,1,1\n1,2,0,0\n",
            "line 4: frame 1_2 stands in line 2 already; keep one of the two.",
        ),
        ("1,2,1.01,1\n", "line 2: weight of frame 1_2 is '1.01'; write a number from 0 to 1."),
        ("1,2,-0.1,1\n", "line 2: weight of frame 1_2 is '-0.1'; write a number from 0 to 1."),
        ("1,2,1,nan\n", "line 2: presence of frame 1_2 is 'nan'; write a number from 0 to 1."),
        ("1,2,1\n", "line 2: presence of frame 1_2 is ''; write a number from 0 to 1."),
    ],
)
def test_a_fault_is_told_with_its_line(table, rows, told):
    path = table(HEADER + rows)
    with pytest.raises(NerveError) as fault:
        read(path, FRAMES)
    assert str(fault.value) == f"{path}, {told}"


def test_a_file_that_is_no_such_table_is_told(table, tmp_path):
    with pytest.raises(NerveError, match=r"no file .*none\.csv; write it with `kaggle-nerve audit`"):
        read(tmp_path / "none.csv", FRAMES)
    with pytest.raises(NerveError, match=r"doubted\.csv, line 1: there is no column presence"):
        read(table("subject,img,weight\n1,1,1\n"), FRAMES)
    with pytest.raises(NerveError, match=r"doubted\.csv: the file is empty"):
        read(table(""), FRAMES)


def test_settings_choose_what_becomes_of_the_marks(table):
    path = str(table(HEADER + "2,1,0.25,0.5\n"))
    assert marks(TrainingSettings(noise_table=path), FRAMES) is None
    weighted = marks(TrainingSettings(noise="weight", noise_table=path), FRAMES)
    assert weighted.presence is None
    assert weighted.weights.tolist() == [1, 1, 0.25, 1]
    soft = marks(TrainingSettings(noise="soft", noise_table=path), FRAMES)
    assert soft.weights is None
    assert soft.presence.tolist() == [1, 0, 0.5, 0]
    with pytest.raises(
        NerveError, match=r"^training\.noise=soft needs the table .* in training\.noise_table\.$"
    ):
        marks(TrainingSettings(noise="soft"), FRAMES)
