"""Judge a submitted file: the metric on public and private frames, or the first fault."""

from dataclasses import dataclass
from pathlib import Path

from kaggle_nerve.competition import metric, submission
from kaggle_nerve.rehearsal.competitions.served import ServedCompetition


@dataclass(frozen=True)
class Verdict:
    """Scores as Kaggle shows them, text with five decimals, or the reason why there are none."""

    public: str = ""
    private: str = ""
    error: str = ""


def judge(path: Path, served: ServedCompetition) -> Verdict:
    """Score the submission file at ``path``; for an invalid one, report its first fault."""
    faults = submission.check(path, served.sample).faults
    if faults:
        first, rest = faults[0], len(faults) - 1
        return Verdict(error=f"{first} (and {rest} more)" if rest else str(first))
    score = metric.score(submission.read(path), served.read_solution())
    return Verdict(f"{score.public:.5f}", f"{score.private:.5f}")
