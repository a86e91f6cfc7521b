import dataclasses

import numpy as np
import pytest
from decision_support import stored
from scipy.optimize import nnls

from kaggle_nerve.decision import blends, tune
from kaggle_nerve.errors import NerveError
from kaggle_nerve.maps.fullsize import Truths
from kaggle_nerve.prediction.stored import blend


def test_weights_are_those_of_least_squares_and_never_negative():
    good, table = stored(shift=1)
    other, _ = stored(shift=-1, name="other")
    # A third run whose maps are those of another seed: it knows nothing of these frames.
    strange, _ = stored(seed=9, shift=3, name="strange")
    both = blend([good, other, strange])
    found = {method.name: method for method in blends.methods(both, Truths(list(table.pixels)))}
    weights = np.array(found["weights"].final.weights)
    members = np.stack([both.members(row).reshape(3, -1) for row in range(len(both))], axis=1).reshape(3, -1)
    truths = Truths(list(table.pixels))
    truth = np.concatenate([truths.mask(row).reshape(-1) for row in range(len(both))])
    # The same on the pixels themselves, every 53rd of them.
    wanted, _ = nnls(members.T[::53].astype(float), truth[::53].astype(float))
    assert weights.sum() == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(weights, wanted / wanted.sum(), atol=0.02)
    assert weights[2] < 0.1 < weights[:2].min()


def test_what_is_learned_never_saw_the_subject():
    found, table = stored(subjects=6)
    other, _ = stored(subjects=6, shift=-1, name="other")
    both, texts = blend([found, other]), list(table.pixels)
    first = both.table.subject.to_numpy() == 1
    before = {method.name: method for method in blends.methods(both, Truths(texts))}
    turned = [
        texts[5] if mine and not text else "" if mine else text
        for text, mine in zip(texts, first, strict=True)
    ]
    after = {method.name: method for method in blends.methods(both, Truths(turned))}
    row = int(np.flatnonzero(first)[0])
    assert after["weights"].by_row(row) == before["weights"].by_row(row)
    assert after["weights"].final != before["weights"].final


def test_votes_take_each_runs_own_best_threshold():
    sure, table = stored(shift=0)
    faint = dataclasses.replace(sure, parts=(sure.parts[0] * np.float16(0.4),), names=("faint",))
    found = {
        method.name: method for method in blends.methods(blend([sure, faint]), Truths(list(table.pixels)))
    }
    high, low = found["vote"].final.thresholds
    assert low < 0.36 < high
    assert found["vote"].is_learned
    assert not found["mean"].is_learned


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_better_of_two_runs_is_taken_alone_whatever_their_order(order):
    # Further off on two subjects and nearer on one: on the mean worse, but within noise.
    good, table = stored(subjects=6, shift=2)
    maps, subjects = good.parts[0].copy(), table.subject.to_numpy()
    for subject, shift in ((1, 3), (2, 3), (3, 1)):
        mine = subjects == subject
        maps[mine] = stored(subjects=6, shift=shift)[0].parts[0][mine]
    worse = dataclasses.replace(good, parts=(maps,), names=("worse",), source="worse")
    decided = tune.tune(blend([(good, worse)[place] for place in order]), table)
    rows = {row.name: row for row in decided.comparison["blends"]}
    assert rows["worse"].dice < rows["made"].dice
    assert rows["made"].chosen


def test_a_run_named_as_a_way_to_blend_is_refused():
    good, table = stored()
    other, _ = stored(shift=1, name="vote")
    with pytest.raises(NerveError, match="Run vote has the name of a way to blend"):
        tune.tune(blend([good, other]), table)


def test_a_useless_run_is_left_out():
    good, table = stored(subjects=6, shift=0)
    # Discs in the places of other frames: the mean with it is worse than the good run alone.
    bad = dataclasses.replace(
        good,
        parts=(good.parts[0][::-1].copy(),),
        presences=good.presences[::-1].copy(),
        names=("bad",),
        source="bad",
    )
    decided = tune.tune(blend([good, bad]), table)
    assert next(row.name for row in decided.comparison["blends"] if row.chosen) == "made"
    assert decided.blend.weights == (1.0, 0.0)
