"""Merge several submission files into their consensus, from their run-length texts alone.

Each frame is cut wherever a run of any file begins or ends; between two cuts all pixels have the same votes,
so votes are counted per stretch and no mask is drawn. Weights are whole numbers, so that a sum of votes, and
with it a tie, does not depend on the order of the files.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kaggle_nerve.competition import metric, rle, submission
from kaggle_nerve.competition.facts import SIZE
from kaggle_nerve.errors import NerveError
from kaggle_nerve.maps.blending import weights_of_dice
from kaggle_nerve.progress import SILENT, Reporter
from kaggle_nerve.storage import digest_file
from kaggle_nerve.submissions.compare import read_same_frames

METHODS = ("presence", "pixels", "agreement")
"""Voting methods; the first is the default. See ``merge``."""

_WHOLE = 10**6


@dataclass(frozen=True)
class Voter:
    """A file: its share of frames with a mask, its weight (all sum to 1), its mean Dice with the consensus."""

    path: str
    share: float
    weight: float
    dice: float


@dataclass(frozen=True)
class MergeResult:
    """The result of ``merge``. Counts are frames: with a mask, with files that disagree on presence, with a
    tie."""

    method: str
    frames: int
    non_empty: int
    disputed: int
    ties: int
    voters: tuple[Voter, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return all figures for JSON."""
        return asdict(self) | {"voters": [asdict(voter) for voter in self.voters]}


def merge(
    paths: Sequence[Path],
    out: Path,
    method: str = METHODS[0],
    *,
    sample: Path | None = None,
    size: tuple[int, int] = SIZE,
    reporter: Reporter = SILENT,
) -> MergeResult:
    """Write the consensus of two or more submissions of the same frames to ``out``, sorted by ``img``.

    ``presence``
        A frame has a mask if more than half of the files have one. Its pixels are then decided
        among those files: a pixel belongs to the mask if at least half of them have it; if no
        pixel gets that many votes, all pixels of all of them do.
    ``pixels``
        A pixel belongs to the mask if more than half of all files have it. A frame without such
        a pixel is empty.
    ``agreement``
        Like ``presence``, but the files' votes have weights (``weights_by_agreement``).

    ``presence`` is the default because presence decides the score: a false mask costs a frame's whole point,
    an imprecise one a part. ``pixels`` mixes the two questions: a file without a mask votes against each
    pixel, so where 3 of 5 files see a nerve only the pixels that all three drew are left, and files that
    agree on the nerve but not on its place come out empty. The weights of ``agreement`` reward whatever most
    files share, including their common errors and near-copies of each other, so they are only used on
    request.

    Ties do not depend on the order of the files. A tie on presence is an empty frame: an empty row then wins
    1 half of the time, a mask its Dice, which is less. Within a mask tied pixels belong to it, since the best
    threshold for Dice lies below one half; under ``pixels`` they do not.

    The result is the same for any order of ``paths``, and for identical files it is that file. A file given
    twice votes twice; ``reporter`` says so. ``size`` is the masks' (height, width).

    Raises NerveError, and writes nothing, for an unknown method, fewer than two files, an ``out`` that is one
    of the input files, and whatever ``read_same_frames`` refuses.
    """
    if method not in METHODS:
        raise NerveError(f"{method!r} is no way of merging; choose one of {', '.join(METHODS)}")
    if len(paths) < 2:
        listing = "only " + str(paths[0]) if paths else "none"
        raise NerveError(f"merging takes two or more submission files, got {listing}; name the others too")
    for path in [*paths, *([sample] if sample else [])]:
        if out.exists() and path.exists() and out.samefile(path):
            raise NerveError(
                f"cannot write the consensus over {path}, which it is made from; name another file"
            )
    imgs, texts = read_same_frames(paths, sample)
    digests = [digest_file(path) for path in paths]
    _report_copies(paths, digests, reporter)
    # Sort by digest: the eigenvector's last digits depend on the order of the files.
    order = sorted(range(len(paths)), key=digests.__getitem__)
    rows = list(zip(*(texts[index] for index in order), strict=True))
    weights = np.ones(len(paths), np.int64)
    if method == "agreement":
        weights = weights_by_agreement(mean_pairwise_dice(rows, size, reporter))
    has_mask = np.array([[bool(text) for text in row] for row in rows])
    non_empty, dice = 0, np.zeros(len(paths))

    def consensus_rows() -> Iterator[tuple[int, str]]:
        nonlocal non_empty, dice
        with reporter.bar("Merging", len(rows)) as bar:
            for img, row in zip(imgs, rows, strict=True):
                text, file_dice = consensus(row, weights, by_presence=method != "pixels", size=size)
                non_empty += bool(text)
                dice += file_dice
                yield img, text
                bar.update()

    submission.write(out, consensus_rows())
    votes = has_mask @ weights
    voters = {
        index: Voter(str(paths[index]), float(share), float(weight), float(file_dice))
        for index, share, weight, file_dice in zip(
            order, has_mask.mean(axis=0), weights / weights.sum(), dice / len(rows), strict=True
        )
    }
    return MergeResult(
        method=method,
        frames=len(rows),
        non_empty=non_empty,
        disputed=int((has_mask.any(axis=1) & ~has_mask.all(axis=1)).sum()),
        ties=int((2 * votes == weights.sum()).sum()),
        voters=tuple(voters[index] for index in range(len(paths))),
    )


