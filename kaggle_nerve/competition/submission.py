"""Submission files: write, read, and check every byte.

``write`` produces the strictest form: UTF-8 without a byte-order mark, ``\\n`` line ends, header
``img,pixels``, one row per frame in ascending order, no quotes, nothing after the comma for an empty mask.
``check`` reports every deviation from it: as a fault what Kaggle would reject or read otherwise, as a remark what
it accepts, such as CRLF line ends and rows in another order. ``read`` is tolerant: it accepts deviations that do not
change the meaning.
"""

import operator
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from kaggle_nerve.competition import csv_text, metric, plausibility, rle
from kaggle_nerve.competition.csv_text import quote
from kaggle_nerve.competition.facts import SUBMISSION_HEADER
from kaggle_nerve.errors import NerveError
from kaggle_nerve.storage import atomic_path

HEADER = ",".join(SUBMISSION_HEADER)
_FRAME_NUMBER = re.compile(r"[1-9][0-9]{0,17}")
_WORDS_FOR_NOTHING = {"nan", "na", "n/a", "#n/a", "<na>", "null", "none", "nil", "-nan"}


@dataclass(frozen=True)
class Fault:
    """One fault or remark: its line (the header is line 1; None: the whole file), and a message."""

    line: int | None
    message: str

    def __str__(self) -> str:
        return self.message if self.line is None else f"line {self.line}: {self.message}"


