"""A tiny competition to serve, and the real client run against it under guard. For several test files."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from kaggle_nerve.competition import facts
from kaggle_nerve.rehearsal.server import RehearsalServer

GUARD = '''
"""Every socket that this interpreter opens is noted, and refused unless it goes to 127.0.0.1."""
import os
import sys

def watch(event, details):
    if event in ("socket.connect", "socket.sendto"):
        host = details[1][0] if isinstance(details[1], tuple) else str(details[1])
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        host = str(details[0])
    else:
        return
    with open(os.environ["GUARD_LOG"], "a") as log:
        log.write(host + "\\n")
    if host != "127.0.0.1":
        raise PermissionError("the guard refuses " + host)

sys.addaudithook(watch)
'''
"""As sitecustomize.py: an audit hook sees every socket, whoever opens it, before anything is sent."""

TEST_IMGS = tuple(range(1, 11))
PUBLIC_IMGS = (3, 8)


def rectangle(top: int, left: int, height: int, width: int) -> str:
    """The RLE of a rectangle, written out by the format's own rule: column by column, one-based."""
    starts = (column * facts.HEIGHT + top + 1 for column in range(left, left + width))
    return " ".join(f"{start} {height}" for start in starts)


MASKS = {img: rectangle(100, 40 * img, 60, 50) if img % 2 else "" for img in TEST_IMGS}
"""The truth of the tiny competition: odd frames have a rectangle, even ones nothing."""


def make_competition(folder: Path) -> tuple[Path, pd.DataFrame]:
    """A data directory in Kaggle's layout, 5 MB of noise that no zip makes smaller, and its solution."""
    noise = np.random.default_rng(7)
    for name in ("train/1_1", "train/1_2", "train/2_1", *(f"test/{img}" for img in TEST_IMGS)):
        _write_tiff(folder / f"{name}.tif", noise.integers(0, 256, facts.SIZE, dtype=np.uint8))
    rows = []
    for subject, img in ((1, 1), (1, 2), (2, 1)):
        mask = np.zeros(facts.SIZE, np.uint8)
        mask[50:110, 100:160] = 255
        _write_tiff(folder / f"train/{subject}_{img}_mask.tif", mask)
        rows.append((subject, img, rectangle(50, 100, 60, 60)))
    pd.DataFrame(rows, columns=list(facts.TRAIN_HEADER)).to_csv(folder / facts.TRAIN_CSV, index=False)
    sample = pd.DataFrame({"img": TEST_IMGS, "pixels": ["1 1"] * len(TEST_IMGS)})
    sample.to_csv(folder / facts.SAMPLE_CSV, index=False)
    usage = ["Public" if img in PUBLIC_IMGS else "Private" for img in TEST_IMGS]
    return folder, pd.DataFrame({"img": TEST_IMGS, "pixels": list(MASKS.values()), "Usage": usage})


def write_submission(path: Path, masks: dict[int, str] = MASKS) -> Path:
    """A submission file of these masks."""
    lines = [f"{img},{pixels}\n" for img, pixels in masks.items()]
    path.write_text("img,pixels\n" + "".join(lines))
    return path


@dataclass(frozen=True)
class Outcome:
    """What a client run came to; ``hosts`` are all that it tried to reach or to look up."""

    code: int
    out: str
    err: str
    hosts: tuple[str, ...]


def run_client(
    server: RehearsalServer, home: Path, *words: str, timeout: float = 60, **variables: str
) -> Outcome:
    """``python -m kaggle competitions WORDS`` against the server, in an environment from scratch.

    ``variables`` are added to the environment, or with "" as value taken out of it.
    """
    with started_client(server, home, *words, **variables) as process:
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return Outcome(process.returncode, out, err, hosts_tried(home))


@contextmanager
def started_client(
    server: RehearsalServer, home: Path, *words: str, **variables: str
) -> Iterator[subprocess.Popen[str]]:
    """The same, running in the background; it is killed at the end."""
    environment = {**server.environment(home), "PATH": os.defpath, **_guarded(home), **variables}
    for name, value in variables.items():
        if not value:
            del environment[name]
    process = subprocess.Popen(
        [sys.executable, "-m", "kaggle", "competitions", *words],
        cwd=home,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def hosts_tried(home: Path) -> tuple[str, ...]:
    """Every host that a guarded client with this home tried to reach so far, each once."""
    log = home / "guard" / "hosts.log"
    return tuple(sorted(set(log.read_text().split()))) if log.is_file() else ()


def wait_for_bytes(path: Path, count: int, seconds: float = 120) -> None:
    """Wait until ``path`` has ``count`` bytes."""
    end = time.monotonic() + seconds
    while not path.is_file() or path.stat().st_size < count:
        assert time.monotonic() < end, f"{path} did not reach {count} bytes"
        time.sleep(0.02)


def _guarded(home: Path) -> dict[str, str]:
    folder = home / "guard"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(GUARD)
    return {"PYTHONPATH": str(folder), "GUARD_LOG": str(folder / "hosts.log")}


def _write_tiff(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lzw = [cv2.IMWRITE_TIFF_COMPRESSION, 5]
    assert cv2.imwrite(str(path), pixels, lzw)
