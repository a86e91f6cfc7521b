"""What the rehearsal serves: the competition's zip as Kaggle hands it out, and the solution."""

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
"""Raise it when ``pack`` writes something else: older packings are then made anew."""

SOLUTION = "solution.csv"
EPOCH = (1980, 1, 1, 0, 0, 0)
"""Every member's time: the zip depends on its contents alone."""


@dataclass(frozen=True)
class Member:
    """One file inside the zip: its name with folders, and its bytes."""

    name: str
    size: int


@dataclass(frozen=True)
class ServedCompetition:
    """A competition ready to be served: the zip, what is in it, the sample and the solution's files.

    ``digest`` is the zip's SHA-256.
    """

    slug: str
    archive: Path
    digest: str
    members: tuple[Member, ...]
    sample: Path
    solution: Path

    def read_solution(self) -> pd.DataFrame:
        """A row per test frame: ``img`` (int), ``pixels`` ("" for no mask), ``Usage`` (Public or Private)."""
        return submission.read_solution(self.solution)

    def member(self, name: str) -> Member | None:
        """The member of that name, or None."""
        return next((member for member in self.members if member.name == name), None)

    def read_member(self, name: str) -> bytes:
        """A member's bytes."""
        with zipfile.ZipFile(self.archive) as archive:
            return archive.read(name)


def split_usage(imgs: Sequence[int], share: float = facts.PUBLIC_SHARE, seed: int = 0) -> np.ndarray:
    """Public or Private for each of ``imgs``: ``share`` of them are public, at least one of each.

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

    ``solution`` has ``img``, ``pixels`` ("" for no mask) and perhaps ``Usage``; else ``split_usage`` decides.
    A packing that is complete and made from the same files is used again. Raises NerveError where something
    is missing or the solution's frames are not the sample's.
    """
    sources = _sources(data_dir)
    solution = _complete_solution(solution, data_dir / facts.SAMPLE_CSV)
    made_from = _identity(data_dir, sources, solution, slug)
    done = storage.completed(out)
    if done is None or done["made_from"] != made_from or not (out / f"{slug}.zip").is_file():
        (out / storage.COMPLETE).unlink(missing_ok=True)
        members = _write_archive(data_dir, sources, out / f"{slug}.zip", reporter)
        shutil.copyfile(data_dir / facts.SAMPLE_CSV, out / facts.SAMPLE_CSV)
        storage.write_text(out / SOLUTION, solution.to_csv(index=False, lineterminator="\n"))
        digest = storage.digest_file(out / f"{slug}.zip")
        storage.mark_complete(
            out,
            {
                "slug": slug,
                "made_from": made_from,
                "digest": digest,
                "members": [[m.name, m.size] for m in members],
            },
        )
    return open_packed(out)


def open_packed(out: Path) -> ServedCompetition:
    """What ``pack`` made in ``out`` earlier. Raises NerveError if it is not complete."""
    done = storage.completed(out)
    if done is None:
        raise NerveError(f"{out} holds no complete rehearsal data; make it with pack().")
    members = tuple(Member(name, size) for name, size in done["members"])
    archive = out / f"{done['slug']}.zip"
    return ServedCompetition(
        done["slug"], archive, done["digest"], members, out / facts.SAMPLE_CSV, out / SOLUTION
    )


def _sources(data_dir: Path) -> list[str]:
    """Names of what belongs to the competition; anything else that lies in the folder stays out."""
    patterns = {
        facts.TEST_FOLDER: (facts.TEST_FRAME,),
        facts.TRAIN_FOLDER: (facts.TRAIN_FRAME, facts.TRAIN_MASK),
    }
    names = []
    for folder, allowed in patterns.items():
        found = _matching(data_dir / folder, allowed)
        if not found:
            raise NerveError(f"{data_dir / folder} holds no frames to serve.")
        names += [f"{folder}/{name}" for name in found]
    for name in (facts.SAMPLE_CSV, facts.TRAIN_CSV):
        if not (data_dir / name).is_file():
            raise NerveError(f"{data_dir / name} is missing.")
        names.append(name)
    return names


def _matching(folder: Path, allowed: tuple[re.Pattern[str], ...]) -> list[str]:
    if not folder.is_dir():
        return []
    names = (path.name for path in folder.iterdir())
    wanted = [name for name in names if any(pattern.match(name) for pattern in allowed)]
    return sorted(wanted, key=lambda name: ([int(number) for number in re.findall(r"\d+", name)], name))


def _complete_solution(solution: pd.DataFrame, sample: Path) -> pd.DataFrame:
    """The solution in the sample's order, with Usage. Raises NerveError unless it can be scored against."""
    wanted = pd.read_csv(sample, usecols=["img"])["img"]
    if sorted(solution["img"]) != sorted(wanted):
        raise NerveError(f"The solution's frames are not those of {sample}.")
    solution = solution.set_index("img").loc[wanted].reset_index()
    solution["pixels"] = solution["pixels"].fillna("")
    if "Usage" not in solution:
        solution["Usage"] = split_usage(solution["img"])
    solution = solution[["img", "pixels", "Usage"]]
    perfect = metric.score(solution, solution)  # names a faulty mask
    if perfect.public is None or perfect.private is None:
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
    """TIFFs are compressed already: they are stored. Tables are deflated, quickly."""
    info = zipfile.ZipInfo(name, EPOCH)
    info.external_attr = 0o644 << 16
    how = zipfile.ZIP_STORED if name.endswith(".tif") else zipfile.ZIP_DEFLATED
    data = source.read_bytes()
    archive.writestr(info, data, how, compresslevel=1)
    return Member(name, len(data))
