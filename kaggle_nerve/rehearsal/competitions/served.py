"""The competition's zip as Kaggle serves it, and the solution."""

import re
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from kaggle_nerve import storage
from kaggle_nerve.competition import facts, metric, submission
from kaggle_nerve.errors import NerveError
from kaggle_nerve.progress import SILENT, Reporter

PUBLIC, PRIVATE = "Public", "Private"
LAYOUT = 1
"""Increase it when ``pack`` writes something else: then older archives are packed again."""

SOLUTION = "solution.csv"
EPOCH = (1980, 1, 1, 0, 0, 0)
"""Timestamp of every member, so that the zip depends only on its contents."""


@dataclass(frozen=True)
class Member:
    """A file in the zip: its name with folders, and its size in bytes."""

    name: str
    size: int


@dataclass(frozen=True)
class ServedCompetition:
    """A competition ready to be served: the zip, its members, the sample and the solution's files.

    ``digest`` is the zip's SHA-256.
    """

    slug: str
    archive: Path
    digest: str
    members: tuple[Member, ...]
    sample: Path
    solution: Path

    def read_solution(self) -> pd.DataFrame:
        """Read a row per test frame: ``img`` (int), ``pixels`` ("" for no mask), ``Usage`` (Public or
        Private)."""
        return submission.read_solution(self.solution)

    def member(self, name: str) -> Member | None:
        """Return the member of that name, or None."""
        return next((member for member in self.members if member.name == name), None)

    def read_member(self, name: str) -> bytes:
        """Read a member's bytes."""
        with zipfile.ZipFile(self.archive) as archive:
            return archive.read(name)


def split_usage(imgs: Sequence[int], share: float = facts.PUBLIC_SHARE, seed: int = 0) -> np.ndarray:
    """Assign Public or Private to each of ``imgs``: ``share`` of them are public, at least one of each kind.

    The choice depends on the set of numbers and the seed, not on their order. Raises NerveError for fewer
    than two.
    """
    frames = np.unique(np.asarray(imgs, dtype=int))
    if len(frames) != len(imgs) or len(frames) < 2:
        raise NerveError("A public and a private score need two or more test frames, each once.")
    count = min(max(round(share * len(frames)), 1), len(frames) - 1)
    public = np.random.default_rng(seed).permutation(frames)[:count]
    return np.where(np.isin(np.asarray(imgs, dtype=int), public), PUBLIC, PRIVATE)


def pack(
    data_dir: Path,
    solution: pd.DataFrame,
    out: Path,
    slug: str = facts.SLUG,
    reporter: Reporter = SILENT,
) -> ServedCompetition:
    """Make ``<out>/<slug>.zip`` from a data directory in Kaggle's layout, with solution and sample beside it.

    ``solution`` has ``img``, ``pixels`` ("" for no mask) and optionally ``Usage``; without it,
    ``split_usage`` decides. A complete archive made from the same files is reused. Raises NerveError if
    something is missing or the solution's frames are not the sample's.
    """
    sources = _sources(data_dir)
    solution = _complete_solution(solution, data_dir / facts.SAMPLE_CSV)
    identity = _identity(data_dir, sources, solution, slug)
    marker = storage.read_completion(out)
    if marker is None or marker["made_from"] != identity or not (out / f"{slug}.zip").is_file():
        (out / storage.COMPLETE).unlink(missing_ok=True)
        members = _write_archive(data_dir, sources, out / f"{slug}.zip", reporter)
        shutil.copyfile(data_dir / facts.SAMPLE_CSV, out / facts.SAMPLE_CSV)
        storage.write_text(out / SOLUTION, solution.to_csv(index=False, lineterminator="\n"))
        digest = storage.digest_file(out / f"{slug}.zip")
        storage.mark_complete(
            out,
            {
                "slug": slug,
                "made_from": identity,
                "digest": digest,
                "members": [[m.name, m.size] for m in members],
            },
        )
    return open_packed(out)


