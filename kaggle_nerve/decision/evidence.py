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
    ``features``: float32 (n, len(features.NAMES)). ``coarse_maps``: uint8 (n, height / 20, width / 20).
    ``presence``: P(mask not empty) by the networks' heads, (n,). For frames with known truth also
    ``cut_intersections``: as ``cut_areas``, for the pixels inside the true mask; ``true_areas``: (n,), in
    pixels; ``coarse_true_maps``: the true masks, in the form of ``coarse_maps``; ``subjects``: (n,).
    Otherwise these are empty arrays.
    """

    cut_areas: np.ndarray
    features: np.ndarray
    coarse_maps: np.ndarray
    presence: np.ndarray
    cut_intersections: np.ndarray
    true_areas: np.ndarray
    coarse_true_maps: np.ndarray
    subjects: np.ndarray

    def __len__(self) -> int:
        return len(self.cut_areas)

    def select(self, rows: np.ndarray) -> "Evidence":
        """Select the evidence of some frames: row numbers, or a mask of booleans."""
        return Evidence(*(getattr(self, item.name)[rows] for item in fields(self)))

    @property
    def present(self) -> np.ndarray:
        """Whether each frame truly has a mask, bool (n,)."""
        return self.true_areas > 0


@dataclass(frozen=True)
class FrameEvidence:
    """Measurements of one frame: a row of `Evidence`."""

    cut_areas: np.ndarray
    features: np.ndarray
    coarse_map: np.ndarray
    presence: float


def measure_frame(
    stored: Predictions, row: int, blend: Blend | None = None
) -> tuple[np.ndarray, FrameEvidence]:
    """Return the map of a frame in levels at full size, uint8, and its measurements without the truth.

    ``blend`` replaces the stored blend of the runs.
    """
    return next(_measure_blends(stored, row, [blend or stored.blend]))


def map_levels(stored: Predictions, row: int, blend: Blend | None = None) -> np.ndarray:
    """Return the map of a frame in levels at full size, uint8, as in `measure_frame`, without measurements."""
    return levels.quantise(stored.mix(stored.members(row), blend or stored.blend))


def _measure_blends(
    stored: Predictions, row: int, blends: Sequence[Blend]
) -> Iterator[tuple[np.ndarray, FrameEvidence]]:
    """Yield what `measure_frame` returns for each of ``blends``, reading the runs' maps once."""
    run_maps = stored.members(row)
    views = [float(stored.table[name].iat[row]) for name in VIEWS]
    runs = [_agreement(run_maps), float(stored.presences[row].std())]
    for blend in blends:
        frame_levels = levels.quantise(stored.mix(run_maps, blend))
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
        np.stack([frame.coarse_map for frame in frames]),
        np.array([frame.presence for frame in frames]),
        *[nothing] * 4,
    )


BlendByRow = Callable[[int], Blend]
"""Function from a frame's row to the blend of the runs on that frame."""


def measure(
    stored: Predictions,
    truths: Truths,
    blends_by_row: Sequence[BlendByRow] = (),
    *,
    reporter: Reporter = SILENT,
    workers: int = 2,
) -> list[Evidence]:
    """Measure every out-of-fold frame; return one Evidence for each of ``blends_by_row``, or, without them,
    one for the stored blend.
    """
    blends_by_row = blends_by_row or [lambda row: stored.blend]

    def measure_row(row: int) -> list[tuple[FrameEvidence, np.ndarray]]:
        # Keep no full maps: 4436 of them would take a gigabyte.
        measured = []
        blends = [blend_by_row(row) for blend_by_row in blends_by_row]
        for frame_levels, frame in _measure_blends(stored, row, blends):
            inside = np.bincount(truths.inside(row, frame_levels), minlength=levels.COUNT)
            measured.append((frame, levels.at_least(inside.astype(np.int32))))
        return measured

    with ThreadPoolExecutor(workers) as pool, reporter.bar("Measuring", len(stored)) as bar:
        rows = []
        for measured in pool.map(measure_row, range(len(stored))):
            rows.append(measured)
            bar.update()
    truth_fields = {
        "true_areas": truths.areas,
        "coarse_true_maps": np.stack([_coarse_true_map(truths, row) for row in range(len(stored))]),
        "subjects": stored.table.subject.to_numpy(),
    }
    return [
        dataclasses.replace(
            stack_evidence([measured[index][0] for measured in rows]),
            cut_intersections=np.stack([measured[index][1] for measured in rows]),
            **truth_fields,
        )
        for index in range(len(blends_by_row))
    ]


def _coarse_true_map(truths: Truths, row: int) -> np.ndarray:
    return features.coarse(truths.mask(row).astype(np.uint8) * (levels.COUNT - 1))


def _agreement(run_maps: np.ndarray) -> float:
    """Compute the mean pairwise Dice of the runs' masks, on maps of a quarter of the size."""
    if len(run_maps) == 1:
        return 1.0
    height, width = (max(side // features.SHRINK, 1) for side in run_maps.shape[1:])
    small = [cv2.resize(run_map, (width, height), interpolation=cv2.INTER_AREA) for run_map in run_maps]
    return mean_agreement(np.stack(small))
