"""One pass over stored probabilities: everything that rules and classifiers look at, frame by frame."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields

import cv2
import numpy as np

from kaggle_nerve.decision import features
from kaggle_nerve.maps import levels
from kaggle_nerve.maps.blending import mean_agreement
from kaggle_nerve.maps.fullsize import Truths
from kaggle_nerve.prediction.stored import VIEWS, Blend, Predictions
from kaggle_nerve.progress import SILENT, Reporter


@dataclass(frozen=True)
class Evidence:
    """What is known of n frames; the first axis of every array is the frame.

    ``reached``: int32 (n, 257), pixels at full size whose level reaches each cut (`levels.at_least`).
    ``features``: float32 (n, len(features.NAMES)). ``maps``: uint8 (n, height / 20, width / 20).
    ``presence``: P(mask not empty) by the networks' heads, (n,). For frames whose truth is known also
    ``shared``: as ``reached``, of the pixels inside the true mask; ``truth``: true area (n,);
    ``true_maps``: the true masks as maps; ``subjects``: (n,). Elsewhere these are empty arrays.
    """

    reached: np.ndarray
    features: np.ndarray
    maps: np.ndarray
    presence: np.ndarray
    shared: np.ndarray
    truth: np.ndarray
    true_maps: np.ndarray
    subjects: np.ndarray

    def __len__(self) -> int:
        return len(self.reached)

    def take(self, rows: np.ndarray) -> "Evidence":
        """The evidence of some frames: row numbers, or a mask of booleans."""
        return Evidence(*(getattr(self, item.name)[rows] for item in fields(self)))

    @property
    def present(self) -> np.ndarray:
        """Which frames truly have a mask, bool (n,)."""
        return self.truth > 0


@dataclass(frozen=True)
class Look:
    """What was measured on one frame: a row of `Evidence`."""

    reached: np.ndarray
    features: np.ndarray
    map: np.ndarray
    presence: float


def look(stored: Predictions, row: int, blend: Blend | None = None) -> tuple[np.ndarray, Look]:
    """The map of a frame in levels at full size, uint8, and what is measured on it without its truth.

    ``blend`` combines the runs in place of the stored way.
    """
    return next(_looks(stored, row, [blend or stored.blend]))


def map_levels(stored: Predictions, row: int, blend: Blend | None = None) -> np.ndarray:
    """The map of a frame in levels at full size, uint8, as `look` gives it, but nothing is measured on it."""
    return levels.quantise(stored.mix(stored.members(row), blend or stored.blend))


def _looks(stored: Predictions, row: int, blends: Sequence[Blend]) -> Iterator[tuple[np.ndarray, Look]]:
    """`look` for several ways to combine the runs, which are read once."""
    members = stored.members(row)
    views = [float(stored.table[name].iat[row]) for name in VIEWS]
    runs = [_agreement(members), float(stored.presences[row].std())]
    for blend in blends:
        seen = levels.quantise(stored.mix(members, blend))
        reached = levels.at_least(levels.histogram(seen))
        presence = float(np.average(stored.presences[row], weights=blend.weights or None))
        values = features.measure(seen, reached, presence, (*views, *runs))
        yield seen, Look(reached, values, features.coarse(seen), presence)


def of_looks(looks: Sequence[Look]) -> Evidence:
    """The evidence of frames whose truth is not known."""
    nothing = np.zeros((len(looks), 0))
    return Evidence(
        np.stack([seen.reached for seen in looks]),
        np.stack([seen.features for seen in looks]),
        np.stack([seen.map for seen in looks]),
        np.array([seen.presence for seen in looks]),
        *[nothing] * 4,
    )


Way = Callable[[int], Blend]
"""How the runs are combined on the frame of a row."""


def measure(
    stored: Predictions,
    truths: Truths,
    ways: Sequence[Way] = (),
    *,
    reporter: Reporter = SILENT,
    workers: int = 2,
) -> list[Evidence]:
    """Look at every out-of-fold frame: the evidence for each of ``ways`` (none: the stored way alone)."""
    ways = ways or [lambda row: stored.blend]

    def see(row: int) -> list[tuple[Look, np.ndarray]]:
        # The full maps are let go at once: 4436 of them would take a gigabyte.
        found = []
        for seen, one in _looks(stored, row, [way(row) for way in ways]):
            inside = np.bincount(truths.inside(row, seen), minlength=levels.COUNT)
            found.append((one, levels.at_least(inside.astype(np.int32))))
        return found

    with ThreadPoolExecutor(workers) as pool, reporter.bar("Measuring", len(stored)) as bar:
        rows = []
        for found in pool.map(see, range(len(stored))):
            rows.append(found)
            bar.update()
    known = {
        "truth": truths.areas,
        "true_maps": np.stack([_true_map(truths, row) for row in range(len(stored))]),
        "subjects": stored.table.subject.to_numpy(),
    }
    return [
        dataclasses.replace(
            of_looks([found[way][0] for found in rows]),
            shared=np.stack([found[way][1] for found in rows]),
            **known,
        )
        for way in range(len(ways))
    ]


def _true_map(truths: Truths, row: int) -> np.ndarray:
    return features.coarse(truths.mask(row).astype(np.uint8) * (levels.COUNT - 1))


def _agreement(members: np.ndarray) -> float:
    """Mean pairwise Dice of the runs' masks, on maps of a quarter of the size."""
    if len(members) == 1:
        return 1.0
    height, width = (max(side // features.SHRINK, 1) for side in members.shape[1:])
    small = [cv2.resize(member, (width, height), interpolation=cv2.INTER_AREA) for member in members]
    return mean_agreement(np.stack(small))
