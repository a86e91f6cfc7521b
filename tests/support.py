"""A small competition for tests: real TIFF files in the real layout, with shapes a network can find."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from kaggle_nerve.competition import rle
from kaggle_nerve.competition.facts import SIZE

LZW = [cv2.IMWRITE_TIFF_COMPRESSION, 5]


def disc(centre: tuple[int, int], radius: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A filled circle as uint8 0/1; ``centre`` is (row, column)."""
    rows, columns = np.ogrid[: size[0], : size[1]]
    return ((rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2).astype(np.uint8)


def write_tiff(path: Path, image: np.ndarray) -> None:
    """Write ``image`` as Kaggle does: LZW."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image, LZW)


def write_competition(root: Path, *, subjects: int = 4, frames: int = 6, test: int = 5) -> pd.DataFrame:
    """Frames of noise, with a bright disc where there is a mask; odd frames have one. Returns the test's truth."""
    random = np.random.default_rng(0)

    def draw(present: bool) -> tuple[np.ndarray, np.ndarray]:
        centre = int(random.integers(120, 300)), int(random.integers(150, 430))
        mask = disc(centre, 50) if present else np.zeros(SIZE, np.uint8)
        noise = random.integers(0, 60, SIZE, np.uint8)
        return noise + 150 * mask, mask

    rows = []
    for subject in range(1, subjects + 1):
        for img in range(1, frames + 1):
            frame, mask = draw(img % 2 == 1)
            write_tiff(root / "train" / f"{subject}_{img}.tif", frame)
            write_tiff(root / "train" / f"{subject}_{img}_mask.tif", mask * 255)
            rows.append((subject, img, rle.encode(mask)))
    pd.DataFrame(rows, columns=["subject", "img", "pixels"]).to_csv(root / "train_masks.csv", index=False)
    truth = []
    for img in range(1, test + 1):
        frame, mask = draw(img % 2 == 1)
        write_tiff(root / "test" / f"{img}.tif", frame)
        truth.append((img, rle.encode(mask)))
    sample = [(img, "1 1") for img, _ in truth]
    pd.DataFrame(sample, columns=["img", "pixels"]).to_csv(root / "sample_submission.csv", index=False)
    return pd.DataFrame(truth, columns=["img", "pixels"])


def write_frames(root: Path, frames: dict[tuple[int, int], tuple[np.ndarray, np.ndarray | None]]) -> None:
    """Training frames and their masks (None: empty) by subject and img, without any test frames."""
    rows = []
    for (subject, img), (frame, mask) in frames.items():
        mask = np.zeros(SIZE, np.uint8) if mask is None else mask
        write_tiff(root / "train" / f"{subject}_{img}.tif", frame)
        write_tiff(root / "train" / f"{subject}_{img}_mask.tif", mask * 255)
        rows.append((subject, img, rle.encode(mask)))
    pd.DataFrame(rows, columns=["subject", "img", "pixels"]).to_csv(root / "train_masks.csv", index=False)


def tissue(seed: int, noise: int = 0) -> np.ndarray:
    """A frame of soft blotches, the same for the same ``seed``, with up to ``noise`` grey levels added to a pixel."""
    random = np.random.default_rng(seed)
    blotches = cv2.resize(
        random.integers(0, 200, (14, 20), np.uint8), SIZE[::-1], interpolation=cv2.INTER_CUBIC
    )
    return cv2.add(blotches, np.random.default_rng((seed, noise)).integers(0, noise + 1, SIZE, np.uint8))
