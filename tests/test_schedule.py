import pytest

from kaggle_nerve.settings import OptimiserSettings, Settings, TrainingSettings, apply_changes
from kaggle_nerve.training.schedule import (
    Pace,
    ends_cycle,
    is_scored,
    learning_rate,
    plateau_factor,
    positive_rate,
)
from kaggle_nerve.training.validation import rank


def test_warm_up_then_half_a_cosine():
    settings = OptimiserSettings(learning_rate=0.01, warmup=0.2)
    assert learning_rate(0.0, settings) == 0
    assert learning_rate(0.1, settings) == pytest.approx(0.005)
    assert learning_rate(0.2, settings) == pytest.approx(0.01)
    assert learning_rate(0.6, settings) == pytest.approx(0.005)
    assert learning_rate(1.0, settings) == pytest.approx(0, abs=1e-12)


def test_a_constant_rate():
    settings = OptimiserSettings(learning_rate=0.01, warmup=0.0, schedule="constant")
    assert {learning_rate(p, settings) for p in (0, 0.5, 1)} == {0.01}


def test_the_positive_rate_falls_to_the_natural_one():
    settings = TrainingSettings(positive_rate=0.8, positive_share=0.5)
    assert positive_rate(0.0, 0.4, settings) == pytest.approx(0.8)
    assert positive_rate(0.25, 0.4, settings) == pytest.approx(0.6)
    assert positive_rate(0.5, 0.4, settings) is None
    assert positive_rate(0.0, 0.4, TrainingSettings(positive_rate=0.0)) is None


def epoch(pace: Pace, *clock: float | None) -> int:
    steps = pace.start_epoch(*clock)
    for _ in range(steps):
        pace.step()
    pace.finish_epoch()
    return steps


def run(pace: Pace, epochs: int) -> None:
    for _ in range(epochs):
        epoch(pace, None, 1.0, 0.0)


def test_without_a_deadline_epochs_are_equal_parts():
    pace = Pace(4, 5)
    run(pace, 1)
    assert pace.progress == pytest.approx(0.25)
    run(pace, 3)
    assert pace.progress == pytest.approx(1)


def test_a_resumed_pace_is_where_it_was():
    pace, resumed = Pace(4, 5), Pace(4, 5, finished_epochs=2, progress=0.5)
    run(pace, 2)
    assert (pace.finished_epochs, pytest.approx(pace.progress)) == (2, 0.5)
    run(pace, 1)
    run(resumed, 1)
    assert resumed.progress == pytest.approx(pace.progress)


def test_a_deadline_shortens_the_way_to_what_fits():
    pace = Pace(10, 4)
    # 35 s hold three epochs of 4 steps of 2 s with a score of 3 s, and one more step.
    assert epoch(pace, 35.0, 2.0, 3.0) == 4
    assert (pace.planned_epochs, pace.steps_left) == (4, 9)
    assert pace.progress == pytest.approx(4 / 13)
    # Slower than measured: only one epoch is left, and it takes the schedule to its end.
    assert epoch(pace, 19.0, 4.0, 3.0) == 4
    assert pace.planned_epochs == 2
    assert pace.progress == pytest.approx(1)


def test_the_last_epoch_is_shortened_to_the_time_there_is():
    pace = Pace(10, 20)
    # 1.6 epochs of 20 s and nothing for the score, for which there is other time.
    assert epoch(pace, 32.0, 1.0, 0.0) == 20
    assert (pace.planned_epochs, pace.steps_left) == (2, 12)
    assert pace.after_next_epoch() == pytest.approx(1)
    assert epoch(pace, 12.0, 1.0, 0.0) == 12
    assert pace.progress == pytest.approx(1)
    assert pace.after_next_epoch() > 1


def test_an_epoch_of_one_step_is_not_worth_its_score():
    pace = Pace(10, 20)
    assert epoch(pace, 41.0, 1.0, 0.0) == 20
    assert (pace.planned_epochs, pace.steps_left) == (2, 20)


def test_where_whole_epochs_but_one_score_fit_they_are_all_made():
    pace = Pace(10, 4)
    # Two epochs of 8 s and one score of 3 s between them; the score after the last has its own time.
    pace.start_epoch(19.0, 2.0, 3.0)
    assert (pace.planned_epochs, pace.steps_left) == (2, 8)


