"""Submission files compared and merged: examples worked out by hand, and what must hold for any files.

The examples are on frames of 2 rows and 3 columns, whose pixels are numbered down the columns:

    1 3 5
    2 4 6
"""

import json
import tempfile
from hashlib import sha256
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from kaggle_nerve.cli import cli
from kaggle_nerve.competition import metric, rle, submission
from kaggle_nerve.errors import NerveError
from kaggle_nerve.maps import blending
from kaggle_nerve.progress import Bar, Reporter
from kaggle_nerve.submissions import merge as merging
from kaggle_nerve.submissions.compare import compare
from kaggle_nerve.submissions.merge import METHODS, merge

TINY = (2, 3)
SIZE = (3, 4)


def write(path: Path, *texts: str) -> Path:
    path.write_text(
        "".join(f"{line}\n" for line in ["img,pixels", *map("{},{}".format, range(1, 99), texts)])
    )
    return path


@pytest.fixture
def pair(tmp_path):
    """Two files of six frames, in turn: equal, partly equal, in one only, both empty, other one, nothing shared."""
    first = write(tmp_path / "first.csv", "1 4", "1 2", "3 1", "", "", "1 1")
    second = write(tmp_path / "second.csv", "1 4", "2 3", "", "", "5 2", "6 1")
    return first, second


def texts_of(path: Path) -> list[str]:
    return submission.read(path)["pixels"].tolist()


# === Compare ===


def test_a_comparison_by_hand(pair):
    found = compare(*pair, size=TINY)
    # Frame 2: pixels 1 2 against 2 3 4, so 2 * 1 / 5. All frames: (1 + 0.4 + 0 + 1 + 0 + 0) / 6.
    assert found.as_dict(worst=2) == {
        "frames": 6,
        "both_empty": 1,
        "both_present": 3,
        "only_first": 1,
        "only_second": 1,
        "presence_agreement": pytest.approx(4 / 6),
        "identical": 2,
        "dice": pytest.approx(2.4 / 6),
        "dice_where_both": pytest.approx(1.4 / 3),
        "first_share": pytest.approx(4 / 6),
        "second_share": pytest.approx(4 / 6),
        "differences": 4,
        "worst": [
            {"img": 3, "dice": 0.0, "first_area": 1, "second_area": 0},
            {"img": 5, "dice": 0.0, "first_area": 0, "second_area": 2},
        ],
    }
    assert [(one.img, one.dice) for one in found.differences] == [(3, 0), (5, 0), (6, 0), (2, 0.4)]


def test_of_equal_dice_the_lower_frame_comes_first(tmp_path):
    first = write(tmp_path / "first.csv", "1 3", "1 1", "1 1", "")
    second = write(tmp_path / "second.csv", "1 2", "6 1", "5 1", "2 2")
    assert [one.img for one in compare(first, second).differences] == [4, 2, 3, 1]


def test_where_nobody_sees_anything_there_is_no_dice_of_masks(tmp_path):
    path = write(tmp_path / "empty.csv", "", "")
    found = compare(path, path)
    assert (found.dice, found.dice_where_both, found.identical, found.differences) == (1.0, None, 2, ())


def test_the_same_mask_written_otherwise_differs_as_a_row_only(tmp_path):
    found = compare(write(tmp_path / "a.csv", "1 2 3 1"), write(tmp_path / "b.csv", "1 3"))
    assert (found.identical, found.dice, found.differences) == (0, 1.0, ())


# === Merge, by hand ===


def merged(tmp_path, method: str, *columns: tuple[str, ...], **options) -> list[str]:
    """The consensus of files given as their texts, frame by frame."""
    paths = [write(tmp_path / f"{index}.csv", *texts) for index, texts in enumerate(columns)]
    merge(paths, tmp_path / "out.csv", method, size=TINY, **options)
    return texts_of(tmp_path / "out.csv")


