"""A submitted file's verdict: the competition's metric on public and private frames, or the first fault."""

from dataclasses import dataclass
from pathlib import Path

from kaggle_nerve.competition import metric, submission
from kaggle_nerve.rehearsal.competition import ServedCompetition


@dataclass(frozen=True)
class Verdict:
    """Scores as Kaggle shows them, text with five decimals, or the reason why there are none."""

    public: str = ""
    private: str = ""
    error: str = ""


def judge(path: Path, served: ServedCompetition) -> Verdict:
    """Score the submission file at ``path``; an invalid one is told its first fault."""
    found = submission.check(path, served.sample).faults
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        return Verdict(error=f"{found[0]}{more}")
    score = metric.score(submission.read(path), served.read_solution())
    return Verdict(f"{score.public:.5f}", f"{score.private:.5f}")
