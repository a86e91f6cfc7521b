"""Folder of a run: each stage writes its results there and reads those of the previous stage.

`Run` and `Fold` know every file name in it; `create` and `open_run` return a Run; `adopting` imports runs that were
trained elsewhere.
"""

from kaggle_nerve.runs.facts import FoldFacts, FoldResult, OofFacts, TestFacts
from kaggle_nerve.runs.opening import create, decision_file, join_names, open_run, sort_runs
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
    "join_names",
    "open_run",
    "sort_runs",
]
