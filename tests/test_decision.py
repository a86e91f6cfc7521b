import numpy as np
import pandas as pd
import pytest

from kaggle_nerve.competition import metric, rle
from kaggle_nerve.data.fullsize import Truths, enlarge
from kaggle_nerve.decision import table as tables
from kaggle_nerve.decision import tune
from kaggle_nerve.decision.masks import encoded_masks
from kaggle_nerve.decision.rule import Rule
from kaggle_nerve.errors import NerveError
from kaggle_nerve.prediction.stored import Stored, blend

SMALL = (42, 58)


def stored(subjects: int = 4, frames: int = 8, seed: int = 0) -> tuple[Stored, pd.DataFrame]:
    """Noisy maps of discs, two pixels of working size off; presence tells the truth most of the time."""
    random = np.random.default_rng(seed)
    rows, maps = [], []
    for subject in range(1, subjects + 1):
        for img in range(1, frames + 1):
            present = img % 2 == 0
            truth = np.zeros(SMALL, np.float32)
            if present:
                r, c = random.integers(10, 30), random.integers(10, 45)
                truth[r - 6 : r + 6, c - 6 : c + 6] = 1
            shown = np.roll(truth, 2, axis=1) * 0.9 + random.random(SMALL, np.float32) * 0.08
            maps.append(shown)
            presence = np.clip(0.5 + (0.3 if present else -0.3) + random.normal(0, 0.15), 0, 1)
            rows.append((subject, img, presence, rle.encode(enlarge(truth) >= 0.5)))
    table = pd.DataFrame(rows, columns=["subject", "img", "presence", "pixels"])
    places = np.arange(len(table))
    return Stored(table.drop(columns="pixels"), (np.array(maps, np.float16),), (places,), "made"), table


def test_a_rule_on_a_small_frame():
    probability = np.array([[0.2, 0.5, 0.9], [0.5, 0.1, 0.0]], np.float32)
    assert Rule(0.5).mask(probability, 0.0).tolist() == [[False, True, True], [True, False, False]]
    assert Rule(0.5, area=4).mask(probability, 1.0) is None
    assert Rule(0.5, area=3).mask(probability, 1.0).sum() == 3
    assert Rule(0.5, presence=0.6).mask(probability, 0.59) is None
    assert Rule(0.95).mask(probability, 1.0) is None


def test_truths_count_by_hand():
    truth = np.zeros((3, 4), np.uint8)
    truth[0, 1:3] = 1
    truths = Truths([rle.encode(truth), ""], (3, 4))
    full = np.array([[0.0, 0.9, 0.4, 0.9], [0.3, 0, 0, 0], [0, 0, 0, 0]], np.float32)
    areas, shared = truths.counts(0, full, np.array([0.3, 0.5], np.float32))
    assert areas.tolist() == [4, 2]
    assert shared.tolist() == [2, 1]
    assert truths.counts(1, full, np.array([0.5], np.float32))[1].tolist() == [0]
    assert truths.areas.tolist() == [2, 0]


@pytest.mark.parametrize("rule", [Rule(0.5), Rule(0.3, 2000, 0.4), Rule(0.7, 0, 0.55), Rule(0.2, 4000, 0.0)])
def test_the_table_says_what_the_masks_score(rule):
    found, table = stored()
    measured = tables.measure(found, Truths(list(table.pixels)), tune.THRESHOLDS)
    masks = dict(enumerate(text for _, text in encoded_masks(found, rule)))
    wanted = [metric.dice_of_texts(text, masks[row]) for row, text in enumerate(table.pixels)]
    np.testing.assert_allclose(measured.dice(rule), wanted)
    assert (measured.kept(rule) == [masks[row] != "" for row in range(len(table))]).all()


