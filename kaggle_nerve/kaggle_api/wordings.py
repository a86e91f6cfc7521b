"""How failures of kernels and of datasets are told: Kaggle's answers about them, gathered as in `failures`."""

from kaggle_nerve.kaggle_api.credentials import SETTINGS_PAGE
from kaggle_nerve.kaggle_api.failures import (
    LIMIT,
    NOT_FOUND,
    REFUSED,
    RULES,
    UPLOAD,
    About,
    Wording,
    answer,
)

KERNEL = (
    answer(
        LIMIT,
        r"Maximum.{0,40}session count",
        "This account runs as many kernels as Kaggle allows at once ({last}): wait until one has ended, or end one at "
        "https://www.kaggle.com/code, and run the same command again.",
    ),
    answer(
        LIMIT,
        r"\bquota\b",
        "This account has no machine time left on Kaggle ({last}): `kaggle quota` says when there is more; run the "
        "same command again then.",
    ),
    answer(
        REFUSED,
        r"title.{0,200}already in use|must be at least five",
        "Kaggle does not take the name or title of the kernel {slug} ({last}): name a kernel of this account, or mend "
        "`title` in kernel-metadata.json.",
    ),
    answer(
        REFUSED,
        r"source must be less than",
        "Kaggle takes no kernel of a megabyte or more ({last}): make the notebook smaller, and push it again.",
    ),
    answer(
        NOT_FOUND,
        r"Cannot access kernel|(Kernel|Notebook) not found|404 Client Error|\bNot ?Found\b",
        "Kaggle has no kernel {slug} that this account may see (while {doing}): look at https://www.kaggle.com/code "
        "for its name, or push it first with `kaggle-nerve kernels push`.",
    ),
    answer(
        RULES,
        r"403 Client Error|Forbidden|Permission.{0,60}(denied|not satisfied)",
        f"Kaggle refuses this account (403, while {{doing}}): if there is no such kernel yet, push it first; else open "
        f"{SETTINGS_PAGE}, verify a phone number, which kernels with a GPU need, and run the same command again.",
    ),
)

DATASET = (
    answer(
        REFUSED,
        r"must be between 6 and 50|title.{0,200}already in use",
        "Kaggle does not take the dataset's title ({last}): choose another one of 6 to 50 characters with --title.",
    ),
    answer(
        UPLOAD,
        r"Upload unsuccessful|A dataset needs a file",
        "Kaggle's storage did not take the files of the dataset {slug}: run the same command again.",
    ),
    answer(
        NOT_FOUND,
        r"404 Client Error|\bNot ?Found\b",
        "Kaggle has no dataset {slug} that this account may see (while {doing}): look at "
        "https://www.kaggle.com/datasets for its name.",
    ),
    answer(
        RULES,
        r"403 Client Error|Forbidden|Permission.{0,60}(denied|not satisfied)",
        "Kaggle refuses this account the dataset {slug} (403, while {doing}): choose another name with --title.",
    ),
)

OF_KERNELS = Wording(KERNEL, "https://www.kaggle.com/code/{slug}", " with --runs")
OF_DATASETS = Wording(DATASET, "https://www.kaggle.com/datasets/{slug}", " with --runs")


def kernel(ref: str) -> About:
    """A command about the kernel ``user/slug``."""
    return About(ref, OF_KERNELS)


def dataset(ref: str) -> About:
    """A command about the dataset ``user/slug``."""
    return About(ref, OF_DATASETS)