@pytest.mark.parametrize(
    ("texts", "by_presence", "by_pixels"),
    [
        pytest.param(("1 2", "2 2", "2 3"), "2 2", "2 2", id="majority: 2 and 3"),
        pytest.param(("", "", ""), "", "", id="all empty"),
        pytest.param(("1 6", "", ""), "", "", id="one of three"),
        # Among the two with a mask pixel 1 and 3 are tied; among all three only pixel 2 has two.
        pytest.param(("1 2", "2 2", ""), "1 3", "2 1", id="two of three"),
        pytest.param(("1 2", "5 1", ""), "1 2 5 1", "", id="agreed on the nerve, not on its place"),
        pytest.param(("1 2", "1 2", "", ""), "", "", id="a tie on presence"),
        pytest.param(("1 2", "2 2"), "1 3", "2 1", id="tied pixels"),
        pytest.param(("1 1", "2 1", "3 1"), "1 3", "", id="no pixel has half: all of them"),
        pytest.param(("1 2", "2 1", "3 1", "4 1", "5 1"), "1 5", "", id="two of five: all of them"),
        # Frame edge to frame edge: the run goes on from the foot of a column to the head of the next.
        pytest.param(("1 6", "1 6", "4 1"), "1 6", "1 6", id="the full frame"),
        pytest.param(("1 1 3 1", "1 1 3 1", "2 1"), "1 1 3 1", "1 1 3 1", id="a gap stays"),
        pytest.param(("1 1 2 2", "1 3", ""), "1 3", "1 3", id="touching runs are one"),
    ],
)
def test_a_vote_by_hand(tmp_path, texts, by_presence, by_pixels):
    columns = [(text,) for text in texts]
    assert merged(tmp_path, "presence", *columns) == [by_presence]
    assert merged(tmp_path, "pixels", *columns) == [by_pixels]


FOUR = ("1 2", "1 1"), ("1 2", "1 1"), ("3 1", ""), ("5 2", "")


def test_agreement_lets_those_that_agree_decide(tmp_path):
    # The first two always agree. The others agree on frame 2 only, so the leading eigenvector of
    #   1 1 0  0                         the matrix of mean Dice is (1, 1, 0, 0) / sqrt(2).
    #   1 1 0  0
    #   0 0 1 .5
    #   0 0 .5 1
    assert merged(tmp_path, "agreement", *FOUR) == ["1 2", "1 1"]
    assert merged(tmp_path, "presence", *FOUR) == ["1 2", ""]
    assert merged(tmp_path, "pixels", *FOUR) == ["", ""]


def test_what_merging_tells_by_hand(tmp_path):
    paths = [write(tmp_path / f"{index}.csv", *texts) for index, texts in enumerate(FOUR)]
    done = merge(paths, tmp_path / "out.csv", "presence", size=TINY)
    assert (done.frames, done.non_empty, done.disputed, done.ties) == (2, 1, 1, 1)
    assert [voter.path for voter in done.voters] == list(map(str, paths))
    assert [voter.share for voter in done.voters] == [1.0, 1.0, 0.5, 0.5]
    # The consensus is "1 2" and "": the first two have 1 and 0, the others 0 and 1.
    assert [voter.dice for voter in done.voters] == [0.5] * 4
    assert [voter.weight for voter in done.voters] == [0.25] * 4
    done = merge(paths, tmp_path / "out.csv", "agreement", size=TINY)
    high = 100 ** (1 / np.sqrt(2))
    expected = np.array([high, high, 1, 1]) / (2 * high + 2)
    assert [voter.weight for voter in done.voters] == pytest.approx(expected, abs=1e-6)
    assert done.as_dict()["voters"][0]["dice"] == 1.0
    json.dumps(done.as_dict())


def test_files_that_share_nothing_weigh_the_same():
    assert set(merging.weights_by_agreement(np.eye(3)).tolist()) == {333333}


def test_two_files_weigh_the_same_to_the_last_digit(tmp_path):
    # Else rounding would decide every tie.
    assert merged(tmp_path, "agreement", ("1 2", "1 1"), ("2 2", "")) == ["1 3", ""]


def test_weights_are_those_of_blending():
    maps = np.random.default_rng(0).random((5, 6, 7)) ** np.arange(1, 6)[:, None, None]
    weights = merging.weights_by_agreement(blending.pairwise_dice(maps))
    assert len(set(weights.tolist())) == 5
    assert weights / 1e6 == pytest.approx(blending.agreement_weights(maps), abs=1e-6)


# === Merge, for any files ===


def spelt(mask: np.ndarray, singly: bool) -> str:
    """A mask's text, as it should be or with each pixel a run of its own."""
    single = " ".join(f"{pixel + 1} 1" for pixel in np.flatnonzero(mask.T))
    return single if singly else rle.encode(mask)


masks = st.one_of(st.just(np.zeros(SIZE, bool)), arrays.arrays(bool, SIZE))
frame_texts = st.builds(spelt, masks, st.booleans())


@st.composite
def columns(draw):
    """Texts of some files, [file][frame]."""
    count, frames = draw(st.integers(2, 6)), draw(st.integers(1, 4))
    return [draw(st.lists(frame_texts, min_size=frames, max_size=frames)) for _ in range(count)]


