"""Contradictory labels, suspicious masks, the table for training, and the command."""

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from matplotlib.colors import to_hex
from support import disc, tissue, write_frames

from kaggle_nerve.audit.audit import KINDS, audit, write
from kaggle_nerve.audit.contradictions import compare_labels, contradictions, training_table
from kaggle_nerve.audit.sheets import doubts_sheet
from kaggle_nerve.audit.suspicious import suspicious
from kaggle_nerve.cli import cli
from kaggle_nerve.competition import rle
from kaggle_nerve.competition.facts import SIZE
from kaggle_nerve.data import doubted
from kaggle_nerve.data.frames import locate, training_frames
from kaggle_nerve.data.overlay import PREDICTED, TRUE
from kaggle_nerve.errors import NerveError
from kaggle_nerve.session import explore
from kaggle_nerve.session.places import Places
from kaggle_nerve.settings import TrainingSettings, apply_changes, load_preset

MASK, NEAR, ELSEWHERE = disc((200, 300), 50), disc((200, 310), 50), disc((100, 150), 50)


def table_of(*masks, subjects=None):
    """Frames 1, 2, ... with these masks (None: empty), of one subject unless told."""
    pixels = ["" if mask is None else rle.encode(mask) for mask in masks]
    return pd.DataFrame(
        {
            "subject": subjects or [1] * len(masks),
            "img": range(1, len(masks) + 1),
            "pixels": pixels,
            "has_mask": [text != "" for text in pixels],
            "area": [rle.area(text) for text in pixels],
        }
    )


def pairs_of(*pairs, correlation=0.97, difference=5.0):
    table = pd.DataFrame(pairs, columns=["row", "other"])
    return table.assign(correlation=correlation, difference=difference)


def test_kinds_of_contradiction():
    frames = table_of(MASK, None, NEAR, ELSEWHERE, None)
    labelled = compare_labels(pairs_of((0, 1), (0, 2), (0, 3), (1, 4)), frames)
    assert labelled.kind.tolist() == ["mask against none", "", "outlines disagree", ""]
    assert labelled.dice.tolist() == pytest.approx([0, 0.8735, 0, 1], abs=1e-3)


def test_contradictions_are_told_worst_first_and_the_mask_stands_first():
    frames = table_of(None, MASK, ELSEWHERE, disc((200, 350), 50))
    twins = pairs_of((0, 1), (0, 2), (1, 2), (1, 3)).assign(
        correlation=[1, 0.99, 0.98, 0.97], difference=[0, 1.5, 2, 3]
    )
    found = contradictions(compare_labels(twins, frames), frames)
    assert list(zip(found.row, found.other, strict=True)) == [(1, 0), (2, 0), (1, 2), (1, 3)]
    assert found.what.tolist() == [
        "1_2 has a mask of 7845 pixels, 1_1 has none; the frames are equal in every pixel.",
        "1_3 has a mask of 7845 pixels, 1_1 has none; the frames correlate by 0.9900 and differ by 1.50 grey levels.",
        "The masks of 1_2 and 1_3 have a Dice of 0.00; the frames correlate by 0.9800 and differ by 2.00 grey levels.",
        "The masks of 1_2 and 1_4 have a Dice of 0.39; the frames correlate by 0.9700 and differ by 3.00 grey levels.",
    ]


def test_weights_and_targets_are_shares_of_a_frame_and_its_twins():
    # A mask whose three twins have none; a fifth frame is a twin of one of these; a sixth has no twin.
    frames = table_of(MASK, None, None, None, None, MASK)
    table = training_table(compare_labels(pairs_of((0, 1), (0, 2), (0, 3), (3, 4)), frames), frames)
    assert table.values.tolist() == [
        [1, 1, 0.25, 0.25],
        [1, 2, 0.5, 0.5],
        [1, 3, 0.5, 0.5],
        [1, 4, 0.6667, 0.3333],
    ]


def test_outlines_that_disagree_weigh_less_and_keep_their_presence():
    frames = table_of(MASK, ELSEWHERE, NEAR)
    table = training_table(compare_labels(pairs_of((0, 1), (0, 2)), frames), frames)
    assert table.values.tolist() == [[1, 1, 0.6667, 1], [1, 2, 0.5, 1]]


def test_nothing_is_doubted_without_contradictions():
    frames = table_of(MASK, NEAR, None)
    labelled = compare_labels(pairs_of((0, 1)), frames)
    assert training_table(labelled, frames).empty
    assert contradictions(labelled, frames).empty
    assert list(training_table(compare_labels(pairs_of(), frames), frames).columns) == list(doubted.COLUMNS)


def kinds_of(frames):
    found = suspicious(frames)
    return [
        (kind, f"{frames.subject[row]}_{frames.img[row]}")
        for kind, row in zip(found.kind, found.row, strict=True)
    ]


