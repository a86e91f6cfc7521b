"""Search settings with Optuna, an optional package (``pip install 'kaggle-nerve[search]'``) that no other imports.

open the study                      study, storage
for each trial:
    take the next one               claims: which trials count, and which were left by a dead worker
    train its folds                 trial, pruning
    score it on held-out patients
compare, train the best again       outcome, plots, page
"""

from importlib.util import find_spec

from kaggle_nerve.errors import NerveError


def require_optuna() -> None:
    """Raise NerveError if Optuna is not installed."""
    if find_spec("optuna") is None:
        raise NerveError(
            "`search` needs Optuna, which is not installed: run `pip install 'kaggle-nerve[search]'`, and the same "
            "command again."
        )
