import dataclasses
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from decision_support import stored

from kaggle_nerve.cli import decide
from kaggle_nerve.competition import metric, rle
from kaggle_nerve.decision import candidates, decision, evidence, figures, nested, shaping, tune
from kaggle_nerve.decision import review as reviews
from kaggle_nerve.decision.masks import encode_masks
from kaggle_nerve.errors import NerveError
from kaggle_nerve.maps import levels
from kaggle_nerve.maps.fullsize import Truths
from kaggle_nerve.prediction.stored import Blend, Predictions, blend


def looked_at(found, table):
    return evidence.measure(found, Truths(list(table.pixels)))[0]


def scored(found, table, learned, **changed):
    """Mean Dice of the masks that `submit` would write."""
    rows = encode_masks(found, dataclasses.replace(learned, **changed))
    texts = [text for _, text in rows]
    return np.mean([metric.dice_of_texts(a, b) for a, b in zip(table.pixels, texts, strict=True)])


def two_runs(subjects=4):
    first, table = stored(subjects=subjects)
    second, _ = stored(subjects=subjects, shift=-1, name="other")
    return blend([first, second]), table


@pytest.fixture(scope="module")
def learned():
    found, table = stored(subjects=6)
    return found, table, tune.tune(found, table)


def test_a_decision_applied_to_its_own_frames_gives_the_reported_figure(learned):
    found, table, decided = learned
    assert scored(found, table, decided) == decided.figures.in_sample


def test_a_review_has_every_frame_with_its_dice(learned):
    found, table, decided = learned
    frames = decided.review.frames
    assert frames[["subject", "img"]].values.tolist() == found.table[["subject", "img"]].values.tolist()
    assert frames.dice.mean() == decided.figures.in_sample
    empty = frames[(frames.area == 0) & (frames.predicted_area == 0)]
    assert len(empty)
    assert (empty.dice == 1).all()
    masks = [rle.decode(text) for _, text in encode_masks(found, decided)]
    assert frames.predicted_area.tolist() == [mask.sum() for mask in masks]
    assert frames.area.tolist() == [rle.area(text) for text in table.pixels]
    some = [3, 1]
    assert list(encode_masks(reviews.select_rows(found, some), decided)) == [
        list(encode_masks(found, decided))[row] for row in some
    ]


@pytest.mark.parametrize("shape", ["none", "hull"])
def test_a_review_made_later_is_the_same(shape):
    found, table = stored(subjects=3)
    decided = tune.tune(found, table, user_choices={"shape": shape})
    shaper = shaping.Shaper(shaping.SHAPES[shape])
    again = reviews.review(found, Truths(list(table.pixels)), decided.learned, shaper)
    pd.testing.assert_frame_equal(again.frames, decided.review.frames)
    np.testing.assert_array_equal(again.surface.dice, decided.review.surface.dice)
    # By hand: the mean Dice at one threshold of pixels, and with a minimum area of 1000.
    maps = [found.full(row) >= levels.cut(0.5) / 255 - 0.5 / 255 for row in range(len(found))]
    kept = [mask if mask.sum() >= 1000 else np.zeros_like(mask) for mask in maps]
    dice = [metric.dice(rle.decode(text), mask) for text, mask in zip(table.pixels, kept, strict=True)]
    place = candidates.THRESHOLDS.index(0.5), candidates.AREAS.index(1000)
    assert decided.review.surface.dice[place] == pytest.approx(np.mean(dice), abs=1e-6)


def test_a_review_lies_beside_its_decision_and_is_no_other_s(learned, tmp_path):
    _, _, decided = learned
    decided.save(tmp_path / "decision.json")
    back = decision.load(tmp_path / "decision.json")
    pd.testing.assert_frame_equal(back.review.frames, decided.review.frames, atol=1e-6, check_dtype=False)
    np.testing.assert_allclose(back.review.surface.dice, decided.review.surface.dice, atol=1e-6)
    assert back.review.surface.label == decided.review.surface.label
    (tmp_path / "frames.csv").write_text("subject,img\n1,1\n")
    assert decision.load(tmp_path / "decision.json").review is None


def test_masks_that_the_data_lacks_are_named(learned):
    found, table, _ = learned
    with pytest.raises(NerveError, match="no mask rows"):
        tune.tune(found, table.iloc[1:])


@pytest.mark.parametrize("rule", [one.name for one in candidates.CANDIDATES])
@pytest.mark.parametrize("shape", ["none", "hull", "prior"])
def test_so_does_every_rule_with_every_kind_of_shape(rule, shape):
    found, table = stored(subjects=3)
    decided = tune.tune(found, table, user_choices={"rule": rule, "shape": shape})
    assert (decided.rule_name, decided.shape) == (rule, shape)
    assert scored(found, table, decided) == decided.figures.in_sample