def test_pieces_and_holes():
    two = disc((200, 300), 50) | disc((300, 300), 5)
    touching = np.zeros(SIZE, np.uint8)
    touching[:20, :20] = touching[20:40, 20:40] = 1  # at a corner of the frame, joined at a corner
    ring = disc((200, 300), 50) - disc((200, 300), 10)
    open_ring = ring.copy()
    open_ring[200, :300] = 0
    diamond = disc((9, 9), 1)
    diamond[9, 9] = 0  # four pixels that touch at their corners
    frames = table_of(MASK, two, touching, ring, None, open_ring, two | disc((20, 20), 1), diamond)
    found = suspicious(frames)
    assert kinds_of(frames) == [
        ("several pieces", "1_7"),
        ("several pieces", "1_2"),
        ("holes", "1_4"),
        ("holes", "1_8"),
    ]
    assert found.what.tolist() == [
        "The mask of 1_7 has 3 separate pieces.",
        "The mask of 1_2 has 2 separate pieces.",
        "The mask of 1_4 has 1 hole.",
        "The mask of 1_8 has 1 hole.",
    ]


def scattered(count, centre, random, radius=50):
    return [
        disc(tuple(random.integers(-15, 16, 2) + centre), radius + int(random.integers(-8, 9)))
        for _ in range(count)
    ]


def test_tiny_masks_and_masks_out_of_place():
    random = np.random.default_rng(0)
    usual = scattered(12, (200, 300), random), scattered(12, (120, 420), random)
    # The second subject's usual place is odd in the first one, and the other way round.
    odd = disc((200, 300), 12), disc((120, 420), 50), disc((200, 300), 50)
    masks = [*usual[0], *odd[:2], *usual[1], odd[2]]
    frames = table_of(*masks, subjects=[1] * 14 + [2] * 13)
    assert kinds_of(frames)[0] == ("tiny mask", "1_13")
    assert {name for kind, name in kinds_of(frames) if kind == "unusual place"} == {"1_14", "2_27"}
    assert suspicious(frames).what[0].startswith("The mask of 1_13 has 441 pixels, the median is ")
    assert "has its centre at row 120, column 420, " in " ".join(suspicious(frames).what)


def test_a_subject_with_few_masks_has_no_place_of_its_own():
    random = np.random.default_rng(0)
    masks = [*scattered(12, (200, 300), random), disc((60, 520), 50)]
    assert kinds_of(table_of(*masks, subjects=[1] * 12 + [2])) == [("unusual place", "2_13")]


def test_of_few_or_equal_masks_none_is_odd():
    few = table_of(*[disc((200, 300), 50)] * 4, disc((20, 20), 5))
    assert kinds_of(few) == []
    equal = table_of(*[disc((200, 300), 50)] * 11, disc((200, 301), 50))
    assert kinds_of(equal) == []
    assert kinds_of(table_of(None, None)) == []


@pytest.fixture
def data(tmp_path):
    """Two subjects: 1_1 and 1_2 equal and labelled unlike, 2_1 nearly so; 1_3 and 1_4 with outlines apart."""
    root = tmp_path / "data"
    frames = {
        (1, 1): (tissue(1), MASK),
        (1, 2): (tissue(1), None),
        (1, 3): (tissue(2), MASK),
        (1, 4): (tissue(2, noise=20), ELSEWHERE),
        (1, 5): (tissue(3), NEAR | disc((350, 500), 9)),
        (2, 1): (tissue(1, noise=20), None),
        (2, 2): (tissue(4), None),
    }
    write_frames(root, frames)
    return root


def test_an_audit_of_files(data, tmp_path):
    found = audit(data)
    assert found.as_dict() == {
        "frames": 7,
        "subjects": 2,
        "with_mask": 4,
        "least": 0.95,
        "twins": 4,
        "identical": 1,
        "across_subjects": 2,
        "findings": dict(zip(KINDS, (2, 1, 0, 1, 0, 0), strict=True)),
        "doubted": 5,
    }
    files = write(found, tmp_path / "out")
    assert {path.name for path in files} == {path.name for path in (tmp_path / "out").iterdir()} == {
        "findings.csv", "twins.csv", "doubted.csv", "sheet-mask-against-none.png", "sheet-outlines-disagree.png",
        "sheet-several-pieces.png",
    }  # fmt: skip
    rows = pd.read_csv(tmp_path / "out" / "findings.csv")
    assert rows[["kind", "subject", "img", "other_subject", "other_img"]].fillna(0).values.tolist() == [
        ["mask against none", 1, 1, 1, 2],
        ["mask against none", 1, 1, 2, 1],
        ["outlines disagree", 1, 3, 1, 4],
        ["several pieces", 1, 5, 0, 0],
    ]
    assert rows[["area", "other_area"]].values[0].tolist() == [7845, 0]
    assert rows[["correlation", "difference", "dice"]].values[0].tolist() == [1, 0, 0]
    assert (rows.correlation[1:3] > 0.95).all()
    assert rows.correlation.isna().tolist() == [False, False, False, True]
    twins = pd.read_csv(tmp_path / "out" / "twins.csv")
    assert sorted(twins.kind) == ["agree", "mask against none", "mask against none", "outlines disagree"]


