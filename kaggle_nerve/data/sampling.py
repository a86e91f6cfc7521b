"""Sample and order the frames of an epoch, optionally with one frame per subject in a batch. Rows are integers."""

from collections.abc import Iterable

import numpy as np


def most_batches(counts: np.ndarray, batch: int) -> int:
    """Return the largest number of batches of ``batch`` frames from distinct subjects, using a frame at most once.

    ``counts``: frames of each subject. m batches are possible if the subjects, counting at most m frames of
    each, fill them.
    """
    numbers = np.arange(1, counts.sum() // batch + 1)
    enough = np.minimum(counts[:, None], numbers).sum(axis=0) >= numbers * batch
    return int(numbers[enough].max(initial=0))


def draw_rows(
    random: np.random.Generator,
    steps: Iterable[tuple[np.ndarray, int]],
    groups: np.ndarray,
    room: int,
) -> np.ndarray:
    """Draw rows: for each (rows, total) in turn, draw from ``rows`` until there are ``total`` rows in all.

    Each row is drawn as often as any other, plus or minus one, as long as its group has room: ``groups``
    holds the group (0, 1, ...) of each row, and each group is drawn at most ``room`` times. If no group has
    room left, the total is not reached.
    """
    left = np.full(groups.max() + 1, room)
    result = np.empty(0, int)
    for rows, total in steps:
        while len(result) < total:
            once = random.permutation(rows)
            once = once[_repeats(groups[once]) < left[groups[once]]][: total - len(result)]
            if not len(once):
                break
            left -= np.bincount(groups[once], minlength=len(left))
            result = np.concatenate([result, once])
    return result


def arrange_batches(
    random: np.random.Generator, rows: np.ndarray, groups: np.ndarray, batch: int
) -> np.ndarray:
    """Order ``rows`` so that no two in a batch share a group; ``batch`` divides their number.

    No group may have more rows than there are batches. Each batch is drawn by systematic sampling with
    probabilities proportional to the rows left in each group, so large groups last as long as small ones.
    """
    rows = random.permutation(rows)
    rows = rows[np.argsort(groups[rows], kind="stable")]
    left = np.bincount(groups[rows])
    starts = np.cumsum(left) - left
    order = np.empty(len(rows), int)
    for number in range(len(rows) // batch):
        batches_left = len(rows) // batch - number
        # No group is longer than the step between two points, so each group is hit at most once.
        points = random.integers(batches_left) + batches_left * np.arange(batch)
        shuffled = random.permutation(len(left))
        batch_groups = shuffled[np.searchsorted(np.cumsum(left[shuffled]), points, side="right")]
        left[batch_groups] -= 1
        order[number * batch : (number + 1) * batch] = random.permutation(
            rows[starts[batch_groups] + left[batch_groups]]
        )
    return order


def _repeats(values: np.ndarray) -> np.ndarray:
    """Count how often each value occurs before its position."""
    order = np.argsort(values, kind="stable")
    ranked = values[order]
    result = np.empty(len(values), int)
    result[order] = np.arange(len(values)) - np.searchsorted(ranked, ranked)
    return result
