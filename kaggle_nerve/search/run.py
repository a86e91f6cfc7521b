"""Run a search from its first trial to its outcome, or go on with it."""

import queue
import threading
from dataclasses import replace

from kaggle_nerve.search import claims
from kaggle_nerve.search.outcome import conclude
from kaggle_nerve.search.storage import Place
from kaggle_nerve.search.study import PRESET, Search, Study, open_study
from kaggle_nerve.search.table import Outcome
from kaggle_nerve.search.trial import Trainer
from kaggle_nerve.search.worker import Worker


def run_search(
    search: Search,
    place: Place,
    count: int,
    trainer: Trainer,
    *,
    keep: int = 1,
    side_by_side: int = 1,
    at_once: int = 1,
) -> tuple[Outcome | None, int]:
    """Train trials until there are ``count``, then conclude the search; go on with what earlier calls have left.

    ``keep``: of how many of the best trials the runs are kept. ``side_by_side``: how many folds of a trial are trained
    at a time; ``at_once``: how many trials, each by a thread, for a ``trainer`` whose machines are a cluster's.
    Return the outcome, None if there is none yet, and how many trials other workers still train: without any, the
    worker was stopped, and the same call goes on.
    """
    studies = [open_study(search, place, side_by_side, trainer.reporter) for _ in range(at_once)]
    study = studies[0]
    if not any(PRESET in trial.user_attrs for trial in study.trials()):
        trainer.reporter.say("The preset itself lies outside of the space, so it is no trial.")
    if not (
        _in_threads(studies, trainer, keep, count) if at_once > 1 else Worker(study, trainer, keep).run(count)
    ):
        return None, 0
    unfinished = _unfinished(study)
    return (None, unfinished) if unfinished else (conclude(study, trainer), 0)


def _in_threads(studies: list[Study], trainer: Trainer, keep: int, count: int) -> bool:
    """Do as `Worker.run` with a worker for each of ``studies``. If one fails, the others finish their epochs."""
    stopping, answers = threading.Event(), queue.SimpleQueue[bool | Exception]()
    shared = replace(trainer, stop=lambda: stopping.is_set() or trainer.stop(), is_shared=True)

    def work(study: Study) -> None:
        try:
            answers.put(Worker(study, shared, keep).run(count))
        except Exception as fault:
            stopping.set()
            answers.put(fault)

    for study in studies:
        threading.Thread(target=work, args=(study,), daemon=True).start()
    results = [answers.get() for _ in studies]
    for result in results:
        if isinstance(result, Exception):
            raise result
    return all(results)


def _unfinished(study: Study) -> int:
    return sum(not trial.state.is_finished() for trial in claims.counted(study.trials()))
