"""Split lists into pages, as Kaggle's calls do."""

import base64
from collections.abc import Sequence
from typing import TypeVar

from kaggle_nerve.rehearsal.wire import RefusedError

PAGE, LARGEST_PAGE = 20, 200
Row = TypeVar("Row")


def paginate(
    rows: Sequence[Row], size: int | None, token: str | None, number: int | None = None
) -> tuple[list[Row], str]:
    """Return the rows of one page, and the token of the next ("" at the end)."""
    size = min(size or PAGE, LARGEST_PAGE)
    start = _offset(token) if token else (max(number or 1, 1) - 1) * size
    if size < 1:
        raise RefusedError(400, "A page has one row at least.")
    next_token = (
        base64.urlsafe_b64encode(str(start + size).encode()).decode() if start + size < len(rows) else ""
    )
    return list(rows[start : start + size]), next_token


def _offset(token: str) -> int:
    try:
        return max(int(base64.urlsafe_b64decode(token.encode())), 0)
    except ValueError as fault:
        raise RefusedError(400, "The page token is not one that this server gave.") from fault
