from itertools import product

import numpy as np
import pytest
from decision_support import stored
from hypothesis import given, settings
from hypothesis import strategies as st

from kaggle_nerve.competition.metric import dice_of_counts
from kaggle_nerve.decision import candidates
from kaggle_nerve.decision.calibration import Calibration
from kaggle_nerve.decision.evidence import measure
from kaggle_nerve.decision.rule import ExpectedDice, Thresholds, best_cuts
from kaggle_nerve.maps import levels
from kaggle_nerve.maps.fullsize import Truths

AS_GIVEN = Calibration((0.0, 1.0), (0.0, 1.0))


def evidence_of(**what):
    found, table = stored(**what)
    return measure(found, Truths(list(table.pixels)))[0]


def reached_of(pixels) -> np.ndarray:
    return levels.at_least(levels.histogram(np.array([pixels], np.uint8)))[None]


def test_thresholds_by_hand():
    evidence = evidence_of(subjects=1, frames=2)
    empty, disc = evidence.cut_areas[:, levels.cut(0.5)]
    assert empty == 0
    assert disc > 10000
    sure = np.array([0.9, 0.9])
    assert Thresholds(0.5).keeps_mask(evidence, sure).tolist() == [False, True]
    assert Thresholds(0.5, area=int(disc)).keeps_mask(evidence, sure).tolist() == [False, True]
    assert Thresholds(0.5, area=int(disc) + 1).keeps_mask(evidence, sure).tolist() == [False, False]
    assert Thresholds(0.5, presence=0.91).keeps_mask(evidence, sure).tolist() == [False, False]
    # Confident pixels decide whether there is a mask, the lower threshold where it ends.
    triplet = Thresholds(0.05, area=100, confident=0.5)
    assert triplet.keeps_mask(evidence, sure).tolist() == [False, True]
    assert triplet.kept_cuts(evidence).tolist() == [13, 13]
    assert Thresholds(0.05, area=100).keeps_mask(evidence, sure).tolist() == [True, True]


def brute_force(pixels) -> float:
    """The largest 2 sum(p in mask) / (|mask| + sum(p)) over all masks of the pixels."""
    p = np.array(pixels) / 255
    masks = np.array(list(product([0, 1], repeat=len(p))))[1:]
    return float((2 * (masks @ p) / (masks.sum(axis=1) + p.sum())).max())


@given(st.lists(st.integers(0, 255), min_size=1, max_size=9).filter(any))
def test_the_expected_dice_mask_equals_brute_force(pixels):
    cuts, ratio = best_cuts(reached_of(pixels), AS_GIVEN)
    mask = np.array(pixels) >= cuts[0]
    p = np.array(pixels) / 255
    assert ratio[0] == pytest.approx(brute_force(pixels))
    assert 2 * p[mask].sum() / (mask.sum() + p.sum()) == pytest.approx(ratio[0])


@settings(max_examples=40)
@given(st.lists(st.integers(0, 255), min_size=6, max_size=8).filter(any))
def test_the_mask_is_nearly_the_best_for_the_true_expectation(pixels):
    # The ratio of expectations stands for the expectation of the ratio, which all 2^n truths give.
    p = np.array(pixels) / 255
    truths = np.array(list(product([0, 1], repeat=len(p))))
    weights = np.prod(np.where(truths, p, 1 - p), axis=1)

    def expected(mask):
        return float(weights @ dice_of_counts(truths @ mask, truths.sum(axis=1), mask.sum()))

    cut = best_cuts(reached_of(pixels), AS_GIVEN)[0][0]
    best = max(expected(np.array(mask)) for mask in product([0, 1], repeat=len(p)) if any(mask))
    assert expected((np.array(pixels) >= cut).astype(int)) >= best - 0.1


def test_a_mask_is_kept_where_that_is_expected_to_score_more():
    # A single sure pixel: d = 1, so a presence over one half is enough; at d = 0.6 it takes 0.625.
    evidence = evidence_of(subjects=1, frames=2)
    for quality, limit in ((1.0, 0.5), (0.6, 0.625)):
        rule = ExpectedDice(AS_GIVEN, Calibration((0.0, 1.0), (quality, quality)))
        kept = [rule.keeps_mask(evidence, np.full(2, limit + by)).tolist()[1] for by in (-0.01, 0.01)]
        assert kept == [False, True]


def test_no_pixel_no_mask():
    evidence = evidence_of(subjects=1, frames=2)
    nothing = np.zeros_like(evidence.cut_areas)
    nothing[:, 0] = 420 * 580
    empty = type(evidence)(nothing, *[getattr(evidence, n) for n in list(evidence.__dataclass_fields__)[1:]])
    rule = ExpectedDice(AS_GIVEN, Calibration((0.0, 1.0), (1.0, 1.0)))
    assert not rule.keeps_mask(empty, np.ones(2)).any()
    assert not Thresholds(0.5).keeps_mask(empty, np.ones(2)).any()


@pytest.mark.parametrize("confident", [None, (0.5, 0.8)])
def test_the_search_finds_the_best_of_its_grid(confident):
    evidence = evidence_of(subjects=3, frames=6)
    thresholds, areas, presences = (0.3, 0.5, 0.7), (0, 5000, 14000), (0.0, 0.4, 0.6)
    found = candidates.search(evidence, evidence.presence, thresholds, areas, presences, confident)

    def score(rule):
        cuts = np.where(
            rule.keeps_mask(evidence, evidence.presence), rule.kept_cuts(evidence), levels.NOTHING
        )
        return candidates.dice(evidence, cuts).mean()

    grid = [
        Thresholds(t, a, p, sure)
        for t, a, p, sure in product(thresholds, areas, presences, confident or (None,))
        if sure is None or t <= sure
    ]
    assert score(found) == pytest.approx(max(map(score, grid)))


def test_learned_expected_dice_masks_know_that_the_maps_are_off():
    evidence = evidence_of(subjects=4, frames=8)
    rule = candidates.learn_expected(evidence)
    # The sure pixels are right in about 10 of 12 columns.
    assert rule.pixels(np.array([0.92])) == pytest.approx(10 / 12, abs=0.05)
    assert rule.quality(np.array([0.9])) == pytest.approx(10 / 12, abs=0.05)


@pytest.mark.parametrize("candidate", candidates.CANDIDATES, ids=lambda one: one.name)
@pytest.mark.parametrize("kind", ["mixed", "all empty", "all present"])
def test_every_candidate_learns_from_any_frames(candidate, kind):
    evidence = evidence_of(subjects=3, frames=6)
    if kind != "mixed":
        evidence = evidence.select(evidence.present == (kind == "all present"))
    learned = candidate.learn(evidence)
    cuts = learned.cuts(evidence)
    assert ((cuts >= 1) & (cuts <= levels.NOTHING)).all()
    # One empty frame scores 1 only if it is called so: what is learned beats or equals masks everywhere.
    everywhere = candidates.dice(evidence, np.full(len(evidence), levels.cut(0.5))).mean()
    assert candidates.dice(evidence, cuts).mean() >= everywhere - 1e-9
