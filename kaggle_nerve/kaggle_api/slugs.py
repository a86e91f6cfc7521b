"""Slugs, as Kaggle derives them from titles."""

import re
import unicodedata


def slug_of(title: str) -> str:
    """Convert a title to lower case letters and digits, with single dashes for everything else."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")
