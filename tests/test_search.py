"""The trials of a search: which count, who continues them, when they are pruned; without any network."""

import math
import shutil
import sqlite3
import threading
from pathlib import Path

import pytest
from optuna.trial import TrialState
from search_support import FakeTrainer, fail, old, score, search, settings, study, trial
from training_support import Told

from kaggle_nerve.errors import NerveError
from kaggle_nerve.locks import hold_lock
from kaggle_nerve.runs import Run
from kaggle_nerve.search import claims, table
from kaggle_nerve.search import trial as training
from kaggle_nerve.search.outcome import conclude
from kaggle_nerve.search.pruning import FoldScores, Plan, fold_scores
from kaggle_nerve.search.run import run_search
from kaggle_nerve.search.storage import parse_place
from kaggle_nerve.search.worker import SearchError, Worker
from kaggle_nerve.settings import load_preset, load_settings
from kaggle_nerve.storage import mark_complete


def numbers(trials):
    return [one.number for one in trials]


def test_continued_and_surplus_trials_do_not_count():
    trials = [
        trial(0, "COMPLETE", 0.5),
        trial(1, "FAIL", run="trial-0001"),  # killed, continued by 3
        trial(2, "FAIL", error="it collapsed"),
        trial(3, "FAIL", continues=1, run="trial-0001"),  # killed as well, continued by 5
        trial(4, "FAIL", surplus=True),
        trial(5, "RUNNING", continues=3, run="trial-0001"),
        trial(6, "WAITING", continues=3, run="trial-0001"),  # another worker wanted to continue it, too
        trial(7, "PRUNED", 0.4),
        trial(8, "WAITING", continues=7, run="trial-0007"),  # 7 was thought dead, and was finished after all
    ]
    assert numbers(claims.counted(trials)) == [0, 2, 5, 7]
    assert [one.number for one in trials if claims.is_void(one, trials)] == [4, 6, 8]
    assert claims.shown_number(trials[5]) == 1
    assert claims.successors(trials) == {1: 3, 3: 5, 7: 8}


def test_a_search_is_full_once_all_trials_are_taken():
    trials = [trial(0, "COMPLETE", 0.5), trial(1, "RUNNING"), trial(2, "FAIL")]
    assert not claims.is_full(trials, 4)
    assert claims.is_full(trials, 3)
    waiting = [*trials, trial(3, "WAITING", continues=1)]
    assert not claims.is_full(waiting, 3)  # there is one to continue
    assert [claims.is_surplus(trials[2], trials, count) for count in (2, 3)] == [True, False]


@pytest.mark.parametrize(
    ("attributes", "is_held", "shared", "left"),
    [
        ({"place": "here", "beat": old()}, True, True, False),
        ({"place": "here"}, False, True, True),
        ({"place": "here", "beat": old()}, None, False, True),
        ({"place": "there", "beat": old()}, None, False, True),
        (
            {"place": "there", "beat": old()},
            True,
            False,
            False,
        ),  # a shared folder: the lock says that it lives
        ({"place": "there", "beat": old() + 3600}, False, False, False),
        ({}, None, True, True),  # killed before it could say where it is
        ({}, None, False, False),  # begun a moment ago by a worker that is about to say so
    ],
)
def test_who_is_dead(attributes, is_held, shared, left):
    found = claims.left([trial(0, "RUNNING", **attributes)], "here", lambda name: is_held, shared)
    assert numbers(found) == [0] * left


def test_only_running_trials_that_count_are_left():
    place = {"place": "there", "beat": old()}
    trials = [
        trial(0, "COMPLETE", 0.5, **place),
        trial(1, "RUNNING", **place),
        trial(2, "WAITING", continues=1),
    ]
    assert claims.left(trials, "here", lambda name: None, False) == []


def test_steps_follow_the_folds_as_they_are_trained():
    plan = Plan(folds=3, epochs=4, side_by_side=2)
    assert plan.steps == 12
    counts = [plan.epochs_at(step, 4) for step in range(1, 13)]
    assert counts[:4] == [[1, 0, 0], [1, 1, 0], [2, 1, 0], [2, 2, 0]]
    assert counts[7:] == [[4, 4, 0], [4, 4, 1], [4, 4, 2], [4, 4, 3], [4, 4, 4]]
    # A trial with half of the preset's epochs is compared at equal shares of its own.
    assert [plan.epochs_at(step, 2) for step in (1, 2, 4, 12)] == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [2, 2, 2]]


