"""Parts of a run: several sessions share its folds."""

import re
from dataclasses import dataclass

from kaggle_nerve.errors import NerveError
from kaggle_nerve.settings.schema import ALL, FoldName, Settings


@dataclass(frozen=True)
class Part:
    """One of ``count`` parts of a run; ``number`` is from 1 to ``count``."""

    number: int
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def folds(self, settings: Settings) -> tuple[FoldName, ...]:
        """Return the folds of this part, in the order of training.

        The folds of ``settings`` are dealt like cards: of 5+all, the first of two parts gets 0, 2, 4, and the second
        1, 3, all. Sizes of parts differ by one at most, and if all sessions run out of time, the folds with the lowest
        numbers are finished, as in a single session. Raise NerveError if there are more parts than folds with held-out
        subjects: the epochs of the fold of all subjects follow those of a fold in the same session.
        """
        names = settings.fold_names
        most = len(names) - names.count(ALL)
        if self.count > most:
            advice = f"use {most} parts at most" if most > 1 else "train it in one session"
            raise NerveError(
                f"A run with folds = {settings.folds!r} cannot be split into {self.count} parts, since each needs a "
                f"fold that holds subjects out: {advice}."
            )
        return tuple(names[self.number - 1 :: self.count])


def parse_part(value: object) -> Part:
    """Parse ``K/N``, such as ``1/2``; raise NerveError for anything else, and if K is not from 1 to N."""
    match = re.fullmatch(r"([1-9]\d{0,3})/([1-9]\d{0,3})", value) if isinstance(value, str) else None
    part = Part(int(match[1]), int(match[2])) if match else None
    if part is None or part.number > part.count:
        raise NerveError(
            f'PART = {value!r} must be the number of a part and that of all parts, as text: "1/2" or "2/2".'
        )
    return part