def consensus(
    texts: Sequence[str], weights: np.ndarray, *, by_presence: bool, size: tuple[int, int] = SIZE
) -> tuple[str, np.ndarray]:
    """Return the files' consensus on one frame, and the Dice of each file's mask with it (files,).

    ``weights`` (files,) are whole numbers of at least 0. With ``by_presence`` the frame's presence is voted
    on first (see ``merge``), else only its pixels. Raises rle.RunLengthError for a faulty text.
    """
    if len(set(texts)) == 1:
        # Keep the text unchanged, even if some of its runs touch.
        rle.runs(texts[0], size)
        return texts[0], np.ones(len(texts))
    bounds, inside = stretches(texts, size)
    lengths = np.diff(bounds)
    areas = inside @ lengths
    votes = weights @ inside
    total, votes_for_mask = weights.sum(), weights[areas > 0].sum()
    if not by_presence:
        kept = 2 * votes > total
    elif 2 * votes_for_mask > total:
        kept = 2 * votes >= votes_for_mask
        if not kept.any():
            kept = votes > 0
    else:
        kept = np.zeros(len(lengths), bool)
    return _text(bounds, kept), metric.dice_of_counts((inside * lengths) @ kept, areas, lengths @ kept)


def stretches(texts: Sequence[str], size: tuple[int, int] = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Cut a frame wherever a run of any text begins or ends, from the first start to the last end.

    Returns the cuts (n + 1,), rising pixel numbers from 0 as in ``rle.runs``, and whether each text's mask
    includes each stretch between two cuts: (texts, n) of 0 and 1, int64. Without any run n is 0.
    """
    runs = [rle.runs(text, size) for text in texts]
    starts = np.concatenate([start for start, _ in runs])
    ends = starts + np.concatenate([length for _, length in runs])
    owner = np.repeat(np.arange(len(runs)), [len(start) for start, _ in runs])
    cuts, index = np.unique(np.concatenate([starts, ends]), return_inverse=True)
    if not len(cuts):
        return np.zeros(1, np.int64), np.zeros((len(runs), 0), np.int64)
    change = np.zeros((len(runs), len(cuts)), np.int64)
    # Add instead of assigning: a run may begin where the one before it ends.
    np.add.at(change, (owner, index[: len(starts)]), 1)
    np.add.at(change, (owner, index[len(starts) :]), -1)
    return cuts, np.cumsum(change, axis=1)[:, :-1]


def mean_pairwise_dice(
    rows: Iterable[Sequence[str]], size: tuple[int, int] = SIZE, reporter: Reporter = SILENT
) -> np.ndarray:
    """Compute the mean Dice over frames between all pairs of files, (files, files); each row has a frame's
    texts."""
    rows = list(rows)
    total = np.zeros((len(rows[0]), len(rows[0])))
    with reporter.bar("Comparing", len(rows)) as bar:
        for row in rows:
            if len(set(row)) == 1:
                total += 1
            else:
                bounds, inside = stretches(row, size)
                # Floats make the matrix product fast; pixel counts are exact in float64.
                pixels = inside * np.diff(bounds).astype(np.float64)
                shared = pixels @ inside.T.astype(np.float64)
                areas = shared.diagonal()
                total += metric.dice_of_counts(shared, areas[:, None], areas[None, :])
            bar.update()
    return total / len(rows)


def weights_by_agreement(dice: np.ndarray) -> np.ndarray:
    """Compute whole-number weights (files,) of at least 0 from mean pairwise Dice (files, files).

    They sum to a million, up to rounding, and equal ``blending.agreement_weights``: large for files that
    agree with files that agree.
    """
    return np.rint(weights_of_dice(dice) * _WHOLE).astype(np.int64)


def _text(bounds: np.ndarray, kept: np.ndarray) -> str:
    """Encode the kept stretches as run-length text; adjacent ones become one run."""
    edges = bounds[np.diff(kept, prepend=False, append=False)]
    numbers = edges + 1
    numbers[1::2] -= numbers[::2]
    return " ".join(map(str, numbers.tolist()))


def _report_copies(paths: Sequence[Path], digests: Sequence[str], reporter: Reporter) -> None:
    first_paths: dict[str, Path] = {}
    for path, digest in zip(paths, digests, strict=True):
        if digest in first_paths:
            remark = (
                "was given before" if path == first_paths[digest] else f"is a copy of {first_paths[digest]}"
            )
            reporter.say(f"{path} {remark}; its vote counts again, so leave it out if that is not meant.")
        first_paths.setdefault(digest, path)
