"""Model files of finished folds: the file that training left, or a sentence."""

from kaggle_nerve.errors import NerveError
from kaggle_nerve.runs.run import Fold, Run
from kaggle_nerve.storage import COMPLETE, digest_file


class DamagedModelError(NerveError):
    """The model file ``path`` of a finished fold is missing, or is not the one that training left."""

    def __init__(self, fold: Fold, problem: str):
        self.path = fold.model
        super().__init__(f"{fold.model} {problem}; {remedy(fold)}.")


def remedy(fold: Fold) -> str:
    """Return what to do about a finished fold's damaged model file, as the end of a sentence."""
    return f"copy it again from where it was trained, or delete {fold.folder} and train the fold again"


def require_model(fold: Fold) -> str:
    """Return the digest of a finished fold's model file.

    Raise DamagedModelError if the file is missing, or if its digest is not the one in `FoldFacts`; folds that an early
    version finished have none.
    """
    recorded = fold.require_facts().model
    if not fold.model.is_file():
        raise DamagedModelError(fold, "is missing")
    digest = digest_file(fold.model)
    if recorded and digest != recorded:
        raise DamagedModelError(
            fold, f"is damaged or was replaced (its SHA-256 is not the one in {COMPLETE} beside it)"
        )
    return digest


def require_models(run: Run) -> None:
    """Raise DamagedModelError if the model file of a finished fold of ``run`` is not whole (see `require_model`)."""
    for fold in run.test_folds():
        require_model(fold)
