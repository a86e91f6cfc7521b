"""Two submission files side by side: where they see a nerve, and how far their masks agree.

Nothing is drawn: areas and intersections come from the runs themselves.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from kaggle_nerve.competition import metric, submission
from kaggle_nerve.competition.facts import SIZE
from kaggle_nerve.errors import NerveError


@dataclass(frozen=True)
class Difference:
    """One frame on which two files differ: its Dice in [0, 1) and the pixels of either mask."""

    img: int
    dice: float
    first_area: int
    second_area: int


@dataclass(frozen=True)
class Comparison:
    """How two submissions agree. Counts are frames; shares and Dice are in [0, 1].

    Attributes:
        frames: all frames; the next four add up to it.
        both_empty, both_present, only_first, only_second: who has a mask.
        presence_agreement: share of the frames on which both have a mask or neither has.
        identical: rows that are the same text.
        dice: mean Dice of all frames, the competition's metric if one file were the truth.
        dice_where_both: mean Dice of the frames where both have a mask, None where there are none.
        first_share, second_share: share of the frames with a mask.
        differences: the frames whose masks differ, the worst first: those that only one file has a
            mask on, by ``img``, then those of the lowest Dice, and of equal Dice by ``img``.
    """

    frames: int
    both_empty: int
    both_present: int
    only_first: int
    only_second: int
    presence_agreement: float
    identical: int
    dice: float
    dice_where_both: float | None
    first_share: float
    second_share: float
    differences: tuple[Difference, ...] = field(repr=False)

    def as_dict(self, worst: int = 0) -> dict[str, Any]:
        """The figures, ready for JSON; ``differences`` is how many, ``worst`` the first ``worst`` of them."""
        figures = {name: value for name, value in vars(self).items() if name != "differences"}
        shown = [asdict(difference) for difference in self.differences[:worst]]
        return figures | {"differences": len(self.differences), "worst": shown}


def compare(
    first: Path, second: Path, sample: Path | None = None, size: tuple[int, int] = SIZE
) -> Comparison:
    """Compare two submissions of the same frames; the order of the two matters to the names alone.

    ``sample`` and the errors are those of ``read_alike``; ``size`` is the masks' (height, width).
    """
    imgs, texts = read_alike([first, second], sample)
    counts = [metric.counts_of_texts(one, other, size) for one, other in zip(*texts, strict=True)]
    shared, first_area, second_area = np.array(counts, np.int64).T
    dice = metric.dice_of_counts(shared, first_area, second_area)
    in_first, in_second = first_area > 0, second_area > 0
    both = in_first & in_second
    differing = [
        Difference(*row)
        for row in zip(imgs, dice.tolist(), first_area.tolist(), second_area.tolist(), strict=True)
        if row[1] < 1
    ]

    def badness(one: Difference) -> tuple[bool, float, int]:
        return (min(one.first_area, one.second_area) > 0, one.dice, one.img)

    return Comparison(
        frames=len(imgs),
        both_empty=int((~in_first & ~in_second).sum()),
        both_present=int(both.sum()),
        only_first=int((in_first & ~in_second).sum()),
        only_second=int((~in_first & in_second).sum()),
        presence_agreement=float((in_first == in_second).mean()),
        identical=sum(a == b for a, b in zip(*texts, strict=True)),
        dice=float(dice.mean()),
        dice_where_both=float(dice[both].mean()) if both.any() else None,
        first_share=float(in_first.mean()),
        second_share=float(in_second.mean()),
        differences=tuple(sorted(differing, key=badness)),
    )


def read_alike(paths: Sequence[Path], sample: Path | None = None) -> tuple[list[int], list[list[str]]]:
    """Frame numbers, and for each file the run-length texts of those frames in that order.

    Each file is checked first, as ``submission.check`` does it, against ``sample`` if there is one.
    Raises NerveError for a faulty file, and for files that do not hold the same frames.
    """
    imgs: list[int] = []
    texts: list[list[str]] = []
    for path in paths:
        submission.check(path, sample).raise_if_faulty()
        table = submission.read(path)
        found = table["img"].tolist()
        if texts:
            _refuse_other_frames(paths[0], imgs, path, found)
        imgs = imgs or found
        texts.append(table["pixels"].tolist())
    return imgs, texts


def _refuse_other_frames(first: Path, imgs: list[int], other: Path, found: list[int]) -> None:
    # Valid files that hold the same frames hold them in the same order.
    if imgs != found:
        single = sorted(set(imgs) ^ set(found))
        holder = first if single[0] in set(imgs) else other
        raise NerveError(
            f"{first} and {other} do not hold the same frames: only {holder} has frame {single[0]}, and "
            f"{len(single)} differ in all; give files made for the same sample_submission.csv"
        )
