"""Each architecture and each option learns, keeps the frame's size, and comes back from its file."""

import battery
import keras
import pytest

COMPILED = keras.backend.backend() == "jax"
"""TensorFlow would compile for longer than it trains."""

CASES = {
    "residual": ("model.block=residual", "model.down=stride", "model.batch_norm=false"),
    "competition": (
        "model.block=inception",
        "model.depth=1",
        "model.down=stride",
        "model.skip=residual",
        "model.activation=elu",
    ),
    "attention": (
        "model.skip=attention",
        "model.scse=true",
        "model.deep_supervision=true",
        "model.presence=false",
    ),
    "columns": ("model.hypercolumns=true", "model.stem=2", "model.normalise=unit", "model.skip_dropout=0.1"),
    "unet++": ("model.architecture=unet++",),
    "unet++ with all": (
        "model.architecture=unet++",
        "model.skip=attention",
        "model.scse=true",
        "model.hypercolumns=true",
        "model.deep_supervision=true",
        "model.width=6",
    ),
    "segnet": ("model.architecture=segnet",),
    "attention segnet": ("model.architecture=segnet", "model.skip=attention", "model.dropout=0.1"),
    "segnet with all": (
        "model.architecture=segnet",
        "model.skip=residual",
        "model.block=residual",
        "model.scse=true",
        "model.deep_supervision=true",
        "model.hypercolumns=true",
        "model.stem=2",
    ),
}


ONE_BACKEND = ("competition", "unet++ with all", "attention segnet", "segnet with all")
"""Combinations of parts that the other cases hold: the second backend, which compiles each for a minute, leaves
them out (see the Makefile)."""


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(changes, id=name, marks=[pytest.mark.one_backend] if name in ONE_BACKEND else [])
        for name, changes in CASES.items()
    ],
)
def test_it_keeps_the_size_learns_eight_frames_and_loads_as_it_was_saved(changes, tmp_path):
    model = battery.build(*changes)
    battery.check_builds(model, presence="model.presence=false" not in changes)
    battery.check_overfits(model, jit=COMPILED)
    battery.check_saves(model, tmp_path)
