"""The audit of a data directory's labels: near-identical frames, contradictions, suspicious masks, and its files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from kaggle_nerve.audit import contradictions, suspicious, twins
from kaggle_nerve.audit.sheets import doubts_sheet
from kaggle_nerve.data.cache import open_training
from kaggle_nerve.data.frames import locate
from kaggle_nerve.data.tiff import read_grey
from kaggle_nerve.progress import SILENT, Reporter
from kaggle_nerve.storage import atomic_path, write_text

KINDS = (
    contradictions.AGAINST_NONE,
    contradictions.DISAGREE,
    suspicious.TINY,
    suspicious.PIECES,
    suspicious.HOLES,
    suspicious.PLACE,
)
"""Kinds of findings, in the order of their weight."""

FINDINGS, TWINS, DOUBTED = "findings.csv", "twins.csv", "doubted.csv"


@dataclass(frozen=True)
class Audit:
    """What was found.

    ``frames``: those of `training_frames`. ``twins``: pairs of rows, as `contradictions.compare_labels` gives
    them. ``findings``: kind, row, other (NaN for a single mask), correlation, difference, dice, what;
    the worst of each kind first. ``doubted``: the table that training reads. ``least``: the
    correlation from which frames are twins.
    """

    frames: pd.DataFrame
    twins: pd.DataFrame
    findings: pd.DataFrame
    doubted: pd.DataFrame
    least: float

    def counts(self) -> dict[str, int]:
        """Findings of each kind."""
        return {kind: int((self.findings.kind == kind).sum()) for kind in KINDS}

    def identical(self) -> int:
        """Twins whose every pixel is equal."""
        return int((self.twins.difference == 0).sum())

    def across(self) -> int:
        """Twins of two subjects."""
        subjects = self.frames.subject.to_numpy()
        return int((subjects[self.twins.row] != subjects[self.twins.other]).sum())

    def as_dict(self) -> dict[str, Any]:
        """The figures, ready for JSON."""
        return {
            "frames": len(self.frames),
            "subjects": int(self.frames.subject.nunique()),
            "with_mask": int(self.frames.has_mask.sum()),
            "least": self.least,
            "twins": len(self.twins),
            "identical": self.identical(),
            "across_subjects": self.across(),
            "findings": self.counts(),
            "doubted": len(self.doubted),
        }


def audit(
    data_dir: Path, *, least: float = twins.LEAST, reporter: Reporter = SILENT, workers: int = 2
) -> Audit:
    """Compare the training frames of ``data_dir`` with each other and with their labels.

    ``least``: correlation of grey levels from which two frames are twins. Raises NerveError where
    there is no data, or a frame cannot be read.
    """
    cache = open_training(locate(data_dir), twins.SIZE, reporter=reporter, workers=workers)
    frames = cache.table
    found = twins.twins(cache, least, reporter=reporter, workers=workers)
    labelled = contradictions.compare_labels(found, frames)
    parts = [contradictions.contradictions(labelled, frames), suspicious.suspicious(frames)]
    order = {kind: place for place, kind in enumerate(KINDS)}
    findings = pd.DataFrame(
        [row for part in parts for row in part.to_dict("records")], columns=parts[0].columns
    )
    findings = findings.sort_values(
        "kind", key=lambda kinds: kinds.map(order), kind="stable", ignore_index=True
    )
    return Audit(frames, labelled, findings, contradictions.training_table(labelled, frames), least)


def write(found: Audit, out: Path) -> list[Path]:
    """Write ``found`` to the folder ``out``: three tables and a contact sheet for each kind of findings.

    An earlier audit's files give way. Returns the files' paths, the tables first.
    """
    tables = {
        FINDINGS: _named(found.findings, found.frames),
        TWINS: _named(found.twins.replace({"kind": {"": "agree"}}), found.frames),
        DOUBTED: found.doubted,
    }
    for name, table in tables.items():
        write_text(out / name, table.to_csv(index=False))
    return [*(out / name for name in tables), *_write_sheets(found, out)]


def _write_sheets(found: Audit, out: Path) -> list[Path]:
    written = []
    for kind in KINDS:
        path = out / f"sheet-{kind.replace(' ', '-')}.png"
        rows = found.findings[found.findings.kind == kind]
        if rows.empty:
            path.unlink(missing_ok=True)
            continue
        with atomic_path(path) as temporary:
            doubts_sheet(rows, found.frames, read_grey).savefig(temporary, format="png", dpi=100)
        written.append(path)
    return written


def _named(table: pd.DataFrame, frames: pd.DataFrame) -> pd.DataFrame:
    """``table`` with frames by subject, img and area (pixels) in place of row and other."""
    columns: dict[str, Any] = {"kind": table.kind}
    for rows, prefix in ((table.row, ""), (table.other, "other_")):
        of_row = frames[["subject", "img", "area"]].reindex(rows).astype("Int64").reset_index(drop=True)
        columns |= {prefix + name: of_row[name] for name in of_row}
    rest = table.drop(columns=["kind", "row", "other"]).round({"correlation": 6, "difference": 4, "dice": 4})
    return pd.concat([pd.DataFrame(columns), rest], axis=1)
