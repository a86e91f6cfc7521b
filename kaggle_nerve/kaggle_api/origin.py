"""What Kaggle and the ledger are told of where a submission came from."""

from kaggle_nerve.decision.decision import Decision
from kaggle_nerve.kaggle_api.ledger import Origin
from kaggle_nerve.runs import Run, joined_name
from kaggle_nerve.storage import digest_text


def ledger_origin(runs: list[Run], decision: Decision) -> Origin:
    """What the ledger keeps of it."""
    figures = decision.figures
    settings = (
        digest_text(*(run.settings.digest() for run in runs)) if len(runs) > 1 else runs[0].settings.digest()
    )
    return Origin(joined_name(runs), settings[:12], figures.dice, figures.low, figures.high)


def default_message(runs: list[Run], decision: Decision) -> str:
    """A description for Kaggle: the runs and their out-of-fold figure."""
    return f"{joined_name(runs)}, out-of-fold {decision.figures.dice:.4f}"