def test_values_are_the_mean_of_the_best_scores_of_folds_past_their_first_half():
    plan = Plan(folds=2, epochs=4, side_by_side=1)
    first = FoldScores((0.1, 0.5, 0.4, 0.6), 4)
    assert plan.values([first, FoldScores((), 0)], 4) == {2: 0.5, 3: 0.5, 4: 0.6}
    second = FoldScores((0.9, 0.2, 0.2), 3)
    values = plan.values([first, second], 4)
    # In the second fold's first epoch only the first fold counts; from its second on both do.
    assert values == {2: 0.5, 3: 0.5, 4: 0.6, 5: 0.6, 6: pytest.approx(0.75), 7: pytest.approx(0.75)}
    assert plan.values([FoldScores((), 0), second], 4) == {}


def test_an_epoch_without_a_score_has_no_value():
    plan = Plan(folds=1, epochs=4, side_by_side=1)
    assert plan.values([FoldScores((-math.inf, -math.inf, 0.3), 3)], 4) == {3: 0.3}


def test_scores_are_read_from_histories(tmp_path):
    run = Run(tmp_path, settings("training.epochs=6"))
    folder = run.fold(0).folder
    (folder / "warm").mkdir(parents=True)
    (folder / "warm" / "history.csv").write_text("epoch,loss,dice\n1,0.9,0.3\n2,0.8,\n")
    (folder / "history.csv").write_text("epoch,loss,dice\n1,0.7,0.5\n2,0.6,nan\n")
    begun = FoldScores((0.3, -math.inf, 0.5, -math.inf), 4)
    assert fold_scores(run, 2, "dice") == [begun, FoldScores((), 0)]
    mark_complete(folder, {"epochs": 2})  # it ended early, without patience for more
    assert fold_scores(run, 1, "dice") == [FoldScores(begun.scores, 6)]


@pytest.mark.parametrize("storage", ["sqlite", "journal"])
def test_a_search_trains_as_many_trials_as_wanted_and_tells_what_is_selection(tmp_path, storage):
    folder, told = tmp_path / "search-tiny", Told()
    trainer = FakeTrainer(told)
    outcome, elsewhere = run_search(search(folder), parse_place(storage, folder), 6, trainer)
    assert (len(outcome.rows), elsewhere, len(trainer.trained)) == (6, 0, 7)
    best = max(outcome.rows, key=lambda row: row.figures["dice"])
    assert outcome.best == best
    assert outcome.preset.values == {"optimiser.learning_rate": 3e-3, "training.batch": 16}
    assert outcome.preset.figures["dice"] == 0.893  # 0.9 - |3e-3 - 1e-2|
    assert outcome.again["dice"] == pytest.approx(best.value - 0.01)
    lines = table.sentence(outcome).splitlines()
    assert lines[0] == (
        f"Best of 6 trials by mean Dice: {best.value:.4f} (trial {best.number}); trained again with another seed: "
        f"{best.value - 0.01:.4f} ({best.value - 0.03:.4f} to {best.value + 0.01:.4f}), so 0.0100 of it is selection "
        "and chance."
    )
    assert lines[1].startswith("The preset itself: 0.8930; against the second training, ")
    # Only the best trial's run is kept.
    assert {path.name for path in folder.glob("trial-*")} >= {f"trial-{best.number:04d}"}
    assert {path.name for path in folder.glob("trial-0*")} == {f"trial-{best.number:04d}"}
    assert "Trial 0: 0.8930. 1 of 6 trials are finished; best so far 0.8930, trial 0" in told.lines
    # The preset file is complete, and has the seed that the user gave.
    saved = load_preset(str(folder / "best.toml"))
    assert saved.optimiser.learning_rate == best.values["optimiser.learning_rate"]
    assert (saved.seed, saved.folds) == (0, "2")
    assert saved.description.startswith("Best of 6 trials of search search-tiny: dice ")
    assert load_settings(folder / "again" / "settings.toml").seed == 1
    # The same call once more has nothing to train but the last run, which was trained already.
    again = FakeTrainer()
    assert run_search(search(folder), parse_place(storage, folder), 6, again)[0] == outcome
    assert again.trained == ["again"]


