import numpy as np
import pytest
from decision_support import stored

from kaggle_nerve.decision import features, presence
from kaggle_nerve.decision.evidence import measure
from kaggle_nerve.maps.fullsize import Truths


@pytest.fixture(scope="module")
def evidence():
    found, table = stored(subjects=6, frames=10)
    return measure(found, Truths(list(table.pixels)))[0]


def test_the_classifier_tells_discs_from_noise(evidence):
    given = presence.cross_fit(evidence)
    assert given[evidence.present].min() > given[~evidence.present].max()


def test_a_frame_gets_the_same_number_alone_as_among_others(evidence):
    classifier = presence.fit(evidence)
    together = classifier(evidence)
    alone = [classifier(evidence.select(np.array([row])))[0] for row in range(len(evidence))]
    assert together.tolist() == alone


def test_no_subject_teaches_its_own_verdict(evidence):
    # The first subject's labels turned over: its own verdicts stay what they were.
    first = evidence.subjects == evidence.subjects[0]
    turned = {name: getattr(evidence, name) for name in evidence.__dataclass_fields__}
    turned["true_areas"] = np.where(first, 8000 * (evidence.true_areas == 0), evidence.true_areas)
    changed = presence.cross_fit(type(evidence)(**turned))
    assert changed[first].tolist() == presence.cross_fit(evidence)[first].tolist()
    assert changed[~first].tolist() != presence.cross_fit(evidence)[~first].tolist()


def test_parts_never_split_a_subject(evidence):
    rows = np.arange(len(evidence))
    splits = presence.subject_splits(evidence.subjects)
    assert sorted(np.concatenate([unseen for _, unseen in splits])) == rows.tolist()
    for seen, unseen in splits:
        assert not set(evidence.subjects[seen]) & set(evidence.subjects[unseen])


def test_a_feature_that_never_changed_gets_no_weight(evidence):
    classifier = presence.fit(evidence)
    constant = classifier.names.index("agreement")
    assert classifier.weights[constant] == pytest.approx(0, abs=1e-12)
    assert classifier.names == (*features.NAMES, "place")


def test_the_place_counts():
    # The same blobs everywhere; those with a mask lie left, those without right.
    found, table = stored(subjects=4, frames=8)
    maps = np.zeros((len(table), 42, 58), np.float16)
    maps[1::2, 15:27, 5:17] = 0.9
    maps[0::2, 15:27, 40:52] = 0.9
    table = table.assign(pixels=[table.pixels[1] if img % 2 == 0 else "" for img in table.img])
    truth = np.zeros((420, 580), np.uint8)
    truth[150:270, 50:170] = 1
    from kaggle_nerve.competition import rle

    texts = [rle.encode(truth) if text else "" for text in table.pixels]
    same = np.full((len(table), 1), 0.5)
    blobs = type(found)(found.table, same, (maps,), found.rows, "blobs")
    given = presence.cross_fit(measure(blobs, Truths(texts))[0])
    assert given[1::2].min() > 0.5 > given[0::2].max()
