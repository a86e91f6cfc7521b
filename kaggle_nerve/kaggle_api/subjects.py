"""Failure rules for kernels and datasets, in the form of `failures.COMPETITION`."""

from kaggle_nerve.kaggle_api.credentials import SETTINGS_PAGE
from kaggle_nerve.kaggle_api.failures import (
    LIMIT,
    NOT_FOUND,
    REFUSED,
    RULES,
    UPLOAD,
    FailureRules,
    Subject,
    make_rule,
)

KERNEL = (
    make_rule(
        LIMIT,
        "This account runs as many kernels as Kaggle allows at once ({last}): wait until one has ended, or end one at "
        "https://www.kaggle.com/code, and run the same command again.",
        pattern=r"Maximum.{0,40}session count",
    ),
    make_rule(
        LIMIT,
        "This account has no machine time left on Kaggle ({last}): `kaggle quota` says when there is more; run the "
        "same command again then.",
        pattern=r"\bquota\b",
    ),
    make_rule(
        REFUSED,
        "Kaggle does not take the name or title of the kernel {slug} ({last}): name a kernel of this account, or "
        "correct `title` in kernel-metadata.json.",
        pattern=r"title.{0,200}already in use|must be at least five",
    ),
    make_rule(
        REFUSED,
        "Kaggle takes no kernel of a megabyte or more ({last}): make the notebook smaller, and push it again.",
        pattern=r"source must be less than",
    ),
    make_rule(
        NOT_FOUND,
        "Kaggle has no kernel {slug} that this account may see (while {doing}): look at https://www.kaggle.com/code "
        "for its name, or push it first with `kaggle-nerve kernels push`.",
        pattern=r"Cannot access kernel|(Kernel|Notebook) not found|\bNot ?Found\b",
        statuses=(404,),
    ),
    make_rule(
        RULES,
        f"Kaggle refuses this account (403, while {{doing}}): if there is no such kernel yet, push it first; else open "
        f"{SETTINGS_PAGE}, verify a phone number, which kernels with a GPU need, and run the same command again.",
        pattern=r"403 Client Error|Forbidden|Permission.{0,60}(denied|not satisfied)",
    ),
)

PUSH = (
    make_rule(
        NOT_FOUND,
        "Kaggle does not find {slug} while pushing it ({last}), as if it were deleted, renamed or another account's: "
        "make a notebook of this name at https://www.kaggle.com/code with New Notebook, and run the same "
        "command again.",
        pattern=r"(Kernel|Notebook) not found|\bNot ?Found\b",
        statuses=(404,),
    ),
    make_rule(
        RULES,
        f"Kaggle refuses this account (403, while {{doing}}): open {SETTINGS_PAGE}, verify a phone number, which "
        "kernels with a GPU need, and run the same command again.",
        pattern=r"403 Client Error|Forbidden|Permission.{0,60}(denied|not satisfied)",
    ),
)
"""Where a push differs from other commands: the advice cannot be to push."""

DATASET = (
    make_rule(
        REFUSED,
        "Kaggle does not take the dataset's title ({last}): choose another one of 6 to 50 characters with --title.",
        pattern=r"must be between 6 and 50|title.{0,200}already in use",
    ),
    make_rule(
        UPLOAD,
        "Kaggle's storage did not take the files of the dataset {slug}: run the same command again.",
        pattern=r"Upload unsuccessful|A dataset needs a file",
    ),
    make_rule(
        NOT_FOUND,
        "Kaggle has no dataset {slug} that this account may see (while {doing}): look at "
        "https://www.kaggle.com/datasets for its name.",
        pattern=r"\bNot ?Found\b",
        statuses=(404,),
    ),
    make_rule(
        RULES,
        "Kaggle refuses this account the dataset {slug} (403, while {doing}): choose another name with --title.",
        pattern=r"403 Client Error|Forbidden|Permission.{0,60}(denied|not satisfied)",
    ),
)

KERNEL_FAILURES = FailureRules(KERNEL, "https://www.kaggle.com/code/{slug}", " with --runs")
PUSH_FAILURES = FailureRules((*PUSH, *KERNEL), KERNEL_FAILURES.page)
DATASET_FAILURES = FailureRules(DATASET, "https://www.kaggle.com/datasets/{slug}", " with --runs")


def about_kernel(ref: str) -> Subject:
    """Return the subject of a command about the kernel ``user/slug``."""
    return Subject(ref, KERNEL_FAILURES)


def about_push(ref: str) -> Subject:
    """Return the subject of a push of the kernel ``user/slug``."""
    return Subject(ref, PUSH_FAILURES)


def about_dataset(ref: str) -> Subject:
    """Return the subject of a command about the dataset ``user/slug``."""
    return Subject(ref, DATASET_FAILURES)