def test_a_longer_search_goes_on(tmp_path):
    place = parse_place("sqlite", tmp_path / "s")
    run_search(search(tmp_path / "s"), place, 3, FakeTrainer())
    trainer = FakeTrainer()
    outcome, _ = run_search(search(tmp_path / "s"), place, 5, trainer)
    assert (len(outcome.rows), trainer.trained) == (5, ["trial-0003", "trial-0004", "again"])


def test_trials_are_proposed_alike_whether_the_search_is_interrupted_or_not(tmp_path):
    def parameters(name: str, *counts: int) -> list[dict]:
        for count in counts:
            Worker(study(tmp_path / name), FakeTrainer()).run(count)
        return [one.params for one in study(tmp_path / name).trials()]

    at_once = parameters("one", 8)
    assert parameters("two", 3, 4, 8) == at_once
    assert len({str(one) for one in at_once}) == 8


def test_a_stopped_trial_goes_on_in_its_run(tmp_path):
    """Stopped in the third epoch of the third trial: the same run goes on in its fourth."""
    epochs = []

    def note(run: Run, number: int) -> None:
        epochs.append((run.name, number))

    def stop() -> bool:
        return len(epochs) == 2 * 8 + 3

    assert not Worker(study(tmp_path / "s"), FakeTrainer(stop=stop, epoch=note)).run(4)
    assert epochs[-1] == ("trial-0002", 3)
    trainer = FakeTrainer(told := Told(), epoch=note)
    assert Worker(study(tmp_path / "s"), trainer).run(4)
    assert epochs[19] == ("trial-0002", 4)
    assert trainer.trained == ["trial-0002", "trial-0004"]
    done = claims.counted(study(tmp_path / "s").trials())
    assert [(claims.shown_number(one), one.state.name) for one in done] == [
        (0, "COMPLETE"), (1, "COMPLETE"), (2, "COMPLETE"), (4, "COMPLETE"),
    ]  # fmt: skip
    assert any(line.startswith("Trial 2: ") for line in told.lines)


class Killed(BaseException):
    """As if the process had been killed: nothing is told to the study."""


def die(run: Run, number: int) -> None:
    if (run.name, number) == ("trial-0001", 3):
        raise Killed


def test_a_dead_workers_trial_is_taken_over(tmp_path):
    with pytest.raises(Killed):
        Worker(study(tmp_path / "s"), FakeTrainer(epoch=die)).run(3)
    assert [one.state.name for one in study(tmp_path / "s").trials()] == ["COMPLETE", "RUNNING"]
    # While its lock is held, somebody trains it.
    other = FakeTrainer()
    with hold_lock(tmp_path / "s" / "locks" / "trial-0001", "held"):
        assert Worker(study(tmp_path / "s"), other).run(3)
    assert other.trained == ["trial-0002"]
    trainer = FakeTrainer(told := Told())
    outcome, _ = run_search(search(tmp_path / "s"), parse_place("sqlite", tmp_path / "s"), 3, trainer)
    assert trainer.trained == ["trial-0001", "again"]
    assert "Trial 1 was interrupted and goes on." in told.lines
    assert sorted(row.number for row in outcome.rows) == [0, 1, 2]
    states = [one.state.name for one in study(tmp_path / "s").trials()]
    assert states == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]


def test_a_takeover_that_was_cut_off_is_not_repeated(tmp_path):
    """Killed between the two steps of handing a trial over: it has a successor, and seems to run."""
    with pytest.raises(Killed):
        Worker(study(tmp_path / "s"), FakeTrainer(epoch=die)).run(3)
    opened = study(tmp_path / "s")
    opened.enqueue(opened.trials()[1].params, {claims.CONTINUES: 1, claims.RUN: "trial-0001"})
    assert Worker(opened, FakeTrainer()).run(3)
    trials = opened.trials()
    assert [one.state.name for one in trials] == ["COMPLETE", "FAIL", "COMPLETE", "COMPLETE"]
    assert trials[2].user_attrs["continues"] == 1


def test_the_presets_trial_stays_the_presets_when_it_is_continued(tmp_path):
    stops = iter([False, True])
    assert not Worker(study(tmp_path / "s"), FakeTrainer(stop=lambda: next(stops, True))).run(2)
    outcome, _ = run_search(search(tmp_path / "s"), parse_place("sqlite", tmp_path / "s"), 2, FakeTrainer())
    assert outcome.preset.figures["dice"] == 0.893