def bytes_of_merge(folder: str, method: str, ordered: list[list[str]]) -> bytes:
    paths = [write(Path(folder) / f"{index}.csv", *texts) for index, texts in enumerate(ordered)]
    out = Path(folder) / "out.csv"
    merge(paths, out, method, sample=paths[0], size=SIZE)
    assert submission.check(out, paths[0]).faults == ()
    return out.read_bytes()


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=25)
@given(texts=st.lists(frame_texts, min_size=1, max_size=4), count=st.integers(2, 5))
def test_the_consensus_of_identical_files_is_the_file(method, texts, count):
    with tempfile.TemporaryDirectory() as folder:
        expected = write(Path(folder) / "expected.csv", *texts).read_bytes()
        assert bytes_of_merge(folder, method, [texts] * count) == expected


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=40)
@given(files=columns(), data=st.data())
def test_the_order_of_the_files_does_not_matter(method, files, data):
    with tempfile.TemporaryDirectory() as folder:
        shuffled = data.draw(st.permutations(files))
        assert bytes_of_merge(folder, method, files) == bytes_of_merge(folder, method, shuffled)


def test_nor_does_it_with_weights_that_rounding_would_upset(tmp_path):
    # Three pairs of files, each pair agreeing with itself alone: six equal weights, three eigenvectors.
    pairs = [("1 1", "1 1"), ("2 1", ""), ("3 1", "3 1")]
    answers = set()
    for order in ([0, 0, 1, 1, 2, 2], [2, 1, 0, 0, 1, 2], [1, 2, 1, 2, 0, 0]):
        answers.add(tuple(merged(tmp_path, "agreement", *(pairs[index] for index in order))))
    assert len(answers) == 1


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_nor_does_it_where_the_weights_themselves_depend_on_it(tmp_path, monkeypatch, order):
    monkeypatch.setattr(merging, "weights_by_agreement", lambda dice: np.arange(1, len(dice) + 1) ** 2)
    files = [("1 1",), ("2 1",), ("3 1",)]
    # The last by the digest of its content weighs more than the others, wherever it stands.
    last = max(files, key=lambda texts: sha256(f"img,pixels\n1,{texts[0]}\n".encode()).hexdigest())
    assert merged(tmp_path, "agreement", *(files[index] for index in order)) == list(last)


def reference(texts: list[str], weights: np.ndarray, by_presence: bool) -> np.ndarray:
    """The vote as the docstring of ``merge`` words it, on drawn masks."""
    drawn = np.stack([rle.decode(text, SIZE) for text in texts]).astype(bool)
    having = drawn.any(axis=(1, 2))
    votes = np.tensordot(weights, drawn, 1)
    if not by_presence:
        return votes > weights.sum() / 2
    if weights[having].sum() <= weights.sum() / 2:
        return np.zeros(SIZE, bool)
    kept = votes >= weights[having].sum() / 2
    return kept if kept.any() else drawn.any(axis=0)


@settings(max_examples=300)
@given(
    texts=st.lists(frame_texts, min_size=2, max_size=6),
    weights=st.lists(st.integers(1, 4), min_size=6, max_size=6),
    by_presence=st.booleans(),
)
def test_a_vote_on_runs_is_the_vote_on_pixels(texts, weights, by_presence):
    weights = np.array(weights[: len(texts)])
    text, dice = merging.consensus(texts, weights, by_presence=by_presence, size=SIZE)
    expected = reference(texts, weights, by_presence)
    assert np.array_equal(rle.decode(text, SIZE), expected)
    if len(set(texts)) > 1:
        assert text == rle.encode(expected)
    assert dice.tolist() == [metric.dice(rle.decode(one, SIZE), expected.astype(int)) for one in texts]


@settings(max_examples=100)
@given(files=columns())
def test_the_matrix_of_agreement_holds_what_comparing_each_pair_gives(files):
    found = merging.mean_pairwise_dice(zip(*files, strict=True), SIZE)
    assert np.array_equal(found, found.T)
    assert found.diagonal().tolist() == [1.0] * len(files)
    for a, b in combinations(range(len(files)), 2):
        frames = zip(files[a], files[b], strict=True)
        assert found[a, b] == pytest.approx(np.mean([metric.dice_of_texts(*pair, SIZE) for pair in frames]))


def test_stretches_of_nothing_are_none():
    bounds, inside = merging.stretches(["", ""], SIZE)
    assert (bounds.tolist(), inside.shape) == ([0], (2, 0))


# === Bad input ===


