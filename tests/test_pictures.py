import io

import numpy as np
import pandas as pd

from kaggle_nerve.data.overlay import PREDICTED, TRUE
from kaggle_nerve.pictures import charts
from kaggle_nerve.pictures.sheet import Tile, sheet


def drawn(figure):
    made = io.BytesIO()
    figure.savefig(made, format="png", dpi=40)
    return made.getvalue()


def test_a_sheet_has_a_tile_for_each_frame_and_an_outline_for_each_mask():
    frame, mask = np.full((42, 58), 90, np.uint8), np.zeros((42, 58), np.uint8)
    mask[10:20, 30:40] = 1
    tiles = [Tile(frame, "both", [(mask, TRUE), (mask, PREDICTED)]), Tile(frame, "none", [(mask * 0, TRUE)])]
    figure = sheet(tiles, "two frames")
    assert [axes.get_title() for axes in figure.axes] == ["both", "none"]
    assert [len(axes.collections) for axes in figure.axes] == [2, 0]
    assert figure.axes[0].images[0].get_array().shape == (42, 58)
    assert drawn(figure)


def test_balance_counts_frames_of_each_subject():
    frames = pd.DataFrame({"subject": [3, 3, 3, 8], "area": [10, 0, 0, 5]})
    (axes,) = charts.balance(frames).axes
    present, empty = ([bar.get_height() for bar in group] for group in axes.containers)
    assert [text.get_text() for text in axes.get_xticklabels()] == ["3", "8"]
    assert (present, empty) == ([1, 1], [2, 0])
    assert "50.0%" in axes.get_title(loc="left")


def test_curves_leave_out_epochs_without_a_score():
    rows = pd.DataFrame({"epoch": [1, 2, 3], "loss": [1.5, 1.0, 0.9], "dice": [np.nan, 0.5, 0.7]})
    figure = charts.curves({0: rows, 2: rows})
    loss, score = figure.axes
    assert [list(line.get_xdata()) for line in loss.lines] == [[1, 2, 3]] * 2
    assert [list(line.get_xdata()) for line in score.lines] == [[2, 3]] * 2
    assert drawn(figure)
