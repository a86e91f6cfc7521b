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


BY_HEART = ("columns",)
"""Learns by heart in `make test`, the others in `make test-long`."""

ON_BOTH = ("attention",)
"""Those whose training step the second backend compiles in `make test`, for a minute each, and not in `make test-long`:
what a step computes is written once, in keras.ops, and the losses have their own tests on both."""


def cases(marks):
    """All cases, with the marks of each by its name."""
    return pytest.mark.parametrize(
        "changes", [pytest.param(changes, id=name, marks=marks(name)) for name, changes in CASES.items()]
    )


@cases(lambda name: [pytest.mark.one_backend] if name == "unet++ with all" else [])
def test_it_keeps_the_size_and_loads_as_it_was_saved(changes, tmp_path):
    model = battery.build(*changes)
    model.jit_compile = COMPILED
    battery.check_builds(model, presence="model.presence=false" not in changes)
    battery.check_saves(model, tmp_path)


def learns(name):
    """By heart is more than learning, so that the networks that do so are left out of it."""
    if name in BY_HEART:
        return [pytest.mark.long]
    return [] if name in ON_BOTH else [pytest.mark.one_backend]


@cases(learns)
def test_every_weight_learns(changes):
    battery.check_learns(battery.build(*changes), jit=COMPILED)


@cases(lambda name: [pytest.mark.one_backend, *([] if name in BY_HEART else [pytest.mark.long])])
def test_eight_frames_are_learned_by_heart(changes):
    battery.check_overfits(battery.build(*changes), jit=COMPILED)