def test_workers_share_the_trials(tmp_path):
    """Two in threads of one process, on one storage: never more trials than wanted, none twice."""
    trainer = [FakeTrainer(), FakeTrainer()]
    threads = [threading.Thread(target=Worker(study(tmp_path / "s"), one).run, args=(10,)) for one in trainer]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    done = study(tmp_path / "s").trials()
    assert [one.state.name for one in done] == ["COMPLETE"] * 10
    assert sorted(trainer[0].trained + trainer[1].trained) == [f"trial-{number:04d}" for number in range(10)]
    assert min(len(one.trained) for one in trainer) > 0


def test_surplus_trials_of_workers_without_a_common_folder_are_dropped(tmp_path):
    opened = study(tmp_path / "s")
    worker = Worker(opened, FakeTrainer())
    worker.run(3)
    late = opened.ask(3)  # asked by another worker before the third was finished
    found = opened.trials()
    assert claims.is_surplus(found[late.number], found, 3)
    assert not claims.is_surplus(found[2], found, 3)
    opened.note(late, surplus=True)
    opened.finish(late, TrialState.FAIL)
    assert len(claims.counted(opened.trials())) == 3
    worker.run(4)
    assert len(claims.counted(opened.trials())) == 4


def test_a_failed_trial_is_told_and_the_search_goes_on(tmp_path):
    def fail_once(run: Run, number: int) -> None:
        if run.name == "trial-0001":
            fail(run, number)

    folder, told = tmp_path / "s", Told()
    outcome, _ = run_search(
        search(folder), parse_place("sqlite", folder), 4, FakeTrainer(told, epoch=fail_once)
    )
    failed = outcome.rows[-1]
    assert (failed.number, failed.state, failed.error) == (
        1, "failed", "Fold 0: The loss became nan in epoch 1; train another run.",
    )  # fmt: skip
    line = next(one for one in told.lines if one.startswith("Trial 1: "))
    assert line.startswith("Trial 1: failed: Fold 0: The loss became nan in epoch 1. 2 of 4")
    text = table.table(outcome)
    assert "   -     1  failed (Fold 0: The loss became nan in epoch 1); " in text
    assert text.splitlines()[-1] == "4 trials: 3 finished, 1 failed; ranked by mean Dice."


def test_settings_that_do_not_fit_together_fail_alone(tmp_path):
    """A window above the middle does not go with frames upside down: no network is built for that."""
    space = "model.window = [0.8, 1.0]\naugmentation.vflip = [0.0, 0.5]"
    opened = study(tmp_path / "s", space=space)
    trainer = FakeTrainer()
    assert Worker(opened, trainer).run(12)
    errors = {one.user_attrs["error"] for one in opened.trials() if one.state.name == "FAIL"}
    assert len(errors) == 1
    assert errors.pop().startswith("mine.toml: model.window = 0.8 leaves out more below than above")
    assert 0 < len(trainer.trained) < 12


def test_nothing_but_failures_ends_the_search(tmp_path):
    folder = tmp_path / "s"
    with pytest.raises(SearchError) as caught:
        Worker(study(folder), FakeTrainer(epoch=fail)).run(20)
    assert str(caught.value) == (
        "3 trials failed one after the other, the last one with: Fold 0: The loss became nan in epoch 1; train another "
        "run. The same command goes on with other trials."
    )
    assert len(study(folder).trials()) == 3
    with pytest.raises(NerveError, match="None of the 3 trials of search s was finished"):
        conclude(study(folder), FakeTrainer())


def test_bad_trials_are_pruned(tmp_path, monkeypatch):
    """Five good trials; the sixth has the lowest score, and is given up in the middle of its first fold."""
    epochs = []
    rates = iter([3e-3, 1e-2, 9e-3, 8e-3, 7e-3, 9e-2])
    space = "optimiser.learning_rate = {low = 1e-4, high = 1e-1}"
    opened = study(tmp_path / "s", space=space, pruner="median")
    next(rates)  # the preset's own
    for rate in rates:
        opened.enqueue({"optimiser.learning_rate": rate}, {})
    trainer = FakeTrainer(told := Told(), epoch=lambda run, number: epochs.append((run.name, number)))
    monkeypatch.setattr(training, "LOOK_SECONDS", 0.0)
    assert Worker(opened, trainer).run(6)
    assert [one.state.name for one in opened.trials()] == ["COMPLETE"] * 5 + ["PRUNED"]
    assert epochs[-1] == ("trial-0005", 2)  # the first step with a value
    pruned = opened.trials()[5]
    assert pruned.value == pytest.approx(score(settings("optimiser.learning_rate=0.09")) / 2)
    assert not (tmp_path / "s" / "trial-0005").exists()
    assert any(line.startswith("Trial 5: pruned. 6 of 6") for line in told.lines)
    assert opened.trials()[0].intermediate_values == {
        2: pytest.approx(0.893 / 2), 3: pytest.approx(0.893 * 0.75), 4: pytest.approx(0.893), 5: pytest.approx(0.893),
        6: pytest.approx(0.893 * 0.75), 7: pytest.approx(0.893 * 0.875), 8: pytest.approx(0.893),
    }  # fmt: skip


