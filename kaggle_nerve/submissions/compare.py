"""Compare two submission files: where each has a mask, and how far their masks agree.

Masks are not drawn: areas and intersections are computed from the run-length encoding.
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
    """A frame on which two files differ: its Dice in [0, 1) and each mask's area in pixels."""

    img: int
    dice: float
    first_area: int
    second_area: int


@dataclass(frozen=True)
class Comparison:
    """Agreement of two submissions. Counts are frames; shares and Dice are in [0, 1].

    Attributes:
        frames: all frames; the next four add up to it.
        both_empty, both_present, only_first, only_second: which of the files have a mask.
        presence_agreement: share of the frames on which both or neither have a mask.
        identical: rows with the same text.
        dice: mean Dice over all frames, the competition's metric if one file were the truth.
        dice_where_both: mean Dice over the frames where both have a mask, None if there are none.
        first_share, second_share: share of the frames with a mask.
        differences: the frames whose masks differ, worst first: those on which only one file has a mask, by
            ``img``, then the others by rising Dice, and for equal Dice by ``img``.
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
        """Return the figures for JSON; ``differences`` is their number, ``worst`` the first ``worst`` of
        them."""
        figures = {name: value for name, value in vars(self).items() if name != "differences"}
        rows = [asdict(difference) for difference in self.differences[:worst]]
        return figures | {"differences": len(self.differences), "worst": rows}


def compare(
    first: Path, second: Path, sample: Path | None = None, size: tuple[int, int] = SIZE
) -> Comparison:
    """Compare two submissions of the same frames; their order only affects the names in the result.

    For ``sample`` and the errors see ``read_same_frames``; ``size`` is the masks' (height, width).
    """
    imgs, texts = read_same_frames([first, second], sample)
    counts = [metric.counts_of_texts(one, other, size) for one, other in zip(*texts, strict=True)]
    shared, first_area, second_area = np.array(counts, np.int64).T
    dice = metric.dice_of_counts(shared, first_area, second_area)
    in_first, in_second = first_area > 0, second_area > 0
    both = in_first & in_second
    differences = [
        Difference(*row)
        for row in zip(imgs, dice.tolist(), first_area.tolist(), second_area.tolist(), strict=True)
        if row[1] < 1
    ]

    def sort_key(difference: Difference) -> tuple[bool, float, int]:
        return (
            min(difference.first_area, difference.second_area) > 0,
            difference.dice,
            difference.img,
        )

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
        differences=tuple(sorted(differences, key=sort_key)),
    )


def read_same_frames(paths: Sequence[Path], sample: Path | None = None) -> tuple[list[int], list[list[str]]]:
    """Read the frame numbers, and for each file the run-length texts of those frames in that order.

    Each file is checked first with ``submission.check``, against ``sample`` if there is one. Raises
    NerveError for a faulty file, and for files that do not hold the same frames.
    """
    imgs: list[int] = []
    texts: list[list[str]] = []
    for path in paths:
        submission.check(path, sample).raise_if_faulty()
        table = submission.read(path)
        file_imgs = table["img"].tolist()
        if texts:
            _refuse_other_frames(paths[0], imgs, path, file_imgs)
        imgs = imgs or file_imgs
        texts.append(table["pixels"].tolist())
    return imgs, texts


def _refuse_other_frames(first: Path, imgs: list[int], other: Path, other_imgs: list[int]) -> None:
    # Valid files with the same frames have them in the same order.
    if imgs != other_imgs:
        unshared = sorted(set(imgs) ^ set(other_imgs))
        holder = first if unshared[0] in set(imgs) else other
        raise NerveError(
            f"{first} and {other} do not hold the same frames: only {holder} has frame {unshared[0]}, and "
            f"{len(unshared)} differ in all; give files made for the same sample_submission.csv"
        )