def test_the_decision_is_the_best_of_its_grid_and_repeats():
    found, table = stored()
    decision = tune.tune(found, table)
    assert decision == tune.tune(found, table)
    measured = tables.measure(found, Truths(list(table.pixels)), tune.THRESHOLDS)
    figures = decision.figures
    assert figures.in_sample == pytest.approx(measured.dice(decision.rule).mean())
    for rule in (Rule(0.5), Rule(0.3, 2000, 0.5), Rule(0.6, 1000, 0.55)):
        assert measured.dice(rule).mean() <= figures.in_sample + 1e-12
    assert figures.dice <= figures.in_sample
    assert figures.low <= figures.dice <= figures.high
    assert figures.all_empty == pytest.approx(0.5)
    assert figures.true_share == pytest.approx(0.5)
    assert (figures.frames, figures.subjects) == (32, 4)


def test_the_nested_figure_judges_each_subject_by_the_others():
    # Subject 1 is best with every mask kept, 2 and 3 with none: nested, nobody profits from himself.
    truth = np.array([9000, 9000, 0, 0, 0, 0])
    areas = np.full((len(tune.THRESHOLDS), 6), 9000)
    shared = np.where(truth > 0, areas, 0)
    measured = tables.Table(
        tune.THRESHOLDS, areas, shared, truth, np.full(6, 0.5), np.array([1, 1, 2, 2, 3, 3])
    )
    decision = tune.decide(measured, "made")
    assert decision.figures.in_sample == pytest.approx(4 / 6)
    # For 1 the others say empty (0 of 2 right); for 2 and 3 it is a draw of 2 against 2 frames: keep (the
    # first of equals), which is wrong on all 4.
    assert decision.figures.dice == pytest.approx(0)


def test_one_subject_alone_is_no_error():
    found, table = stored(subjects=1)
    assert tune.tune(found, table).figures.subjects == 1


def test_the_interval_by_a_case_that_is_known():
    low, high = tune.interval(np.array([5.0] * 10), np.array([10] * 10), 0)
    assert (low, high) == (0.5, 0.5)
    low, high = tune.interval(np.array([0.0, 10.0] * 20), np.array([10] * 40), 0)
    # A share of 1/2 over 40 subjects: plus or minus 1.96 * 0.5 / sqrt(40) = 0.155.
    assert low == pytest.approx(0.345, abs=0.03)
    assert high == pytest.approx(0.655, abs=0.03)


def test_a_decision_reads_back(tmp_path):
    found, table = stored()
    decision = tune.tune(found, table)
    decision.save(tmp_path / "decision.json")
    assert tune.load(tmp_path / "decision.json") == decision


def test_a_damaged_decision_is_named(tmp_path):
    (tmp_path / "decision.json").write_text('{"rule": {}, "figures": {}}')
    with pytest.raises(NerveError, match="is not a decision"):
        tune.load(tmp_path / "decision.json")


def test_frames_without_truth_are_refused():
    found, table = stored()
    with pytest.raises(NerveError, match="no mask rows"):
        tune.tune(found, table[table.subject != 2])


def test_a_blend_of_a_run_with_itself_is_the_run():
    found, _ = stored()
    both = blend([found, found])
    np.testing.assert_allclose(both.full(5), found.full(5), atol=1e-6)
    np.testing.assert_allclose(both.table.presence, found.table.presence)


def test_a_blend_is_the_mean_over_the_common_frames_in_any_working_size():
    found, _ = stored()
    rows = np.arange(len(found))[::-1]
    larger = np.full((len(found), 84, 116), 0.5, np.float16)
    other = Stored(found.table.iloc[rows][4:].reset_index(drop=True), (larger,), (rows[4:],), "other")
    both = blend([found, other])
    assert len(both) == len(found) - 4
    np.testing.assert_allclose(both.full(3), (found.full(3) + 0.5) / 2, atol=1e-3)


def test_enlarging_keeps_the_axes():
    probability = np.zeros((42, 58), np.float32)
    probability[10, 40] = 1
    full = enlarge(probability)
    assert full.shape == (420, 580)
    rows, columns = np.unravel_index(full.argmax(), full.shape)
    assert abs(rows - 105) <= 5
    assert abs(columns - 405) <= 5
