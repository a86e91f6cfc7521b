"""Audit the labels of a data directory for near-identical frames, contradictions and suspicious masks."""

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
"""Kinds of findings, most important first."""

FINDINGS, TWINS, DOUBTED = "findings.csv", "twins.csv", "doubted.csv"


@dataclass(frozen=True)
class Audit:
    """Result of an audit.

    ``frames``: those of `training_frames`. ``twins``: pairs of rows from `contradictions.compare_labels`.
    ``findings``: kind, row, other (NaN for a single mask), correlation, difference, dice, what; the worst of
    each kind first. ``doubted``: the table that training reads. ``least``: the minimum correlation of twins.
    """

    frames: pd.DataFrame
    twins: pd.DataFrame
    findings: pd.DataFrame
    doubted: pd.DataFrame
    least: float

    def counts(self) -> dict[str, int]:
        """Count the findings of each kind."""
        return {kind: int((self.findings.kind == kind).sum()) for kind in KINDS}

    def identical(self) -> int:
        """Count the twins that are equal in every pixel."""
        return int((self.twins.difference == 0).sum())

    def across(self) -> int:
        """Count the twins of two different subjects."""
        subjects = self.frames.subject.to_numpy()
        return int((subjects[self.twins.row] != subjects[self.twins.other]).sum())

    def as_dict(self) -> dict[str, Any]:
        """Convert the figures to plain values for JSON."""
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

    ``least``: minimum correlation of the grey levels of twins. Raise NerveError if there is no data, or a
    frame cannot be read.
    """
    cache = open_training(locate(data_dir), twins.SIZE, reporter=reporter, workers=workers)
    frames = cache.table
    pairs = twins.twins(cache, least, reporter=reporter, workers=workers)
    labelled_pairs = contradictions.compare_labels(pairs, frames)
    parts = [contradictions.contradictions(labelled_pairs, frames), suspicious.suspicious(frames)]
    order = {kind: place for place, kind in enumerate(KINDS)}
    findings = pd.DataFrame(
        [row for part in parts for row in part.to_dict("records")], columns=parts[0].columns
    )
    findings = findings.sort_values(
        "kind", key=lambda kinds: kinds.map(order), kind="stable", ignore_index=True
    )
    return Audit(
        frames, labelled_pairs, findings, contradictions.training_table(labelled_pairs, frames), least
    )


def write(result: Audit, out: Path) -> list[Path]:
    """Write ``result`` to the folder ``out``: three tables and a contact sheet for each kind of findings.

    Replace an earlier audit's files. Return the files' paths, the tables first.
    """
    tables = {
        FINDINGS: _with_names(result.findings, result.frames),
        TWINS: _with_names(result.twins.replace({"kind": {"": "agree"}}), result.frames),
        DOUBTED: result.doubted,
    }
    for name, table in tables.items():
        write_text(out / name, table.to_csv(index=False))
    return [*(out / name for name in tables), *_write_sheets(result, out)]


def _write_sheets(result: Audit, out: Path) -> list[Path]:
    paths = []
    for kind in KINDS:
        path = out / f"sheet-{kind.replace(' ', '-')}.png"
        rows = result.findings[result.findings.kind == kind]
        if rows.empty:
            path.unlink(missing_ok=True)
            continue
        with atomic_path(path) as temporary:
            doubts_sheet(rows, result.frames, read_grey).savefig(temporary, format="png", dpi=100)
        paths.append(path)
    return paths


def _with_names(table: pd.DataFrame, frames: pd.DataFrame) -> pd.DataFrame:
    """Replace row and other in ``table`` by the frames' subject, img and area (pixels)."""
    columns: dict[str, Any] = {"kind": table.kind}
    for rows, prefix in ((table.row, ""), (table.other, "other_")):
        of_row = frames[["subject", "img", "area"]].reindex(rows).astype("Int64").reset_index(drop=True)
        columns |= {prefix + name: of_row[name] for name in of_row}
    rest = table.drop(columns=["kind", "row", "other"]).round({"correlation": 6, "difference": 4, "dice": 4})
    return pd.concat([pd.DataFrame(columns), rest], axis=1)
