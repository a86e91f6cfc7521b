import numpy as np
import pandas as pd
import pytest

from kaggle_nerve.data import folds
from kaggle_nerve.errors import NerveError


def frames_of(rates: list[float], count: int = 20) -> pd.DataFrame:
    """``count`` frames of each subject, of which a subject's own rate has a mask."""
    rows = [(s, i < rate * count) for s, rate in enumerate(rates, 1) for i in range(count)]
    return pd.DataFrame(rows, columns=["subject", "has_mask"])


RATES = list(np.linspace(0, 0.95, 47))


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_every_subject_is_held_out_once_and_the_rates_are_alike(count):
    frames = frames_of(RATES)
    assigned = folds.assign(frames, str(count), 0)
    assert sorted(assigned.subject) == list(range(1, 48))
    assert set(assigned.fold) == set(range(count))
    sizes = assigned.groupby("fold").size()
    assert sizes.max() - sizes.min() <= 2
    rates = assigned.groupby("fold").with_mask.sum() / assigned.groupby("fold").frames.sum()
    # Random folds of subjects swing by 0.07 (one deviation); strata keep all of them together.
    assert rates.max() - rates.min() < 0.14


def test_split_never_shares_a_subject():
    frames = frames_of(RATES)
    assigned = folds.assign(frames, "5", 3)
    held_all = []
    for fold in range(5):
        train, held = folds.split(frames, assigned, fold)
        assert not set(frames.subject.iloc[train]) & set(frames.subject.iloc[held])
        assert len(train) + len(held) == len(frames)
        held_all += held.tolist()
    assert sorted(held_all) == list(range(len(frames)))


def test_the_seed_decides():
    frames = frames_of(RATES)
    assert folds.assign(frames, "5", 1).equals(folds.assign(frames, "5", 1))
    assert not folds.assign(frames, "5", 1).equals(folds.assign(frames, "5", 2))


def test_a_hold_out_is_as_asked():
    assigned = folds.assign(frames_of(RATES), "42/5", 0)
    assert (assigned.fold == 0).sum() == 5
    assert folds.count(assigned) == 1
    rates = assigned.with_mask[assigned.fold == 0] / 20
    assert rates.min() < 0.35
    assert rates.max() > 0.6


@pytest.mark.parametrize(("subjects", "held"), [(47, 5), (10, 1), (2, 1)])
def test_a_hold_out_scales_with_the_subjects(subjects, held):
    assigned = folds.assign(frames_of(RATES[:subjects]), "42/5", 0)
    assert (assigned.fold == 0).sum() == held


def test_too_few_subjects_are_named():
    with pytest.raises(NerveError, match="5 folds need 5 subjects"):
        folds.assign(frames_of([0.1, 0.5]), "5", 0)
    with pytest.raises(NerveError, match="has one subject"):
        folds.assign(frames_of([0.1]), "42/5", 0)


def test_a_leak_raises(tmp_path):
    frames = frames_of([0.1, 0.5, 0.9])
    leaking = pd.DataFrame({"subject": [1, 2, 3, 1], "fold": [0, 1, 1, 1], "frames": 20, "with_mask": 2})
    with pytest.raises(NerveError, match=r"Subject 1 .* a leak"):
        folds.split(frames, leaking, 0)
    folds.save(leaking, tmp_path / "folds.csv")
    with pytest.raises(NerveError, match="subject 1 into two folds"):
        folds.load(tmp_path / "folds.csv")


def test_other_data_is_refused():
    assigned = folds.assign(frames_of([0.1, 0.5, 0.9]), "3", 0)
    with pytest.raises(NerveError, match="Subject 4 has no fold"):
        folds.split(frames_of([0.1, 0.5, 0.9, 0.3]), assigned, 0)


def test_folds_read_back(tmp_path):
    assigned = folds.assign(frames_of(RATES), "5", 0)
    folds.save(assigned, tmp_path / "folds.csv")
    assert folds.load(tmp_path / "folds.csv").equals(assigned)


@pytest.mark.parametrize(
    ("text", "said"),
    [("a,b\n1,2\n", "must have the columns"), ("subject,fold,frames,with_mask\n1,1,2,1\n", "without a gap")],
)
def test_a_mended_file_that_is_wrong_is_named(tmp_path, text, said):
    (tmp_path / "folds.csv").write_text(text)
    with pytest.raises(NerveError, match=said):
        folds.load(tmp_path / "folds.csv")
