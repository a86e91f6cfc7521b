"""Which frames an epoch shows and in what order, with subjects kept apart if wanted. Rows are integers."""

from collections.abc import Iterable

import numpy as np


def most_batches(counts: np.ndarray, batch: int) -> int:
    """How many batches of ``batch`` frames of as many subjects can be dealt, each frame once at most.

    ``counts``: frames of each subject. m batches can, if the subjects, giving m frames at most, fill them.
    """
    numbers = np.arange(1, counts.sum() // batch + 1)
    enough = np.minimum(counts[:, None], numbers).sum(axis=0) >= numbers * batch
    return int(numbers[enough].max(initial=0))


def drawn(
    random: np.random.Generator,
    wanted: Iterable[tuple[np.ndarray, int]],
    groups: np.ndarray,
    room: int,
) -> np.ndarray:
    """Rows drawn in turn: for each (rows, total) from ``rows``, until there are ``total`` in all.

    Each row is drawn as often as any other, give or take one, as long as its group has room:
    ``groups`` holds the group (0, 1, ...) of each row, and none is drawn more than ``room`` times. Where
    no group has room left, the total is not reached.
    """
    left = np.full(groups.max() + 1, room)
    result = np.empty(0, int)
    for rows, total in wanted:
        while len(result) < total:
            once = random.permutation(rows)
            once = once[_repeats(groups[once]) < left[groups[once]]][: total - len(result)]
            if not len(once):
                break
            left -= np.bincount(groups[once], minlength=len(left))
            result = np.concatenate([result, once])
    return result


def dealt(random: np.random.Generator, rows: np.ndarray, groups: np.ndarray, batch: int) -> np.ndarray:
    """``rows`` in an order in which no two of any ``batch`` (a divisor of their number) share a group.

    No group may have more rows than there are batches. Each batch is drawn by systematic sampling with
    chances in proportion to what each group has left, so big groups last as long as small ones.
    """
    rows = random.permutation(rows)
    rows = rows[np.argsort(groups[rows], kind="stable")]
    left = np.bincount(groups[rows])
    starts = np.cumsum(left) - left
    order = np.empty(len(rows), int)
    for number in range(len(rows) // batch):
        batches_left = len(rows) // batch - number
        # No group is longer than the step between two points, so none is hit twice.
        points = random.integers(batches_left) + batches_left * np.arange(batch)
        shuffled = random.permutation(len(left))
        chosen = shuffled[np.searchsorted(np.cumsum(left[shuffled]), points, side="right")]
        left[chosen] -= 1
        order[number * batch : (number + 1) * batch] = random.permutation(rows[starts[chosen] + left[chosen]])
    return order


def _repeats(values: np.ndarray) -> np.ndarray:
    """How many times each value has occurred before it."""
    order = np.argsort(values, kind="stable")
    ranked = values[order]
    result = np.empty(len(values), int)
    result[order] = np.arange(len(values)) - np.searchsorted(ranked, ranked)
    return result
