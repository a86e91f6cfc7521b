"""Measure stored probabilities in one pass: everything that rules and classifiers use, frame by frame."""

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
    """Measurements of n frames; the first axis of every array is the frame.

    ``cut_areas``: int32 (n, 257), pixels at full size whose level reaches each cut (`levels.at_least`).
    ``features``: float32 (n, len(features.NAMES)). ``maps``: uint8 (n, height / 20, width / 20).
    ``presence``: P(mask not empty) by the networks' heads, (n,). For frames with known truth also
    ``shared``: as ``cut_areas``, for the pixels inside the true mask; ``truth``: true area (n,);
    ``true_maps``: the true masks as maps; ``subjects``: (n,). Otherwise these are empty arrays.
    """

    cut_areas: np.ndarray
    features: np.ndarray
    maps: np.ndarray
    presence: np.ndarray
    shared: np.ndarray
    truth: np.ndarray
    true_maps: np.ndarray
    subjects: np.ndarray

    def __len__(self) -> int:
        return len(self.cut_areas)

    def take(self, rows: np.ndarray) -> "Evidence":
        """Select the evidence of some frames: row numbers, or a mask of booleans."""
        return Evidence(*(getattr(self, item.name)[rows] for item in fields(self)))

    @property
    def present(self) -> np.ndarray:
        """Whether each frame truly has a mask, bool (n,)."""
        return self.truth > 0


@dataclass(frozen=True)
class FrameEvidence:
    """Measurements of one frame: a row of `Evidence`."""

    cut_areas: np.ndarray
    features: np.ndarray
    map: np.ndarray
    presence: float


def measure_frame(
    stored: Predictions, row: int, blend: Blend | None = None
) -> tuple[np.ndarray, FrameEvidence]:
    """Return the map of a frame in levels at full size, uint8, and its measurements without the truth.

    ``blend`` replaces the stored way to combine the runs.
    """
    return next(_measure_blends(stored, row, [blend or stored.blend]))


def map_levels(stored: Predictions, row: int, blend: Blend | None = None) -> np.ndarray:
    """Return the map of a frame in levels at full size, uint8, as in `measure_frame`, without measurements."""
    return levels.quantise(stored.mix(stored.members(row), blend or stored.blend))


def _measure_blends(
    stored: Predictions, row: int, blends: Sequence[Blend]
) -> Iterator[tuple[np.ndarray, FrameEvidence]]:
    """Do as `measure_frame` for several ways to combine the runs, reading their maps once."""
    members = stored.members(row)
    views = [float(stored.table[name].iat[row]) for name in VIEWS]
    runs = [_agreement(members), float(stored.presences[row].std())]
    for blend in blends:
        frame_levels = levels.quantise(stored.mix(members, blend))
        cut_areas = levels.at_least(levels.histogram(frame_levels))
        presence = float(np.average(stored.presences[row], weights=blend.weights or None))
        values = features.measure(frame_levels, cut_areas, presence, (*views, *runs))
        yield frame_levels, FrameEvidence(cut_areas, values, features.coarse(frame_levels), presence)


def stack_evidence(frames: Sequence[FrameEvidence]) -> Evidence:
    """Stack the evidence of single frames, without their truth."""
    nothing = np.zeros((len(frames), 0))
    return Evidence(
        np.stack([frame.cut_areas for frame in frames]),
        np.stack([frame.features for frame in frames]),
        np.stack([frame.map for frame in frames]),
        np.array([frame.presence for frame in frames]),
        *[nothing] * 4,
    )


Way = Callable[[int], Blend]
"""Function from a frame's row to the blend of the runs on that frame."""


def measure(
    stored: Predictions,
    truths: Truths,
    ways: Sequence[Way] = (),
    *,
    reporter: Reporter = SILENT,
    workers: int = 2,
) -> list[Evidence]:
    """Measure every out-of-fold frame: the evidence for each of ``ways`` (none: the stored way only)."""
    ways = ways or [lambda row: stored.blend]

    def measure_row(row: int) -> list[tuple[FrameEvidence, np.ndarray]]:
        # Keep no full maps: 4436 of them would take a gigabyte.
        measured = []
        for frame_levels, frame in _measure_blends(stored, row, [way(row) for way in ways]):
            inside = np.bincount(truths.inside(row, frame_levels), minlength=levels.COUNT)
            measured.append((frame, levels.at_least(inside.astype(np.int32))))
        return measured

    with ThreadPoolExecutor(workers) as pool, reporter.bar("Measuring", len(stored)) as bar:
        rows = []
        for measured in pool.map(measure_row, range(len(stored))):
            rows.append(measured)
            bar.update()
    truth_fields = {
        "truth": truths.areas,
        "true_maps": np.stack([_true_map(truths, row) for row in range(len(stored))]),
        "subjects": stored.table.subject.to_numpy(),
    }
    return [
        dataclasses.replace(
            stack_evidence([measured[way][0] for measured in rows]),
            shared=np.stack([measured[way][1] for measured in rows]),
            **truth_fields,
        )
        for way in range(len(ways))
    ]


def _true_map(truths: Truths, row: int) -> np.ndarray:
    return features.coarse(truths.mask(row).astype(np.uint8) * (levels.COUNT - 1))


def _agreement(members: np.ndarray) -> float:
    """Compute the mean pairwise Dice of the runs' masks, on maps of a quarter of the size."""
    if len(members) == 1:
        return 1.0
    height, width = (max(side // features.SHRINK, 1) for side in members.shape[1:])
    small = [cv2.resize(member, (width, height), interpolation=cv2.INTER_AREA) for member in members]
    return mean_agreement(np.stack(small))
