"""The steps of one epoch: batches made ahead in threads, one compiled step after another.

A loop of its own rather than ``fit``: on the JAX backend ``fit`` keeps the optimiser's state outside
its variables between steps, so that a learning rate set there is lost, and ``fit`` makes batches in
one thread only.
"""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import keras

from kaggle_nerve.data.batches import Batches

THREADS = min(4, os.cpu_count() or 1)
AHEAD = 2 * THREADS
"""Batches that lie ready, or are being made, while a step runs."""


def prefetched(batches: Batches, count: int) -> Iterator[tuple]:
    """The first ``count`` batches in their order, each made in some thread before it is asked for.

    What a batch holds follows from its number alone, so threads change nothing about it.
    """
    waiting: deque[Future] = deque()
    pool = ThreadPoolExecutor(THREADS)
    try:
        for index in range(count):
            waiting.append(pool.submit(batches.__getitem__, index))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def run_steps(
    model: keras.Model,
    batches: Batches,
    count: int,
    rate: Callable[[], float | None],
    after: Callable[[], bool],
) -> float:
    """Train on the first ``count`` batches; returns the mean loss.

    ``rate`` gives each step's learning rate (None leaves it); ``after`` is called after each step and
    ends the epoch by being true.
    """
    total, done = 0.0, 0
    for batch in prefetched(batches, count):
        value = rate()
        if value is not None:
            model.optimizer.learning_rate = value
        model.reset_metrics()  # Keras before 3.15 would give the mean loss of all steps so far
        # A batch is (frames, targets) or (frames, targets, weights of the frames).
        total += float(model.train_on_batch(*batch, return_dict=True)["loss"])
        done += 1
        if after():
            break
    return total / done
