"""The kernels: purpose, settings cell, required module, and the cells that run it."""

from dataclasses import dataclass, replace
from textwrap import dedent


@dataclass(frozen=True)
class Plan:
    """A kernel. ``settings`` is the cell that the user edits, ``runs`` are title and code of the last cells.

    ``entry`` is the module whose imports the notebook contains. ``gpu``: whether it requests one.
    """

    name: str
    title: str
    about: str
    settings: str
    entry: str
    runs: tuple[tuple[str, str], ...]
    gpu: bool

    def part(self, number: int) -> "Plan":
        """Return the kernel of a part; its name agrees with its title, from which Kaggle derives the name."""
        return replace(self, name=part_name(self.name, number), title=f"{self.title} {number}")


def part_name(name: str, number: int) -> str:
    """Return the name of the kernel of a part; ``name`` is that of the whole, with or without its owner."""
    return f"{name}-{number}"


def _cell(text: str) -> str:
    return dedent(text).strip("\n")


TRAIN = Plan(
    name="nerve-train-folds",
    title="Nerve train folds",
    about=_cell("""
        Trains a U-Net ensemble over patient-grouped folds, with out-of-fold predictions, and writes
        `submission.csv`. Attach the competition's data; choose the GPUs (T4 x2: folds are spread over them). A
        session that runs out of time leaves its work in `runs/`: attach this notebook's output to it and run
        it again, and it goes on from there."""),
    settings=_cell("""
        # Yours to change. What each setting means: README and docs/models.md of kaggle-nerve.

        # Settings to start from: "default", "small", "unet-effb1-448", ... (the cells kaggle_nerve/presets/ below).
        # None takes "default" on a GPU and "small" without one.
        PRESET = None

        # Patient-grouped folds: a number, a hold-out such as "42/5", "5+all" for a model of all patients besides;
        # None takes the preset's own.
        FOLDS = None

        # Hours that this session may take. Kaggle ends a notebook after 12 and throws its work away.
        HOURS = 11.0

        # False: train in full; what does not fit is left for a session with this one's output attached.
        # True: make all folds fit into HOURS, with fewer epochs.
        SHORTEN = False

        # Settings changed one by one, such as ["training.epochs=60", "size=[192, 256]"].
        CHANGES = []

        # The run's name; None takes the preset's. Another name begins another run.
        RUN = None

        # Several notebooks can share the folds: "1/2" trains one half of them and "2/2" the other, all other settings
        # being equal. A part writes submission.csv only if the outputs of the other parts are attached to it.
        # None trains all folds.
        PART = None"""),
    entry="kaggle_nerve.session.training",
    runs=(
        (
            "Train, decide, write `submission.csv`",
            _cell("""
                from kaggle_nerve.session.training import train

                train(PRESET, FOLDS, HOURS, SHORTEN, CHANGES, RUN, PART)"""),
        ),
    ),
    gpu=True,
)

SUBMIT = Plan(
    name="nerve-predict-submit",
    title="Nerve predict submit",
    about=_cell("""
        Writes `submission.csv` from runs that were trained before. Attach the competition's data, and the runs:
        the output of `nerve-train-folds`, or a dataset made with `kaggle-nerve kernels dataset`. Several runs
        are blended."""),
    settings=_cell("""
        # Yours to change.

        # The runs, by name, such as ["small", "default"]; "small@flips" predicts with other views of a run.
        # An empty list takes all that are attached.
        RUNS = []"""),
    entry="kaggle_nerve.session.submitting",
    runs=(
        (
            "Predict, decide, write `submission.csv`",
            _cell("""
                from kaggle_nerve.session.submitting import submit

                submit(RUNS)"""),
        ),
    ),
    gpu=True,
)

EXPLORE = Plan(
    name="nerve-explore",
    title="Nerve explore",
    about=_cell("""
        Shows the competition's data, and where a run is attached (the output of `nerve-train-folds`) what it
        learned: frames with outlines, class balance by subject, frames that look alike and are labelled unlike,
        learning curves, and the out-of-fold frames that went worst."""),
    settings=_cell("""
        # Yours to change.

        # The run to look at, by name; None takes the first that is attached.
        RUN = None

        # Frames on a sheet, and the seed by which they are drawn.
        COUNT = 12
        SEED = 0"""),
    entry="kaggle_nerve.session.explore",
    runs=(
        (
            "Frames, with the nerve outlined",
            _cell("""
                from kaggle_nerve.session.explore import Exploration

                data = Exploration(RUN, SEED)
                data.show_frames(COUNT)"""),
        ),
        ("Class balance by subject", "data.show_balance()"),
        ("Look alike, labelled unlike", "data.show_contradictions()"),
        ("Learning curves", "data.show_curves()"),
        ("Out-of-fold frames that went worst", "data.show_worst(COUNT)"),
    ),
    gpu=False,
)

PLANS = {plan.name: plan for plan in (TRAIN, SUBMIT, EXPLORE)}
