"""A run's folder: where each stage leaves its work, and finds that of the stage before.

`Run` and `Fold` know every file name in it; `create` and `open_run` give a Run; `adopting` takes in runs that were
trained elsewhere.
"""

from kaggle_nerve.runs.facts import FoldFacts, FoldResult, OofFacts, TestFacts
from kaggle_nerve.runs.opening import create, decision_file, in_order, joined_name, open_run
from kaggle_nerve.runs.run import Fold, Run

__all__ = [
    "Fold",
    "FoldFacts",
    "FoldResult",
    "OofFacts",
    "Run",
    "TestFacts",
    "create",
    "decision_file",
    "in_order",
    "joined_name",
    "open_run",
]