def test_different_frames_are_refused(tmp_path):
    short, long = write(tmp_path / "short.csv", "", ""), write(tmp_path / "long.csv", "", "", "", "")
    told = (
        rf"{short} and {long} do not hold the same frames: only {long} has frame 3, and 2 differ in all; give"
    )
    with pytest.raises(NerveError, match=told):
        compare(short, long)
    with pytest.raises(NerveError, match=f"only {long} has frame 3"):
        merge([long, short], tmp_path / "out.csv")
    with pytest.raises(
        NerveError, match=rf"{short} is not a valid submission: frames are missing \(2 in all\)"
    ):
        merge([long, short], tmp_path / "out.csv", sample=long)
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("id,label\n1,0.5\n2,0.1\n", "line 1: the header is 'id,label'; it must be img,pixels"),
        ("img,pixels\n7,\n8,\n", "line 2: frame 7 is unknown to the competition"),
        ("img,pixels\n1,5 1 2 1\n2,\n", "line 2: .*unsorted"),
        ("", "the file is empty"),
    ],
)
def test_a_file_of_something_else_is_refused_by_name(tmp_path, content, told):
    good, bad = write(tmp_path / "good.csv", "", "1 1"), tmp_path / "bad.csv"
    bad.write_text(content)
    for call in (
        lambda: compare(good, bad, good),
        lambda: compare(bad, good, good),
        lambda: merge([good, bad], tmp_path / "out.csv", sample=good),
    ):
        with pytest.raises(NerveError, match=f"{bad} is not a valid submission: {told}"):
            call()
    assert not (tmp_path / "out.csv").exists()


def test_merging_takes_two_files_and_a_known_method(pair, tmp_path):
    out = tmp_path / "out.csv"
    with pytest.raises(
        NerveError, match=f"two or more submission files, got only {pair[0]}; name the others"
    ):
        merge(pair[:1], out)
    with pytest.raises(NerveError, match="got none"):
        merge([], out)
    with pytest.raises(
        NerveError, match="'mean' is no way of merging; choose one of presence, pixels, agreement"
    ):
        merge(pair, out, "mean")
    with pytest.raises(NerveError, match=r"cannot read .*nowhere.csv"):
        merge([pair[0], tmp_path / "nowhere.csv"], out)
    assert not out.exists()


def test_what_is_read_is_not_written_over(pair, tmp_path):
    before = [path.read_bytes() for path in pair]
    link = tmp_path / "link.csv"
    link.symlink_to(pair[1])
    for out in (pair[0], link, tmp_path / "." / "second.csv"):
        with pytest.raises(NerveError, match=r"cannot write the consensus over .*csv, which it is made from"):
            merge(pair, out)
    sample = write(tmp_path / "sample.csv", *["1 1"] * 6)
    with pytest.raises(NerveError, match=f"over {sample}"):
        merge(pair, sample, sample=sample)
    assert [path.read_bytes() for path in pair] == before
    assert link.is_symlink()


class Heard(Reporter):
    """Keeps what it is told, and may break off."""

    def __init__(self, stop: bool = False):
        self.said, self.bars, self.stop = [], {}, stop

    def say(self, text):
        self.said.append(text)

    def bar(self, label, total, unit="frame"):
        heard = self

        class Counted(Bar):
            def update(self, steps=1):
                if heard.stop:
                    raise KeyboardInterrupt
                heard.bars[label, total] = heard.bars.get((label, total), 0) + steps

        return Counted()


def test_a_file_given_twice_votes_twice_and_is_told(pair, tmp_path):
    heard = Heard()
    copy = tmp_path / "copy.csv"
    copy.write_bytes(pair[1].read_bytes())
    merge([pair[0], pair[1], pair[0], pair[0], copy], tmp_path / "out.csv", "pixels", reporter=heard)
    assert texts_of(tmp_path / "out.csv") == texts_of(pair[0])
    more = "; its vote counts again, so leave it out if that is not meant."
    again = f"{pair[0]} was given before{more}"
    assert heard.said == [again, again, f"{copy} is a copy of {pair[1]}{more}"]


def test_every_frame_of_every_pass_is_counted(pair, tmp_path):
    heard = Heard()
    merge(pair, tmp_path / "out.csv", "agreement", reporter=heard)
    assert heard.bars == {("Comparing", 6): 6, ("Merging", 6): 6}
    assert heard.said == []


def test_a_merge_that_is_broken_off_leaves_the_old_file(pair, tmp_path):
    out = tmp_path / "out.csv"
    out.write_text("the old one")
    with pytest.raises(KeyboardInterrupt):
        merge(pair, out, reporter=Heard(stop=True))
    assert out.read_text() == "the old one"
    assert len(list(tmp_path.iterdir())) == 3