def test_a_deadline_that_holds_more_changes_nothing():
    pace = Pace(3, 4)
    pace.start_epoch(1e6, 1.0, 1.0)
    assert (pace.planned_epochs, pace.steps_left) == (3, 12)


def test_too_little_time_still_makes_one_step():
    pace = Pace(3, 4)
    assert epoch(pace, 0.5, 10.0, 10.0) == 1
    assert pace.planned_epochs == 1
    assert pace.progress == pytest.approx(1)


def test_time_that_runs_out_within_an_epoch_makes_it_the_last():
    pace = Pace(3, 4)
    pace.start_epoch(100.0, 1.0, 0.0)
    pace.step()
    pace.finish_epoch()
    pace.end()
    assert pace.planned_epochs == pace.finished_epochs == 1
    assert pace.after_next_epoch() == pytest.approx(5 / 12)


def test_a_machine_that_got_faster_gets_its_epochs_back():
    pace = Pace(10, 4)
    epoch(pace, 30.0, 2.5, 0.0)
    pace.start_epoch(30.0, 1.25, 0.0)
    assert pace.planned_epochs == 7
    assert pace.step_size == pytest.approx((1 - 1 / 3) / 24)


def test_steps_fall_after_each_part():
    settings = OptimiserSettings(learning_rate=0.08, warmup=0.0, schedule="step", steps=3, factor=0.5)
    rates = [learning_rate(p, settings) for p in (0, 0.3, 1 / 3, 0.6, 0.7, 1)]
    assert rates == pytest.approx([0.08, 0.08, 0.04, 0.04, 0.02, 0.02])


def test_cycles_restart_at_the_full_rate():
    settings = OptimiserSettings(learning_rate=0.01, warmup=0.2, schedule="cyclic", cycles=2)
    rates = [learning_rate(p, settings) for p in (0.1, 0.2, 0.4, 0.599999, 0.6, 0.8, 1)]
    assert rates == pytest.approx([0.005, 0.01, 0.005, 0, 0.01, 0.005, 0], abs=1e-6)


def test_the_plateau_factor_falls_after_epochs_without_a_better_score():
    settings = OptimiserSettings(schedule="plateau", plateau=2, factor=0.5, learning_rate=0.01, warmup=0.0)
    assert plateau_factor([], settings) == 1

    def factor(*scores: float | None) -> float:
        return plateau_factor([rank({"dice": score, "present_dice": 0.3}) for score in scores], settings)

    assert factor(0.5, 0.4) == 1
    assert factor(0.5, 0.4, None) == 0.5
    assert factor(0.5, 0.4, 0.5, 0.6, 0.6, 0.6) == 0.25
    assert learning_rate(0.9, settings, plateau_factor=0.25) == 0.0025


def test_the_plateau_factor_is_for_its_schedule_only():
    assert learning_rate(0.5, OptimiserSettings(learning_rate=0.01, schedule="constant"), 0.1) == 0.01


def last_epochs(epochs: int, cycles: int) -> list[int]:
    settings = OptimiserSettings(warmup=0.0, schedule="cyclic", cycles=cycles)
    ends = [sum([1 / epochs] * epoch) for epoch in range(epochs + 2)]
    return [epoch for epoch in range(1, epochs + 1) if ends_cycle(ends[epoch], ends[epoch + 1], settings)]


def test_a_cycle_s_last_epoch_is_the_last_whole_one():
    assert last_epochs(8, 4) == [2, 4, 6, 8]
    assert last_epochs(30, 4) == [7, 15, 22, 30]
    assert last_epochs(10, 3) == [3, 6, 10]
    assert last_epochs(2, 5) == [1, 2]


def test_which_epochs_are_scored():
    def scored(*changes: str) -> list[int]:
        settings = apply_changes(Settings(), changes)
        return [epoch for epoch in range(1, 9) if is_scored(epoch, epoch / 8, settings)]

    assert scored() == [2, 4, 5, 6, 7, 8]
    assert scored("training.average=top") == scored()
    assert scored("training.average=ema") == scored("training.average=swa") == [2, 4, 6, 8]
    assert scored("training.average=ema", "training.patience=3") == list(range(1, 9))
    assert scored("training.patience=3") == scored("optimiser.schedule=plateau") == list(range(1, 9))


def test_where_one_more_epoch_would_end():
    pace = Pace(4, 5)
    run(pace, 2)
    assert pace.after_next_epoch() == pytest.approx(0.75)
    run(pace, 2)
    assert pace.after_next_epoch() == pytest.approx(1.25)
