import os

import numpy as np
import pytest

from kaggle_nerve.arrays import GrowingArrays
from kaggle_nerve.errors import NerveError
from kaggle_nerve.storage import (
    atomic_path,
    mark_complete,
    read_completion,
    read_json,
    write_json,
    write_text,
)


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "sub" / "name.weights.h5"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        assert temporary.name.endswith(".weights.h5")
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [each.name for each in path.parent.iterdir()] == ["name.weights.h5"]


def test_a_written_file_has_the_rights_that_the_umask_gives(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "file", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_damaged_json_is_named(tmp_path):
    (tmp_path / "a.json").write_text('{"x": ')
    with pytest.raises(NerveError, match=r"a\.json is not readable JSON"):
        read_json(tmp_path / "a.json")


def test_nan_is_never_written(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"x": float("nan")})
    assert not list(tmp_path.iterdir())


def test_completion(tmp_path):
    assert read_completion(tmp_path) is None
    mark_complete(tmp_path, {"key": "a"})
    assert read_completion(tmp_path) == {"key": "a"}


SHAPES = {"first": ((5, 2), np.uint8), "second": ((5,), np.float32)}


def test_arrays_go_on_where_they_stopped(tmp_path):
    growing = GrowingArrays(tmp_path, SHAPES, "key")
    growing.write(0, {"first": np.full((3, 2), 7)})
    growing.note(3)
    again = GrowingArrays(tmp_path, SHAPES, "key")
    assert again.done == 3
    assert again.read("first")[:3].tolist() == [[7, 7]] * 3
    again.note(5)
    again.finish()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["first.npy", "second.npy"]
    assert np.load(tmp_path / "first.npy")[0].tolist() == [7, 7]


def test_arrays_of_another_key_start_anew(tmp_path):
    growing = GrowingArrays(tmp_path, SHAPES, "key")
    growing.write(0, {"first": np.full((5, 2), 7)})
    growing.note(3)
    other = GrowingArrays(tmp_path, SHAPES, "other")
    assert other.done == 0
    assert not other.read("first").any()


def test_a_kill_while_arrays_get_their_names_loses_nothing(tmp_path):
    growing = GrowingArrays(tmp_path, SHAPES, "key")
    growing.write(0, {"second": np.full(5, 3)})
    growing.note(5)
    (tmp_path / "first.partial.npy").replace(tmp_path / "first.npy")
    again = GrowingArrays(tmp_path, SHAPES, "key")
    assert again.done == 5
    again.finish()
    assert np.load(tmp_path / "second.npy").tolist() == [3] * 5


def test_a_row_count_without_its_arrays_is_not_believed(tmp_path):
    growing = GrowingArrays(tmp_path, SHAPES, "key")
    growing.note(4)
    (tmp_path / "second.partial.npy").unlink()
    assert GrowingArrays(tmp_path, SHAPES, "key").done == 0


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '"x"', "\udcff"])
def test_a_damaged_record_is_named_with_what_its_loss_costs(tmp_path, text):
    path = tmp_path / "complete.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(
        NerveError, match=r"complete\.json is not readable JSON .*; restore it from a copy, or delete it"
    ):
        read_completion(tmp_path)
