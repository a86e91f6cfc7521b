"""Contact sheets of frames, with the outlines of masks."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.figure import Figure

WIDTH = 3.4
"""Width of a frame in inches."""

GAP = 0.08
"""Width of the gap between groups of tiles, in frames."""


@dataclass(frozen=True)
class Tile:
    """A frame (height, width), its title, and masks (height, width) with the colours of their outlines."""

    frame: np.ndarray
    title: str
    outlines: Sequence[tuple[np.ndarray, str]] = field(default=())


def sheet(tiles: Sequence[Tile], title: str = "", columns: int = 4, together: int = 1) -> Figure:
    """Draw a contact sheet of ``tiles``, row by row, with a gap after every ``together`` of them.

    ``columns`` is a multiple of ``together``.
    """
    columns = max(1, min(columns, len(tiles)))
    rows = -(-len(tiles) // columns)
    height, width = tiles[0].frame.shape if tiles else (3, 4)
    figure = Figure(
        figsize=(WIDTH * columns, (WIDTH * height / width + 0.35) * rows + 0.4), layout="constrained"
    )
    gaps = int(together > 1)
    widths = ([1.0] * together + [GAP] * gaps) * max(1, columns // together)
    grid = figure.add_gridspec(max(1, rows), len(widths), width_ratios=widths)
    for place, tile in enumerate(tiles):
        row, column = divmod(place, columns)
        axes = figure.add_subplot(grid[row, column + gaps * (column // together)])
        axes.imshow(tile.frame, cmap="gray", vmin=0, vmax=255)
        for mask, colour in tile.outlines:
            if mask.any():
                axes.contour(mask, levels=[0.5], colors=[colour], linewidths=1.2)
        axes.set_title(tile.title, fontsize=9)
        axes.set_axis_off()
    figure.suptitle(title)
    return figure
