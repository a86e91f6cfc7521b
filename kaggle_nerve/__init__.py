"""kaggle-nerve: from Kaggle's Ultrasound Nerve Segmentation files to a score on its leaderboard.

What scripts and notebooks need is here, imported when it is first used: see docs/api.md.
"""

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kaggle_nerve.competition.rle import decode, encode
    from kaggle_nerve.competition.submission import check as check_submission
    from kaggle_nerve.competition.submission import score
    from kaggle_nerve.phantom import write_competition as write_phantom
    from kaggle_nerve.pipeline import learn_decision, prepare
    from kaggle_nerve.runs import open_run
    from kaggle_nerve.settings import apply_changes, load_preset
    from kaggle_nerve.training.run_folds import train_folds
    from kaggle_nerve.trial import predict

# TensorFlow decides at its import whether convolutions on a processor take oneDNN's kernels, and by itself
# does so on few processors; without them a training step was measured to take three times as long.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

__version__ = "0.1.0"

__all__ = [
    "apply_changes",
    "check_submission",
    "decode",
    "encode",
    "learn_decision",
    "load_preset",
    "open_run",
    "predict",
    "prepare",
    "score",
    "train_folds",
    "write_phantom",
]

_PLACES = {
    "apply_changes": "settings:apply_changes",
    "check_submission": "competition.submission:check",
    "decode": "competition.rle:decode",
    "encode": "competition.rle:encode",
    "learn_decision": "pipeline:learn_decision",
    "load_preset": "settings:load_preset",
    "open_run": "runs:open_run",
    "predict": "trial:predict",
    "prepare": "pipeline:prepare",
    "score": "competition.submission:score",
    "train_folds": "training.run_folds:train_folds",
    "write_phantom": "phantom:write_competition",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, inside = _PLACES[name].partition(":")
    return getattr(importlib.import_module(f"{__name__}.{module}"), inside)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