# === Command line ===


@pytest.fixture(autouse=True)
def _no_data(tmp_path, monkeypatch):
    """Somebody's fetched competition in this checkout is not what these files are checked against."""
    monkeypatch.setenv("KAGGLE_NERVE_DATA", str(tmp_path / "no-data"))


def command(*words, code: int = 0):
    done = CliRunner().invoke(cli, ["submissions", *map(str, words)])
    assert done.exit_code == code, done.output
    assert code or done.exception is None
    return done


def test_compare_shows_a_table(pair):
    told = command("compare", *pair, "--worst", 3).stdout.splitlines()
    assert told[:2] == [f"A  {pair[0]}", f"B  {pair[1]}"]
    rows = [line.split() for line in told]
    assert ["mask", "in", "A", "3", "1"] in rows
    assert ["none", "in", "A", "1", "1"] in rows
    assert "Presence agrees on 66.67% of 6 frames; A has a mask on 66.67%, B on 66.67%." in told
    assert "Mean Dice 0.4000 over all frames, 0.4667 where both have a mask; 2 rows are identical." in told
    assert told[-5] == "The worst 3 of 4 frames that differ:"
    assert rows[-3:] == [["3", "0.0000", "1", "0"], ["5", "0.0000", "0", "2"], ["6", "0.0000", "1", "1"]]
    assert "The worst" not in command("compare", *pair, "--worst", 0).stdout


def test_compare_as_json(pair):
    told = json.loads(command("compare", *pair, "--worst", 1, "--json").stdout)
    assert told["first"] == str(pair[0])
    assert told["worst"] == [{"img": 3, "dice": 0.0, "first_area": 1, "second_area": 0}]
    assert told["both_present"] == 3


def test_merge_writes_and_tells(pair, tmp_path):
    third, out = write(tmp_path / "third.csv", "1 4", "2 1", "3 1", "", "", ""), tmp_path / "new" / "out.csv"
    told = command("merge", *pair, third, "--out", out)
    assert texts_of(out) == ["1 4", "2 1", "3 1", "", "", "1 1 6 1"]
    assert told.stdout.splitlines()[-2:] == [
        "The files disagree on whether there is a mask on 3 frames.",
        f"{out}: 6 rows, 4 with a mask, by presence",
    ]
    assert "Merging: 6/6 frames" in told.stderr
    told = json.loads(command("merge", *pair, "--out", out, "--method", "agreement", "--json").stdout)
    assert (told["csv"], told["method"], told["ties"]) == (str(out), "agreement", 2)
    assert "on 2 frames, 2 of them a tie." in command("merge", *pair, "--out", out).stdout


def test_the_command_offers_every_method_and_the_same_default():
    options = {option.name: option for option in cli.commands["submissions"].commands["merge"].params}
    assert tuple(options["method"].type.choices) == METHODS
    assert options["method"].default == METHODS[0]


def test_the_sample_in_the_data_folder_is_used_unless_another_is_named(pair, tmp_path):
    short = write(tmp_path / "sample_submission.csv", "1 1")
    told = command("compare", *pair, "--data", tmp_path, code=1).stderr
    assert "frame 2 is unknown to the competition" in told
    out = tmp_path / "out.csv"
    assert "unknown" in command("merge", *pair, "--out", out, "--sample", short, code=1).stderr
    command("merge", *pair, "--out", out, "--data", tmp_path, "--sample", pair[0])
    command("compare", *pair, "--data", tmp_path, "--sample", pair[0])


def test_faults_are_one_sentence_and_misuse_exits_with_2(pair, tmp_path):
    other = tmp_path / "other.csv"
    other.write_text("id,label\n1,0\n2,1\n")
    for words in (
        ("compare", pair[0], other),
        ("merge", pair[0], other, "--out", tmp_path / "out.csv"),
        ("merge", pair[0], "--out", tmp_path / "out.csv"),
        ("merge", *pair, "--out", pair[0]),
        ("merge", *pair, tmp_path / "nowhere.csv", "--out", tmp_path / "out.csv"),
    ):
        told = command(*words, code=1).stderr
        assert told.startswith("Error: ")
        assert told.count("\n") == 1
        assert ". " not in told
    command("compare", pair[0], code=2)
    command("compare", *pair, "--worst", "-1", code=2)
    command("merge", *pair, code=2)
    command("merge", "--out", tmp_path / "out.csv", code=2)
    command("merge", *pair, "--out", tmp_path / "out.csv", "--method", "mean", code=2)
    command("merge", *pair, "--out", tmp_path, code=2)
    assert not (tmp_path / "out.csv").exists()