@dataclass(frozen=True)
class Report:
    """Result of ``check``: rows below the header, those with a readable mask, their pixels, the faults, and remarks
    on what Kaggle accepts.
    """

    path: Path
    rows: int
    non_empty: int
    pixels: int
    faults: tuple[Fault, ...]
    remarks: tuple[Fault, ...] = ()

    @property
    def share(self) -> float:
        """Share of the rows that have a mask, in [0, 1]; 0 without rows."""
        return self.non_empty / self.rows if self.rows else 0.0

    @property
    def mean_area(self) -> float:
        """Mean pixels of the masks that are neither empty nor faulty; 0 without such masks."""
        return self.pixels / self.non_empty if self.non_empty else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Convert figures and faults to plain values for JSON."""
        return {
            "rows": self.rows,
            "non_empty": self.non_empty,
            "share": self.share,
            "mean_area": self.mean_area,
            "faults": [{"line": fault.line, "message": fault.message} for fault in self.faults],
            "remarks": [{"line": remark.line, "message": remark.message} for remark in self.remarks],
        }

    def raise_if_faulty(self) -> None:
        """Raise a NerveError with the first fault and the way to list the others, if there are faults."""
        if self.faults:
            more = len(self.faults) - 1
            others = f" (and {more} more; kaggle-nerve validate lists them)" if more else ""
            raise NerveError(f"{self.path} is not a valid submission: {self.faults[0]}{others}")


def write(path: Path, rows: Iterable[tuple[int, str]]) -> None:
    """Write (frame number, run-length text) pairs as a submission, in ascending order, atomically.

    The pairs may come in any order and from a generator. Raise NerveError, and leave an existing file
    unchanged, for no pairs at all, a number below 1 or a duplicate, and a faulty text.
    """
    texts: dict[int, str] = {}
    for number, text in rows:
        img = operator.index(number)
        if img < 1:
            raise NerveError(f"cannot write frame {img} to {path}: frames count from 1")
        if img in texts:
            raise NerveError(f"cannot write frame {img} to {path} twice; give each frame one mask")
        try:
            rle.runs(text)
        except rle.RunLengthError as fault:
            raise NerveError(f"cannot write frame {img} to {path}: {fault}") from fault
        texts[img] = text
    if not texts:
        raise NerveError(f"cannot write {path}: there are no frames; predict some first")
    with atomic_path(path) as temporary, temporary.open("w", encoding="ascii", newline="\n") as file:
        file.write(f"{HEADER}\n")
        file.writelines(f"{img},{texts[img]}\n" for img in sorted(texts))


def read(path: Path) -> pd.DataFrame:
    """Read a submission as a table: ``img`` (int64) and ``pixels`` (text, "" for an empty mask), in file order.

    Accept byte-order marks, CRLF, quotes and any order; do not decode texts. Raise NerveError, with the
    line, if the file is not a table of frames.
    """
    return _read(path, further=False)


def read_solution(path: Path) -> pd.DataFrame:
    """Read the true masks as a table: as ``read``, plus all other columns of the file, such as ``Usage``, as text.

    The columns may be in any order.
    """
    return _read(path, further=True)


def score(path: Path, solution: Path) -> metric.Score:
    """Score the submission file at ``path`` with the competition's metric against the solution file (see
    `read_solution`). Raise NerveError for a faulty file, and if the two have different frames.
    """
    return metric.score(read(path), read_solution(solution))


def check(path: Path, sample: Path | range | None = None) -> Report:
    """Find every fault of a submission file, and remark on what Kaggle accepts but is unusual or improbable.

    ``sample``: the expected frames, or a sample_submission.csv with them; without it, expect frames 1 to the
    largest in the file, without gaps. Faults in the file are in the report; raise NerveError only for a file that
    cannot be opened, or an unusable ``sample``.
    """
    data = csv_text.read_bytes(path)
    frames_of_sample = read(sample)["img"] if isinstance(sample, Path) else sample
    expected = None if frames_of_sample is None else list(frames_of_sample)
    if expected == []:
        raise NerveError(f"{sample} has no rows below its header; fetch the competition's files again")
    if unreadable := csv_text.find_unreadable(data):
        return Report(path, 0, 0, 0, (Fault(*unreadable),))
    lines = csv_text.lines(data)
    has_header = _FRAME_NUMBER.fullmatch(lines[0].partition(",")[0]) is None
    faults, remarks = _check_form(data, lines[0], has_header)
    frames: list[tuple[int, int]] = []
    masks: list[plausibility.Runs] = []
    rows = lines[has_header:]
    for line, text in enumerate(rows, 1 + has_header):
        img, run_lengths, complaints = _row(text)
        if img is not None:
            frames.append((line, img))
        if run_lengths:
            try:
                masks.append(rle.runs(run_lengths))
            except rle.RunLengthError as fault:
                complaints.append(_mask_complaint(run_lengths, fault))
        faults.extend(Fault(line, complaint) for complaint in complaints)
    if not rows:
        faults.append(Fault(None, "there are no rows below the header"))
    frame_faults, order_remarks = _check_frames(frames, expected)
    faults.extend(frame_faults)
    faults.sort(key=lambda fault: (fault.line is None, fault.line or 0))
    remarks.extend(order_remarks)
    if not faults:
        remarks.extend(Fault(None, message) for message in plausibility.remark(masks, len(rows)))
    pixels = sum(int(lengths.sum()) for _, lengths in masks)
    return Report(path, len(rows), len(masks), pixels, tuple(faults), tuple(remarks))


def _check_form(data: bytes, first_line: str, has_header: bool) -> tuple[list[Fault], list[Fault]]:
    """Return faults (byte-order mark, line ends, header) and remarks (CRLF) on what is not a row."""
    faults, remarks = [], []
    if data.startswith(csv_text.BYTE_ORDER_MARK):
        faults.append(Fault(1, "the file begins with a byte-order mark (BOM); save it as UTF-8 without BOM"))
    if ends := data.count(b"\r\n"):
        message = f"line ends are CRLF (Windows), {ends} in all; Kaggle accepts them"
        remarks.append(Fault(_line_of(data, b"\r\n"), message))
    if lone := data.count(b"\r") - ends:
        message = f"line ends are CR (old Mac), {lone} in all; save the file with LF (Unix) line ends"
        faults.append(Fault(_line_of(data.replace(b"\r\n", b" \n"), b"\r"), message))
    if not has_header:
        faults.append(Fault(1, f"the header is missing; the first line must be {HEADER}"))
    elif first_line != HEADER:
        faults.append(Fault(1, f"the header is {quote(first_line)}; it must be {HEADER}"))
    return faults, remarks


def _line_of(data: bytes, part: bytes) -> int:
    """Return the number of the line in which ``part`` first occurs."""
    return data[: data.index(part)].count(b"\n") + 1


def _row(text: str) -> tuple[int | None, str, list[str]]:
    """Parse one line: frame number, run-length text and complaints."""
    if not text.strip():
        return None, "", ["the line is blank; delete it"]
    complaints = []
    if '"' in text or "'" in text:
        complaints.append("the line has quotation marks; write the fields without them")
        text = text.replace('"', "").replace("'", "")
    fields = text.split(",")
    if len(fields) != 2:
        columns = "no comma" if len(fields) == 1 else f"{len(fields)} columns"
        complaints.append(f"the line has {columns}; it must be {HEADER}, with nothing behind")
    number, run_lengths = fields[0], "".join(fields[1:2])
    if _FRAME_NUMBER.fullmatch(number):
        return int(number), run_lengths, complaints
    complaints.append(f"the frame number is {quote(number)}; it must be a whole number, such as 12")
    return None, run_lengths, complaints


def _mask_complaint(run_lengths: str, fault: Exception) -> str:
    if run_lengths.strip().lower() in _WORDS_FOR_NOTHING:
        return f"the mask is {quote(run_lengths)}; an empty mask is nothing after the comma"
    return str(fault)


def _check_frames(
    frames: list[tuple[int, int]], expected: list[int] | None
) -> tuple[list[Fault], list[Fault]]:
    """Return faults (unknown, repeated and missing frames) and remarks (another order).

    ``frames`` holds (line, img) in file order.
    """
    index = None if expected is None else {img: number for number, img in enumerate(expected)}
    faults, line_of, misplaced, furthest = [], {}, [], None
    for line, img in frames:
        if index is not None and img not in index:
            faults.append(Fault(line, f"frame {img} is unknown to the competition"))
        elif img in line_of:
            faults.append(Fault(line, f"frame {img} stands on line {line_of[img]} already"))
        else:
            line_of[img] = line
            at = img if index is None else index[img]
            if furthest is not None and at < furthest[0]:
                misplaced.append((line, img, furthest[1]))
            else:
                furthest = at, img
    remarks = []
    if misplaced:
        line, img, before = misplaced[0]
        order = "numerical order" if index is None else "the competition's order"
        message = f"frame {img} stands after frame {before}, {len(misplaced)} rows in all are out of {order}; Kaggle "
        remarks.append(Fault(line, message + "accepts any order"))
    return faults + _missing(line_of, index), remarks


def _missing(line_of: dict[int, int], expected: Collection[int] | None) -> list[Fault]:
    """Return the fault of missing frames, if there are any: one for all."""
    if expected is None:
        missing = [(a + 1, b - 1) for a, b in pairwise([0, *sorted(line_of)]) if b - a > 1]
    else:
        missing = _ranges([img for img in expected if img not in line_of])
    if not missing:
        return []
    count = sum(last - first + 1 for first, last in missing)
    ranges = ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in missing[:10])
    more = ", ..." if len(missing) > 10 else ""
    return [Fault(None, f"frames are missing ({count} in all): {ranges}{more}")]


def _ranges(numbers: list[int]) -> list[tuple[int, int]]:
    """Group numbers into (first, last) of each unbroken range, ascending."""
    ranges: list[tuple[int, int]] = []
    for number in sorted(numbers):
        joins = bool(ranges) and ranges[-1][1] == number - 1
        first = ranges.pop()[0] if joins else number
        ranges.append((first, number))
    return ranges


def _read(path: Path, further: bool) -> pd.DataFrame:
    """Read a table of frames; ``further``: allow other columns beside img and pixels."""
    data = csv_text.read_bytes(path)
    if unreadable := csv_text.find_unreadable(data):
        raise NerveError(f"cannot read {path}: {Fault(*unreadable)}")
    header, *rows = ([field.strip(" \"'") for field in line.split(",")] for line in csv_text.lines(data))
    is_valid = set(header) >= set(SUBMISSION_HEADER) if further else tuple(header) == SUBMISSION_HEADER
    if not is_valid or len(set(header)) < len(header):
        header_text = f"{HEADER}, with other columns beside these two if you like" if further else HEADER
        raise NerveError(
            f"cannot read {path}: the header is {quote(','.join(header))}; it must be {header_text}"
        )
    img = header.index("img")
    for line, fields in enumerate(rows, 2):
        if fields != [""] and (len(fields) != len(header) or not _FRAME_NUMBER.fullmatch(fields[img])):
            row, header_text = quote(",".join(fields)), ",".join(header)
            raise NerveError(f"cannot read {path}: line {line} is {row}; it must be {header_text}")
    table = pd.DataFrame([fields for fields in rows if fields != [""]], columns=header, dtype="str")
    return table.astype({"img": np.int64})
