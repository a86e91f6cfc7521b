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


def require_package(name: str) -> None:
    """Raise NerveError if the optional package ``name`` is not installed."""
    if find_spec(name) is None:
        raise NerveError(
            f"This needs the package {name}, which is not installed: run `pip install 'kaggle-nerve[search]'`, and the "
            "same command again."
        )