@pytest.mark.parametrize("way", ["made", "mean", "logits", "agreement", "weights", "vote"])
def test_so_does_every_blend(way):
    found, table = two_runs(subjects=3)
    decided = tune.tune(found, table, user_choices={"blend": way, "rule": "thresholds"})
    assert next(row.name for row in decided.comparison["blends"] if row.chosen) == way
    assert scored(found, table, decided) == decided.figures.in_sample


def test_the_crf_is_compared_where_there_are_frames():
    found, table = stored(subjects=2)
    truths = Truths(list(table.pixels))

    def images(row):
        return np.where(truths.mask(row), 180, 60).astype(np.uint8)

    decided = tune.tune(found, table, images=images, user_choices={"rule": "fixed", "shape": "crf"})
    rows = {row.name: row for row in decided.comparison["shapes"]}
    # The frames show the very edge, which the maps miss by two pixels of working size.
    assert rows["crf"].dice > rows["none"].dice
    # The ceiling is that of the refined outlines.
    assert decided.figures.perfect_presence >= decided.figures.dice > rows["none"].dice
    assert decided.figures.kept_present_dice >= decided.figures.present_dice
    assert "crf" not in {row.name for row in tune.tune(found, table).comparison["shapes"]}
    texts = [text for _, text in encode_masks(found, decided, images=images)]
    dices = [metric.dice_of_texts(a, b) for a, b in zip(table.pixels, texts, strict=True)]
    assert np.mean(dices) == decided.figures.in_sample
    with pytest.raises(NerveError, match="looks at the frames"):
        list(encode_masks(found, decided))


def test_a_decision_learned_twice_is_identical(learned):
    found, table, decided = learned
    again = tune.tune(found, table, workers=1)
    assert json.dumps(again.as_dict()) == json.dumps(decided.as_dict())


def test_the_figures_add_up(learned):
    decided = learned[2]
    found = decided.figures
    assert found.low <= found.dice <= found.high
    assert found.all_empty == found.true_share == 0.5
    assert (found.frames, found.subjects) == (48, 6)
    assert found.perfect_presence == pytest.approx((1 + found.kept_present_dice) / 2)
    assert found.dice <= found.perfect_presence
    assert found.dice == pytest.approx((1 - found.false_positive_rate + found.present_dice) / 2)
    for rows in decided.comparison.values():
        assert sum(row.chosen for row in rows) == 1
        assert all(row.difference_low <= row.difference <= row.difference_high for row in rows)
    baseline = next(row for row in decided.comparison["rules"] if row.name == candidates.BASELINE)
    assert baseline.difference == baseline.difference_low == baseline.difference_high == 0


def made(truth, subjects, presence) -> evidence.Evidence:
    """Evidence of perfect masks of 9000 pixels on all frames, of which ``truth`` have one."""
    count = len(truth)
    reached = np.full((count, 257), 9000, np.int32)
    reached[:, 0], reached[:, -1] = 420 * 580, 0
    there = (np.array(truth) > 0)[:, None]
    maps = np.zeros((count, 2, 3), np.uint8)
    return evidence.Evidence(
        reached,
        np.zeros((count, 18), np.float32),
        maps,
        np.array(presence, float),
        reached * there,
        np.array(truth) * 9000,
        maps,
        np.array(subjects),
    )


def test_the_nested_figure_judges_each_subject_by_the_others():
    # Subject 1 is best with every mask kept, 2 and 3 with none: nested, nobody profits from himself.
    known = made([1, 1, 0, 0, 0, 0], [1, 1, 2, 2, 3, 3], [0.5] * 6)
    head = next(one for one in candidates.CANDIDATES if one.name == "thresholds")
    assert candidates.dice(known, head.learn(known).cuts(known)).mean() == pytest.approx(4 / 6)
    # For 1 the others say empty (0 of 2 right); for 2 and 3 it is a draw of 2 against 2 frames: keep (the
    # first of equals), which is wrong on all 4.
    assert nested.judge(head, known).dice.mean() == 0


def test_the_choice_is_left_to_the_other_subjects():
    # Way 1 gains on subject 3 alone, and much: with it, it is taken; without it, nothing speaks for it.
    subjects = np.repeat([1, 2, 3], 2)
    plain, other = np.full(6, 0.5), np.array([0.5, 0.5, 0.5, 0.5, 1.0, 1.0])
    choice = nested.choose([plain, other + 1e-9], subjects, range(2), 0)
    assert choice.index == 1
    assert choice.index_by_frame.tolist()[4:] == [0, 0]