def open_packed(out: Path) -> ServedCompetition:
    """Open what ``pack`` made in ``out`` earlier. Raises NerveError if it is not complete."""
    marker = storage.read_completion(out)
    if marker is None:
        raise NerveError(f"{out} holds no complete rehearsal data; make it with pack().")
    members = tuple(Member(name, size) for name, size in marker["members"])
    archive = out / f"{marker['slug']}.zip"
    return ServedCompetition(
        marker["slug"], archive, marker["digest"], members, out / facts.SAMPLE_CSV, out / SOLUTION
    )


def _sources(data_dir: Path) -> list[str]:
    """List the competition's files; anything else in the folder is left out."""
    patterns = {
        facts.TEST_FOLDER: (facts.TEST_FRAME,),
        facts.TRAIN_FOLDER: (facts.TRAIN_FRAME, facts.TRAIN_MASK),
    }
    names = []
    for folder, allowed in patterns.items():
        matches = _matching(data_dir / folder, allowed)
        if not matches:
            raise NerveError(f"{data_dir / folder} holds no frames to serve.")
        names += [f"{folder}/{name}" for name in matches]
    for name in (facts.SAMPLE_CSV, facts.TRAIN_CSV):
        if not (data_dir / name).is_file():
            raise NerveError(f"{data_dir / name} is missing.")
        names.append(name)
    return names


def _matching(folder: Path, allowed: tuple[re.Pattern[str], ...]) -> list[str]:
    if not folder.is_dir():
        return []
    names = (path.name for path in folder.iterdir())
    matches = [name for name in names if any(pattern.match(name) for pattern in allowed)]
    return sorted(matches, key=lambda name: ([int(number) for number in re.findall(r"\d+", name)], name))


def _complete_solution(solution: pd.DataFrame, sample: Path) -> pd.DataFrame:
    """Return the solution in the sample's order, with Usage. Raises NerveError if it cannot be scored
    against."""
    imgs = pd.read_csv(sample, usecols=["img"])["img"]
    if sorted(solution["img"]) != sorted(imgs):
        raise NerveError(f"The solution's frames are not those of {sample}.")
    solution = solution.set_index("img").loc[imgs].reset_index()
    solution["pixels"] = solution["pixels"].fillna("")
    if "Usage" not in solution:
        solution["Usage"] = split_usage(solution["img"])
    solution = solution[["img", "pixels", "Usage"]]
    score = metric.score(solution, solution)  # raises for a faulty mask
    if score.public is None or score.private is None:
        raise NerveError("The solution's Usage marks no frame as Public, or none as Private.")
    return solution


def _identity(data_dir: Path, sources: list[str], solution: pd.DataFrame, slug: str) -> str:
    stats = ((name, (data_dir / name).stat()) for name in sources)
    files = (f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats)
    return storage.digest_text(str(LAYOUT), slug, solution.to_csv(index=False), *files)


def _write_archive(data_dir: Path, sources: list[str], path: Path, reporter: Reporter) -> list[Member]:
    members = []
    with (
        storage.atomic_path(path) as temporary,
        zipfile.ZipFile(temporary, "w") as archive,
        reporter.bar("packing", len(sources), "file") as bar,
    ):
        for name in sources:
            members.append(_add(archive, data_dir / name, name))
            bar.update()
    return members


def _add(archive: zipfile.ZipFile, source: Path, name: str) -> Member:
    """Add a file to the zip. TIFFs are compressed already and are stored; tables are deflated, quickly."""
    info = zipfile.ZipInfo(name, EPOCH)
    info.external_attr = 0o644 << 16
    compression = zipfile.ZIP_STORED if name.endswith(".tif") else zipfile.ZIP_DEFLATED
    data = source.read_bytes()
    archive.writestr(info, data, compression, compresslevel=1)
    return Member(name, len(data))
