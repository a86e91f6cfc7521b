"""The rule applied to stored probabilities: a submission's rows, one frame in memory at a time."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from kaggle_nerve.competition import rle
from kaggle_nerve.decision.rule import Rule
from kaggle_nerve.prediction.stored import Stored
from kaggle_nerve.progress import SILENT, Reporter


def encoded_masks(
    stored: Stored, rule: Rule, *, reporter: Reporter = SILENT, workers: int = 2
) -> Iterator[tuple[int, str]]:
    """Yield (img, run-length encoding) for each frame of ``stored``, in its order; '' for an empty mask."""
    imgs = stored.table.img.to_list()
    presence = stored.table.presence.to_list()

    def finish(row: int) -> str:
        if presence[row] < rule.presence:
            return ""
        mask = rule.mask(stored.full(row), presence[row])
        return "" if mask is None else rle.encode(mask)

    with ThreadPoolExecutor(workers) as pool, reporter.bar("Writing masks", len(imgs)) as bar:
        for img, text in zip(imgs, pool.map(finish, range(len(imgs))), strict=True):
            yield int(img), text
            bar.update()