def test_the_simplest_within_noise():
    sizes = np.full(30, 10)
    noise = np.tile([1.0, -1.0], 15)
    plain = np.full(30, 5.0)

    def taken(*others):
        return nested.simplest_within_noise(np.stack([plain, *others]), sizes, range(len(others) + 1), 0)

    # A lead of 0.01 that holds for everybody is taken, one of 0.0005 is not worth it, and one of
    # 0.01 that comes and goes with the subject (standard error 0.1 / sqrt(30) = 0.018) is noise.
    assert taken(plain + 0.1) == 1
    assert taken(plain + 0.005) == 0
    assert taken(plain + 0.1 + noise) == 0
    # 0.2 leads 0.1 for sure, but not the noisy one in between, which is the simpler of the two.
    assert taken(plain + 0.1 + noise, plain + 0.2) == 1
    assert taken(plain - 0.1) == 0


def test_of_equally_simple_ways_the_best_is_taken_in_any_order():
    sizes, plain = np.full(30, 10), np.full(30, 5.0)
    ways, ranks = [plain, plain + 0.004, plain + 0.008], [0, 0, 1]
    for order in ([0, 1, 2], [1, 0, 2], [2, 1, 0]):
        sums = np.stack([ways[place] for place in order])
        taken = nested.simplest_within_noise(sums, sizes, [ranks[place] for place in order], 0)
        # All lie within 0.001 of the best, so one of rank 0 is taken: the better of the two.
        assert order[taken] == 1


def test_the_interval_by_a_case_that_is_known():
    low, high = nested.interval(np.array([5.0] * 10), np.array([10] * 10), 0)
    assert (low, high) == (0.5, 0.5)
    low, high = nested.interval(np.array([0.0, 10.0] * 20), np.array([10] * 40), 0)
    # A share of 1/2 over 40 subjects: plus or minus 1.96 * 0.5 / sqrt(40) = 0.155.
    assert low == pytest.approx(0.345, abs=0.03)
    assert high == pytest.approx(0.655, abs=0.03)
    spread = nested.standard_error(np.array([0.0, 10.0] * 20), np.array([10] * 40), 0)
    assert spread == pytest.approx(0.5 / np.sqrt(40), rel=0.1)


def test_perfect_presence_is_that_of_the_finished_outlines():
    found, table = stored()
    decided = tune.tune(found, table, user_choices={"rule": "area", "shape": "hull"})
    known, truths = looked_at(found, table), Truths(list(table.pixels))
    area = next(one for one in candidates.CANDIDATES if one.name == "area")
    kept_cuts = nested.judge(area, known).kept_cuts
    hull = [shaping.Shaper(shaping.SHAPES["hull"])]
    shaped = shaping.score(found, truths, kept_cuts, lambda row: hull)[0]
    wanted = shaped[known.present].mean()
    assert decided.figures.kept_present_dice == pytest.approx(wanted)
    assert decided.figures.perfect_presence == pytest.approx((1 + wanted) / 2)


def test_one_subject_alone_is_no_error():
    found, table = stored(subjects=1)
    assert tune.tune(found, table).figures.subjects == 1


@pytest.mark.parametrize("user_choices", [{}, {"rule": "expected", "shape": "prior"}])
def test_a_decision_reads_back(tmp_path, user_choices):
    found, table = stored()
    decided = tune.tune(found, table, user_choices=user_choices)
    decided.save(tmp_path / "decision.json")
    back = decision.load(tmp_path / "decision.json")
    assert dataclasses.replace(back, prior=None) == dataclasses.replace(decided, prior=None)
    assert list(encode_masks(found, back)) == list(encode_masks(found, decided))


def test_the_keys_on_disk_stay_what_they_were():
    found, table = stored(subjects=3)
    written = tune.tune(found, table, user_choices={"rule": "expected"}).as_dict()
    assert list(written["rule"]) == ["kind", "pixels", "quality"]
    assert list(written["rule"]["pixels"]) == ["given", "meant"]
    assert list(written["classifier"]) == ["names", "mean", "scale", "weights", "intercept", "prior"]
    assert (written["name"], written["taken"]) == ("expected", {"rule": "expected"})


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"half")])
def test_a_decision_whose_shape_prior_is_damaged_is_none(tmp_path, damage):
    found, table = stored()
    tune.tune(found, table, user_choices={"shape": "prior"}).save(tmp_path / "decision.json")
    damage(tmp_path / "shape-prior.npz")
    with pytest.raises(decision.UnreadableDecisionError, match=r"not a decision of this version \(.*shape"):
        decision.load(tmp_path / "decision.json")


@pytest.mark.parametrize("text", ['{"rule": {}, "figures": {}}', '{"version": 1}', "[]", "null"])
def test_a_decision_of_another_kind_is_named(tmp_path, text):
    (tmp_path / "decision.json").write_text(text)
    with pytest.raises(NerveError, match="is not a decision of this version"):
        decision.load(tmp_path / "decision.json")