def test_training_reads_the_table(data, tmp_path):
    write(audit(data), tmp_path)
    path = tmp_path / "doubted.csv"
    frames = training_frames(locate(data))
    weights, presence = doubted.read(path, frames)
    np.testing.assert_allclose(weights, [1 / 3, 2 / 3, 0.5, 0.5, 1, 2 / 3, 1], atol=1e-4)
    np.testing.assert_allclose(presence, [1 / 3, 1 / 3, 1, 1, 1, 1 / 3, 0], atol=1e-4)
    for way in ("weight", "soft"):
        changes = (f"training.noise={way}", f"training.noise_table={path}")
        settings = apply_changes(load_preset("tiny"), changes).training
        assert isinstance(settings, TrainingSettings)
        assert doubted.marks(settings, frames) is not None


def test_sheets_show_pairs_side_by_side(data):
    found = audit(data)
    shown = {
        kind: doubts_sheet(rows, found.frames, lambda path: np.zeros(SIZE))
        for kind, rows in found.findings.groupby("kind")
    }
    against, apart, pieces = (
        shown[kind] for kind in ("mask against none", "outlines disagree", "several pieces")
    )
    titles = [axes.get_title() for axes in against.axes]
    assert titles[:2] == ["1_1, 7845 pixels; correlation 1.0000", "1_2, no mask"]
    assert [len(axes.collections) for axes in against.axes] == [1, 0, 1, 0]
    assert apart.axes[1].get_title() == "1_4, 7845 pixels; Dice 0.00"
    colours = [[to_hex(drawn.get_edgecolor()[0]) for drawn in axes.collections] for axes in apart.axes]
    assert colours == [[PREDICTED, TRUE]] * 2
    assert len(pieces.axes) == 1
    two = doubts_sheet(found.findings[:2], found.frames, lambda path: np.zeros(SIZE), most=3)
    assert two.get_suptitle() == "Mask against none: 1 of 2"


def test_the_notebook_shows_the_same_pairs(data, tmp_path, monkeypatch, capsys):
    shown = []
    monkeypatch.setattr(explore, "find_places", lambda: Places(data.parent, tmp_path / "working"))
    monkeypatch.setattr(explore, "display", shown.append)
    explore.Exploration().show_contradictions()
    assert "1 of 4 frames with a mask have a twin without one" in capsys.readouterr().out
    assert len(shown) == 1


def run(*words, code=0):
    done = CliRunner().invoke(cli, ["audit", *map(str, words)])
    assert done.exit_code == code, done.output
    return done


def test_the_command(data, tmp_path):
    told = run("--data", data, "--out", tmp_path / "out").stdout
    assert (
        "7 frames of 2 subjects: 4 pairs correlate by 0.95 or more, 1 of them are equal in every pixel"
        in told
    )
    assert "1_1 has a mask of 7845 pixels, 1_2 has none; the frames are equal in every pixel." in told
    assert f"--set training.noise_table={tmp_path / 'out' / 'doubted.csv'}" in told
    told = json.loads(run("--data", data, "--out", tmp_path / "out", "--worst", 1, "--json").stdout)
    assert told["findings"]["mask against none"] == 2
    assert len(told["worst"]) == 3
    assert all(name.endswith((".csv", ".png")) for name in told["files"])


def test_files_of_an_earlier_audit_give_way(data, tmp_path):
    run("--data", data, "--out", tmp_path / "out", "--worst", 0)
    told = run("--data", data, "--out", tmp_path / "out", "--least", 1).stdout
    assert not (tmp_path / "out" / "sheet-outlines-disagree.png").exists()
    assert (tmp_path / "out" / "sheet-mask-against-none.png").exists()
    assert "doubted.csv marks 2 contradicted frames" in told


def test_without_a_mask_and_with_one_frame_there_is_nothing_to_doubt(tmp_path):
    for name, images in (("none", 3), ("one", 1)):
        write_frames(tmp_path / name, {(1, img): (tissue(1), None) for img in range(1, images + 1)})
        told = run("--data", tmp_path / name, "--out", tmp_path / f"{name}-out").stdout
        assert "doubted.csv marks" not in told
        assert len(list((tmp_path / f"{name}-out").iterdir())) == 3
        frames = training_frames(locate(tmp_path / name))
        weights, _ = doubted.read(tmp_path / f"{name}-out" / "doubted.csv", frames)
        assert weights.tolist() == [1] * images


def test_bad_input_is_a_sentence(data, tmp_path):
    with pytest.raises(
        NerveError, match=r"^There is no data directory .*; run `kaggle-nerve fetch` or name it"
    ):
        audit(tmp_path / "none")
    assert "Error: There is no data directory" in run("--data", tmp_path / "none", code=1).output
    assert "0.8<=x<=1" in run("--data", data, "--least", 0.5, code=2).output
    (data / "train" / "1_3.tif").unlink()
    assert "lacks 1 of 7 frames" in run("--data", data, code=1).output
