"""Contact sheets of doubtful labels: pairs side by side, single masks one by one."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from kaggle_nerve.audit.contradictions import DISAGREE, name_of
from kaggle_nerve.competition import rle
from kaggle_nerve.data.overlay import PREDICTED, TRUE
from kaggle_nerve.pictures.sheet import Tile, sheet

MOST = 24
"""Maximum number of frames on a sheet, from the worst findings."""


def doubts_sheet(
    findings: pd.DataFrame, frames: pd.DataFrame, read: Callable[..., np.ndarray], most: int = MOST
) -> Figure:
    """Draw a sheet of the first of ``findings``, all of one kind: ``most`` frames, or half as many pairs.

    ``findings`` has kind, row, and for pairs other, correlation and dice; ``frames`` are those of
    `training_frames`, ``read`` returns the picture at a path. Own outlines are blue; if two outlines
    disagree, each frame also shows the other's in orange.
    """
    kind, together = findings.kind.iloc[0], 1 if findings.other.isna().all() else 2
    selection = findings.head(most // together)
    tiles = []
    for finding in selection.itertuples():
        tiles += _tiles(finding, frames, read)
    count = f"{len(selection)} of {len(findings)}" if len(selection) < len(findings) else str(len(findings))
    other = "; own outline blue, the twin's orange" if kind == DISAGREE else ""
    return sheet(tiles, f"{kind.capitalize()}: {count}{other}", together=together)


def _tiles(finding: Any, frames: pd.DataFrame, read: Callable[..., np.ndarray]) -> list[Tile]:
    frame = frames.loc[finding.row]
    if pd.isna(finding.other):
        return [Tile(read(frame.path), _title(frame), _outlines(frame))]
    twin = frames.loc[int(finding.other)]
    own_outlines, twin_outlines, dice = _outlines(frame), _outlines(twin), ""
    if finding.kind == DISAGREE:
        dice = f"; Dice {finding.dice:.2f}"
        own_outlines, twin_outlines = (
            [*_recolour(twin_outlines), *own_outlines],
            [*_recolour(own_outlines), *twin_outlines],
        )
    return [
        Tile(read(frame.path), f"{_title(frame)}; correlation {finding.correlation:.4f}", own_outlines),
        Tile(read(twin.path), _title(twin) + dice, twin_outlines),
    ]


def _recolour(outlines: list[tuple[np.ndarray, str]]) -> list[tuple[np.ndarray, str]]:
    return [(mask, PREDICTED) for mask, _ in outlines]


def _title(frame: Any) -> str:
    return f"{name_of(frame)}, {f'{frame.area} pixels' if frame.has_mask else 'no mask'}"


def _outlines(frame: Any) -> list[tuple[np.ndarray, str]]:
    return [(rle.decode(frame.pixels), TRUE)] if frame.has_mask else []