def test_a_trial_that_another_worker_has_taken_over_is_given_up(tmp_path, monkeypatch):
    """As after hours of sleep: the other one believed this worker dead."""
    monkeypatch.setattr(training, "LOOK_SECONDS", 0.0)
    opened = study(tmp_path / "s")
    epochs = []

    def take(run: Run, number: int) -> None:
        epochs.append((run.name, number))
        if epochs[-1] == ("trial-0001", 2):
            study(tmp_path / "s").finish(1, TrialState.FAIL)

    assert Worker(opened, FakeTrainer(told := Told(), epoch=take)).run(3)
    assert [one for one in epochs if one[0] == "trial-0001"] == [("trial-0001", 1), ("trial-0001", 2)]
    assert any(line.startswith("Trial 1: failed: another worker has taken it over.") for line in told.lines)


@pytest.mark.parametrize("pruner", ["hyperband", "none"])
def test_other_pruners_end_searches_too(tmp_path, pruner):
    assert Worker(study(tmp_path / "s", pruner=pruner), FakeTrainer()).run(8)
    assert len(claims.counted(study(tmp_path / "s", pruner=pruner).trials())) == 8


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"preset": settings("model.width=16")}, "with model.width = 8, not 16"),
        ({"space": "training.batch = [8, 16]"}, 'for optimiser.learning_rate in its space, not "nothing"'),
        ({"folds": "3"}, "with --folds 2, not 3"),
        ({"objective": "presence_auc"}, "with --objective dice, not presence_auc"),
        ({"pruner": "median"}, "with --pruner none, not median"),
        ({"source": "other"}, "on other training data"),
    ],
)
def test_another_search_under_the_same_name_is_refused(tmp_path, changes, sentence):
    study(tmp_path / "s")
    with pytest.raises(NerveError) as caught:
        study(tmp_path / "s", **changes)
    assert sentence in str(caught.value)
    assert str(caught.value).endswith(
        "; use the same to go on with it, or another --name for another search."
    )


def test_another_storage_under_the_same_name_is_refused(tmp_path):
    study(tmp_path / "s")
    with pytest.raises(
        NerveError, match="Search s was begun with --storage sqlite, not journal; name the same"
    ):
        study(tmp_path / "s", storage="journal")


def test_a_runs_folder_is_no_searchs(tmp_path):
    FakeTrainer().train_run(tmp_path, "small", settings(), lambda: True)
    with pytest.raises(NerveError, match="small is a run and no search; name another --name"):
        study(tmp_path / "small")


def test_a_preset_outside_of_the_space_is_no_trial(tmp_path):
    told, folder = Told(), tmp_path / "s"
    space = "training.batch = [4, 8]"
    outcome, _ = run_search(search(folder, space), parse_place("sqlite", folder), 2, FakeTrainer(told))
    assert "The preset itself lies outside of the space, so it is no trial." in told.lines
    assert outcome.preset is None
    assert "The preset lies outside of the space, so there is nothing to compare with." in table.sentence(
        outcome
    )


def test_a_preset_that_fails_is_told(tmp_path):
    def fail_first(run: Run, number: int) -> None:
        if run.name == "trial-0000":
            fail(run, number)

    folder = tmp_path / "s"
    outcome, _ = run_search(search(folder), parse_place("sqlite", folder), 4, FakeTrainer(epoch=fail_first))
    assert "The preset's own trial 0 failed, so there is nothing to compare with." in table.sentence(outcome)
    assert "failed, the preset" in (folder / "report.html").read_text(encoding="utf-8")


