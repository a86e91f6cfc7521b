"""Plan the frames: positions along the neck, labels, contradictory twins. No pixels yet."""

from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np

from kaggle_nerve.phantom.subject import positive_counts

TWIN_SHARE = 0.03
"""Share of frames in pairs of near-duplicates of which only one has a mask."""

FEWEST_FRAMES_WITH_TWINS = 30
"""Minimum number of frames of a set for at least one pair, even if 3 % of them are fewer."""


class Stream(IntEnum):
    """Purposes of random numbers. Each has its own stream, so that none depends on another's order."""

    PLAN = 1
    MIXING = 2
    SUBJECT = 3
    FRAME = 4
    RETAKE = 5
    NERVE = 6


def stream(purpose: Stream, *numbers: int) -> np.random.Generator:
    """Return the random generator for a purpose and some ``numbers``, all of them 0 or more."""
    # Add one to each: for numpy, (1, 0) is the same seed as (1,).
    return np.random.default_rng([int(purpose), *(number + 1 for number in numbers)])


@dataclass(frozen=True)
class Shot:
    """One frame to render."""

    subject: int
    """One-based, over both splits: no subject is in both train and test."""
    img: int
    """One-based; within the subject in train, over all subjects in test."""
    seed: tuple[int, int, int]
    """(set, subject, shot): seed of everything random in the frame; twins share it."""
    position: float
    """Position of the slice along the neck, 0 to 1."""
    edge: float
    """Distance along the neck to the nerve's end: positive if there is a nerve."""
    labelled: bool
    """Whether the frame has a mask."""
    twin: bool = False
    """Whether this is the second frame of a pair."""

    @property
    def nerve(self) -> bool:
        """Whether a nerve is visible."""
        return self.edge > 0


def plan_train(seed: int, subjects: int, frames: int) -> list[Shot]:
    """Plan the shots of the training set, sorted by subject and img."""
    return [shot for shots in _plan(seed, 0, 1, subjects, frames) for shot in shots]


def plan_test(seed: int, first: int, subjects: int, frames: int) -> list[Shot]:
    """Plan the shots of the test set, sorted by img; subjects ``first`` and up, in mixed order."""
    shots = [shot for part in _plan(seed, 1, first, subjects, frames) for shot in part]
    order = stream(Stream.MIXING, seed).permutation(len(shots))
    return [replace(shots[place], img=number) for number, place in enumerate(order, start=1)]


def _plan(seed: int, split: int, first: int, subjects: int, frames: int) -> list[list[Shot]]:
    """Plan the shots of each subject of a split, sorted by img."""
    rng = stream(Stream.PLAN, seed, split)
    counts = positive_counts(rng, subjects, frames)
    pairs = _share_out_pairs(rng, counts, frames)
    return [
        _plan_subject(rng, (seed, first + index), frames, int(counts[index]), int(pairs[index]))
        for index in range(subjects)
    ]


def _share_out_pairs(rng: np.random.Generator, counts: np.ndarray, frames: int) -> np.ndarray:
    """Distribute the twin pairs over subjects: int array (subjects,).

    A pair replaces one frame with a mask and one without, so that it changes no count.
    """
    room = np.minimum(counts, frames - counts)
    total = frames * len(counts)
    count = round(TWIN_SHARE * total / 2)
    if total >= FEWEST_FRAMES_WITH_TWINS:
        count = max(1, count)
    places = np.repeat(np.arange(len(counts)), room)
    pair_subjects = rng.permutation(places)[:count]
    return np.bincount(pair_subjects, minlength=len(counts))


def _plan_subject(
    rng: np.random.Generator, seed: tuple[int, int], frames: int, positives: int, pairs: int
) -> list[Shot]:
    """Plan a subject's shots, shuffled and numbered; the nerve is visible from one end up to a point."""
    end = positives / frames
    shots = []
    for number in range(frames - pairs):
        nerve = number < positives
        position = rng.uniform(0, end) if nerve else rng.uniform(end, 1)
        edge = max(end - position, 1e-6) if nerve else min(end - position, 0.0)
        shots.append(Shot(seed[1], 0, (*seed, number), float(position), float(edge), labelled=nerve))
    # The first shots have a nerve; their twins replace as many empty frames.
    shots += [replace(shot, labelled=False, twin=True) for shot in shots[:pairs]]
    order = rng.permutation(frames)
    return [replace(shots[place], img=number) for number, place in enumerate(order, start=1)]
