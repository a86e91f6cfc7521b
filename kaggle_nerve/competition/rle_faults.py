"""Explain what is wrong with a run-length text. Slow, and only needed for a faulty one."""

import re

_WHOLE_NUMBER = re.compile(r"-?[0-9]+")
_DIGITS_AT_MOST = 30


def explain(text: str, size: tuple[int, int]) -> str:
    """Describe the first fault of a text that breaks the rules of ``rle`` for masks of ``size`` (height, width).

    Numbers and runs are counted from 1, and starts are those in the text.
    """
    words = text.split(" ")
    if "" in words:
        return "the run-length text has a stray space: at its beginning, at its end, or two in a row"
    for place, word in enumerate(words, 1):
        if not _WHOLE_NUMBER.fullmatch(word):
            return f"number {place} of the run-length text, {_short(word)!r}, is not a whole number"
    if len(words) % 2:
        return f"the run-length text has an odd count of numbers ({len(words)}): a start lacks its length"
    height, width = size
    total, previous_start, end = height * width, 0, 0
    for place, pair in enumerate(zip(words[::2], words[1::2], strict=True), 1):
        start, length = map(_number, pair)
        run = f"run {place} ({' '.join(map(_short, pair))})"
        if start < 1:
            return f"{run} has a start below 1: pixels count from 1"
        if length < 1:
            return f"{run} has a length below 1: leave the run out"
        if start + length - 1 > total:
            return f"{run} goes past the end: {height} x {width} pixels end at {total}"
        if start < previous_start:
            return f"{run} is unsorted: the run before it starts at {previous_start}"
        if start <= end:
            return f"{run} overlaps the run before it, which ends at {end}"
        previous_start, end = start, start + length - 1
    raise AssertionError(f"no fault found in {_short(text)!r}, which failed the check")


def _number(word: str) -> int:
    # Python refuses to parse numbers with thousands of digits. They are all too large, or below 1, anyway.
    if len(word) > _DIGITS_AT_MOST:
        return -1 if word.startswith("-") else 10**_DIGITS_AT_MOST
    return int(word)


def _short(text: str) -> str:
    return text if len(text) <= 24 else text[:20] + "..."