def test_the_preset_file_has_the_presets_own_folds(tmp_path):
    folder = tmp_path / "s"
    trainer = FakeTrainer()
    run_search(
        search(folder, preset=settings("folds=3+all"), folds="2+all"),
        parse_place("sqlite", folder),
        2,
        trainer,
    )
    assert load_settings(folder / "again" / "settings.toml").folds == "2"
    assert load_preset(str(folder / "best.toml")).folds == "3+all"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("postgresql://me:pass@host:5433/db", "postgresql://me@host:5433/db"),
        ("postgres://host/db", "postgresql://host/db"),
        ("postgresql+psycopg://me:p%40ss@host/db?sslmode=require", "postgresql://me@host/db"),
    ],
)
def test_a_servers_name_has_no_password(tmp_path, url, name):
    assert parse_place(url, tmp_path).name == name


@pytest.mark.parametrize(
    "text",
    [
        "mysql://me:secret@host/db",
        "postgresql://me:secret@host",
        "postgresql://me:se@cr:et@host:x/db",
        "file",
    ],
)
def test_other_storages_are_refused_without_their_password(tmp_path, text):
    with pytest.raises(NerveError) as caught:
        parse_place(text, tmp_path)
    assert str(caught.value).startswith(
        "--storage must be sqlite, journal, or postgresql://USER:PASSWORD@HOST:PORT"
    )
    assert "secret" not in str(caught.value)


def test_a_storage_that_cannot_be_used_is_named(tmp_path):
    with pytest.raises(NerveError) as caught:
        study(tmp_path / "s", storage="postgresql://me:secret@127.0.0.1:9/db")
    assert "postgresql://me@127.0.0.1:9/db cannot be used (" in str(caught.value)
    assert "refused" in str(caught.value)
    assert str(caught.value).endswith(
        "check that the server runs, and the address, user, password and database in --storage."
    )
    assert "secret" not in str(caught.value)
    for storage, file in (("sqlite", "trials.db"), ("journal", "trials.journal")):
        folder = tmp_path / storage
        folder.mkdir()
        (folder / file).write_text("no trials\nat all\n")
        with pytest.raises(
            NerveError, match=rf"storage .*{file} cannot be used \(.+\): if it is damaged or not Optuna's"
        ):
            study(folder, storage=storage)


def test_a_storage_of_another_version_of_optuna_is_named(tmp_path):
    study(tmp_path / "s")
    with sqlite3.connect(tmp_path / "s" / "trials.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'v99.0.0.a'")
    with pytest.raises(NerveError, match="is no longer compatible with the table schema"):
        study(tmp_path / "s")


def test_runs_of_failed_trials_keep_what_explains_them(tmp_path):
    def fail_late(run: Run, number: int) -> None:
        if run.name == "trial-0001" and run.fold(1).folder.is_dir():
            fail(run, number)

    Worker(study(tmp_path / "s"), FakeTrainer(epoch=fail_late)).run(3)
    names = {path.name for path in (tmp_path / "s" / "trial-0001").rglob("*") if path.is_file()}
    assert names == {"settings.toml", "history.csv", "worker.log"}


def test_more_runs_are_kept_on_request(tmp_path):
    opened = study(tmp_path / "s")
    Worker(opened, FakeTrainer(), keep=2).run(5)
    best = [claims.run_name(one) for one in claims.ranked(opened.trials())[:2]]
    assert sorted(path.name for path in (tmp_path / "s").glob("trial-0*")) == sorted(best)
    shutil.rmtree(tmp_path / "s" / best[0])
    Worker(opened, FakeTrainer(), keep=2).run(5)


def test_the_page_has_figures_plots_and_trials(tmp_path):
    folder = tmp_path / "search-tiny"
    run_search(search(folder), parse_place("sqlite", folder), 4, FakeTrainer())
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Best of 4 trials by mean Dice" in page
    assert page.count("<svg") == 3
    assert "http-equiv" in page
    assert "src=" not in page
    for name in ("history", "importance", "parallel"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")


def test_two_trials_are_enough_for_a_page(tmp_path):
    folder = tmp_path / "s"
    run_search(search(folder), parse_place("sqlite", folder), 2, FakeTrainer())
    assert "Fewer than 3 trials are finished." in (folder / "report.html").read_text(encoding="utf-8")
    assert Path(folder / "importance.png").is_file()
