"""Run-length encoding of masks: ``start length start length ...``, as in the competition's CSV files.

Pixels are numbered from 1 in column-major order (top to bottom, then left to right), so a pixel's number
is ``column * height + row + 1``. Starts are ascending and runs do not overlap. An empty mask is the empty
text. Numbers are separated by one space.
"""

from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np

from kaggle_nerve.competition.facts import SIZE
from kaggle_nerve.competition.rle_faults import explain
from kaggle_nerve.errors import NerveError

T = TypeVar("T")
_GROUPS = (20, 16, 10, 8, 5, 4, 3, 2, 1)


class RunLengthError(NerveError):
    """A run-length encoding, or a mask to encode, breaks the rules; the message says which one and where."""


def encode(mask: np.ndarray) -> str:
    """Encode one mask as run-length text.

    ``mask`` is (height, width), of booleans or integers, in any memory layout; non-zero pixels belong to
    the mask. The result is canonical: touching runs are merged, also from the bottom of a column to the top
    of the next.

    Raise RunLengthError for an array that is not two-dimensional, or of floating point numbers.

    >>> encode(np.array([[0, 1, 1], [0, 1, 0]], np.uint8))
    '3 3'
    """
    mask = check_mask(mask)
    if mask.size == 0:
        return ""
    # Viewed as unsigned integers, "not 0" is "above 0" for every type.
    unsigned = f"u{mask.itemsize}"
    if mask.flags.f_contiguous:
        edges = _edges_along_lines(mask.T.view(unsigned))
    else:
        edges = _edges_across_lines(np.ascontiguousarray(mask).view(unsigned))
    numbers = edges + 1
    numbers[1::2] -= numbers[::2]
    # One formatting call is twice as fast as joining one string per number.
    return ("%d " * numbers.size)[:-1] % tuple(numbers.tolist())


def encode_many(masks: Iterable[np.ndarray]) -> list[str]:
    """Encode an (n, height, width) array, or any iterable of masks, one by one.

    Raise RunLengthError as ``encode`` does, with the position of the mask counted from 0.
    """
    return [_call_numbered(encode, index, mask) for index, mask in enumerate(masks)]


