import io

import numpy as np
import pandas as pd
import pytest

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


def test_tiles_that_belong_together_stand_closer():
    tiles = [Tile(np.zeros((42, 58), np.uint8), str(place)) for place in range(6)]
    figure = sheet(tiles, together=2)
    drawn(figure)
    boxes = [axes.get_position() for axes in figure.axes]
    first, second, third = (boxes[place + 1].x0 - boxes[place].x1 for place in range(3))
    assert first == pytest.approx(third)
    assert first < second / 2
    assert (boxes[4].x0, boxes[5].x0) == (boxes[0].x0, boxes[1].x0)
    assert drawn(sheet([]))


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


def test_scores_stand_at_their_estimates_with_intervals():
    submitted = pd.DataFrame(
        {
            "run": ["tiny", "small", "small", "lost"],
            "oof": [0.6, 0.7, 0.7, 0.8],
            "oof_low": [0.55, 0.66, 0.66, np.nan],
            "oof_high": [0.66, 0.73, 0.73, np.nan],
            "public": [0.61, 0.68, 0.68, np.nan],
            "private": [0.59, np.nan, np.nan, np.nan],
        }
    )
    figure = charts.scores(submitted)
    (axes,) = figure.axes
    public, private = axes.containers
    assert public.lines[0].get_xydata().tolist() == [[0.6, 0.61], [0.7, 0.68], [0.7, 0.68]]
    assert private.lines[0].get_xydata().tolist() == [[0.6, 0.59]]
    (bar,) = private.lines[2][0].get_segments()
    np.testing.assert_allclose(bar, [[0.55, 0.59], [0.66, 0.59]])
    assert [text.get_text() for text in axes.texts] == ["tiny", "small"]
    assert axes.get_xlim() == axes.get_ylim()
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["public", "private"]
    assert drawn(figure)