@pytest.mark.parametrize("shape", ["none", "prior"])
def test_subjects_without_masks_teach_what_they_can(shape):
    found, table = stored(subjects=2)
    for empty in (table.subject == 2, table.subject > 0):
        bare = table.assign(pixels=table.pixels.where(~empty, ""))
        if shape == "prior" and empty.all():
            with pytest.raises(NerveError, match="at least one true mask"):
                tune.tune(found, bare, user_choices={"shape": shape})
        else:
            assert tune.tune(found, bare, user_choices={"shape": shape}).shape == shape


def test_a_shape_prior_never_saw_the_subject():
    _, table = stored(subjects=3)
    subjects, texts = table.subject.to_numpy(), list(table.pixels)
    before = shaping.cross_fit_priors(texts, subjects)
    turned = [texts[5] if subject == 1 else text for subject, text in zip(subjects, texts, strict=True)]
    after = shaping.cross_fit_priors(turned, subjects)
    assert all(np.array_equal(before[row].mean, after[row].mean) for row in np.flatnonzero(subjects == 1))
    assert not all(np.array_equal(one.mean, other.mean) for one, other in zip(before, after, strict=True))


def test_frames_without_truth_are_refused():
    found, table = stored()
    with pytest.raises(NerveError, match="no mask rows"):
        tune.tune(found, table[table.subject != 2])


def test_an_unknown_way_is_named():
    found, table = stored(subjects=2)
    with pytest.raises(NerveError, match="no shape 'round' here; there are none, largest"):
        tune.tune(found, table, user_choices={"shape": "round"})


def test_a_probability_that_is_no_number_is_named():
    found, table = stored()
    found.parts[0][3, 5, 5] = np.nan
    with pytest.raises(NerveError, match="Frame 4 has a probability that is no number"):
        tune.tune(found, table)


def test_another_number_of_runs_is_refused():
    found, table = two_runs()
    decided = tune.tune(found, table, user_choices={"blend": "weights"})
    with pytest.raises(NerveError, match="combines 2 runs, not 1"):
        list(encode_masks(stored()[0], decided))


def test_a_share_far_from_the_training_frames_is_worth_a_warning():
    assert figures.share_warning(0.35, 0.41) is None
    assert "20.0% of the frames, but 41.0% of the training frames" in figures.share_warning(0.2, 0.41)
    assert figures.share_warning(0.6, 0.41) is not None


def test_the_command_line_knows_the_names():
    assert tuple(one.name for one in candidates.CANDIDATES) == decide.RULES
    assert tuple(shaping.SHAPES) == decide.SHAPES


def test_masks_begin_at_the_cut(learned):
    found, table, _ = learned
    rule = candidates.Learned(candidates.Thresholds(0.3, 2000, 0.4))
    known = looked_at(found, table)
    cuts = rule.cuts(known)
    for row in (0, 1, 5):
        wanted = (found.full(row) >= 0.3) if cuts[row] < levels.NOTHING else np.zeros((420, 580), bool)
        assert (
            known.cut_areas[row, levels.cut(0.3)] == pytest.approx(wanted.sum(), rel=0.02) or not wanted.any()
        )


def test_a_blend_of_a_run_with_itself_is_the_run():
    found, _ = stored()
    both = blend([found, found])
    np.testing.assert_allclose(both.full(5), found.full(5), atol=1e-6)
    np.testing.assert_allclose(both.presence, found.presence)
    assert both.names == ("made", "made")


def test_a_blend_is_the_mean_over_the_common_frames_in_any_working_size():
    found, _ = stored()
    rows = np.arange(len(found))[::-1]
    larger = np.full((len(found), 84, 116), 0.5, np.float16)
    table = found.table.iloc[rows][4:].reset_index(drop=True).assign(agreement=0.5)
    other = Predictions(table, found.presences[rows[4:]] / 2, (larger,), (rows[4:],), "other")
    both = blend([found, other])
    assert len(both) == len(found) - 4
    np.testing.assert_allclose(both.full(3), (found.full(3) + 0.5) / 2, atol=1e-3)
    np.testing.assert_allclose(both.presence, found.presence[:-4] * 0.75)
    assert both.table.agreement.tolist() == [0.75] * len(both)
    assert list(both.table.columns) == list(found.table.columns)


def test_votes_and_weights_by_hand():
    found, _ = two_runs()
    members = np.array([[[0.2, 0.6, 0.4]], [[0.9, 0.1, 0.5]]], np.float32)
    vote = found.mix(members, Blend("vote", thresholds=(0.5, 0.5)))
    assert vote.tolist() == [[0.5, 0.5, 0.5]]
    weighted = found.mix(members, Blend(weights=(3.0, 1.0)))
    np.testing.assert_allclose(weighted, [[0.375, 0.475, 0.425]], rtol=1e-6)
    heads = dataclasses.replace(found, blend=Blend(weights=(1.0, 0.0)))
    assert heads.presence.tolist() == found.presences[:, 0].tolist()