def decode(text: str, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Decode one run-length text to a mask: uint8 of 0 and 1, shape ``size`` = (height, width).

    The array is writable and column-major in memory (Fortran order). Runs may touch. Raise RunLengthError
    for every other deviation from the format: see ``runs``.

    >>> decode("3 3", (2, 3)).tolist()
    [[0, 1, 1], [0, 1, 0]]
    """
    height, width = size
    flat = np.zeros(height * width, np.uint8)
    fill(flat, *runs(text, size))
    return flat.reshape(width, height).T


def decode_many(texts: Iterable[str], size: tuple[int, int] = SIZE) -> np.ndarray:
    """Decode many texts to masks: uint8 of 0 and 1, shape (n, height, width), 244 kB each at full size.

    Raise RunLengthError as ``decode`` does, with the position of the text counted from 0.
    """
    texts = list(texts)
    height, width = size
    flat = np.zeros((len(texts), height * width), np.uint8)
    for index, text in enumerate(texts):
        fill(flat[index], *_call_numbered(runs, index, text, size))
    return flat.reshape(len(texts), width, height).transpose(0, 2, 1)


def runs(text: str, size: tuple[int, int] = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Parse a text into runs (starts, lengths), int64 arrays with one entry per run.

    Here starts count from **0**, in column-major order. The text is checked completely: raise RunLengthError
    for anything but text, a word that is not an integer, a stray space, an odd count of numbers, a start or
    length below 1, a run past the last pixel of ``size``, and runs that are unsorted or overlap.
    """
    if not isinstance(text, str):
        raise RunLengthError(f"expected run-length text, got {text!r}; an empty mask is the empty text")
    if not text:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    # Check everything with a few array operations; only a text that fails is parsed again, slowly, to
    # explain the fault. fromstring silently stops at anything it cannot read, so pass only digits and spaces.
    if text.isascii() and text.replace(" ", "").isdigit():
        numbers = np.fromstring(text, np.int64, sep=" ")
        if numbers.size % 2 == 0 and numbers.size == text.count(" ") + 1:
            total = size[0] * size[1]
            # Check the largest number first: sums of numbers up to 2**63 would wrap around.
            if numbers.min() >= 1 and numbers.max() <= total:
                starts, lengths = numbers[::2] - 1, numbers[1::2]
                ends = starts + lengths
                if ends[-1] <= total and not (starts[1:] < ends[:-1]).any():
                    return starts, lengths
    raise RunLengthError(explain(text, size))


def area(text: str, size: tuple[int, int] = SIZE) -> int:
    """Count the pixels in the mask of a text without decoding it; the text is checked as in ``runs``."""
    return int(runs(text, size)[1].sum())


def intersection(
    first: tuple[np.ndarray, np.ndarray],
    second: tuple[np.ndarray, np.ndarray],
) -> int:
    """Count the pixels that two masks share, from their (starts, lengths) as returned by ``runs``."""
    if not first[0].size or not second[0].size:
        return 0
    starts, lengths = first
    covered = np.cumsum(lengths)

    def covered_before(positions: np.ndarray) -> np.ndarray:
        # All runs that start earlier, minus the part of the last one at or after the position.
        last = np.searchsorted(starts, positions) - 1
        overhang = np.maximum(starts[last] + lengths[last] - positions, 0)
        return np.where(last < 0, 0, covered[last] - overhang)

    starts_of_second, lengths_of_second = second
    ends_of_second = starts_of_second + lengths_of_second
    return int((covered_before(ends_of_second) - covered_before(starts_of_second)).sum())


def check_mask(mask: np.ndarray) -> np.ndarray:
    """Return ``mask`` if it is a two-dimensional array of booleans or integers, else raise RunLengthError.

    Floating point is rejected because it is nearly always a probability map without a threshold, of which
    every pixel would count.
    """
    mask = np.asarray(mask)
    if mask.ndim != 2:
        raise RunLengthError(f"a mask is (height, width), got the shape {mask.shape}; drop the other axes")
    if mask.dtype.kind not in "bui":
        raise RunLengthError(
            f"a mask holds booleans or whole numbers, got {mask.dtype}; compare it with a threshold first"
        )
    return mask


def _edges_across_lines(rows: np.ndarray) -> np.ndarray:
    """Find where runs begin and end, alternating, down the columns of a row-major mask: ascending positions from 0.

    Comparing each row with the next and sorting the few changes is far faster than transposing the image,
    since memory is read in order.
    """
    height, width = rows.shape
    first, stop, largest = _nonzero_range(rows)
    on_border = first == 0 or stop == height
    # One more empty row on either side is needed for the mask's upper and lower edge.
    first, stop = max(first - 1, 0), min(stop + 1, height)
    hits = _changes(rows[first:stop].reshape(-1), width, largest)
    # A hit at row * width + column is an edge at column * height + row + 1, below the pixel it names.
    row = hits // width
    edges = (hits - row * width) * height + row
    edges += first + 1
    if on_border:
        # Pixels on the image's own border have no neighbour to differ from. A run that continues in the
        # next column would end and begin at the same position, so the two cancel out.
        top, bottom = np.flatnonzero(rows[0]), np.flatnonzero(rows[-1])
        border = np.setxor1d(top * height, (bottom + 1) * height, assume_unique=True)
        edges = np.concatenate([edges, border])
    edges.sort()
    return edges


def _edges_along_lines(columns: np.ndarray) -> np.ndarray:
    """Do the same for the transposed view of a column-major mask, whose memory order is that of the text."""
    first, stop, largest = _nonzero_range(columns)
    flat = columns[first:stop].reshape(-1)
    begin, end = np.flatnonzero(flat[:1]), np.flatnonzero(flat[-1:]) + flat.size
    edges = np.concatenate([begin, _changes(flat, 1, largest) + 1, end])
    return edges + first * columns.shape[1]


def _changes(flat: np.ndarray, step: int, largest: int) -> np.ndarray:
    """Find the positions of a flat unsigned mask whose pixel ``step`` further on differs in being in the mask."""
    hits = np.flatnonzero(flat[step:] != flat[:-step])
    if largest > 1:
        # Ignore changes between two values that both belong to the mask.
        hits = hits[(flat[hits] > 0) != (flat[hits + step] > 0)]
    return hits


def _nonzero_range(lines: np.ndarray) -> tuple[int, int, int]:
    """Return first and stop of a range of lines with all non-zero pixels, and the largest pixel value.

    Lines are examined in groups, because NumPy computes the maximum of a few long rows much faster than that
    of many short ones; the range may therefore be slightly too long.
    """
    count, length = lines.shape
    group = next(size for size in _GROUPS if count % size == 0)
    largest = np.maximum.reduce(lines.reshape(count // group, group * length), axis=1).tolist()
    nonzero_groups = [index for index, value in enumerate(largest) if value]
    if not nonzero_groups:
        return 0, 0, 0
    return nonzero_groups[0] * group, (nonzero_groups[-1] + 1) * group, max(largest)


def fill(flat: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> None:
    """Set the pixels of runs, from ``runs``, to 1 in a flat column-major mask of zeros."""
    if not starts.size:
        return
    edges = np.empty(2 * starts.size, np.int64)
    edges[::2], edges[1::2] = starts, starts + lengths
    values = np.zeros(edges.size - 1, np.uint8)
    values[::2] = 1
    # From the first run's start to the last one's end, ones and zeros alternate.
    flat[edges[0] : edges[-1]] = np.repeat(values, np.diff(edges))


def _call_numbered(function: Callable[..., T], index: int, *arguments: object) -> T:
    try:
        return function(*arguments)
    except RunLengthError as fault:
        raise RunLengthError(f"mask {index}: {fault}") from fault
