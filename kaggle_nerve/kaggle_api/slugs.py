"""What Kaggle makes of a title, and references such as ``user/slug``."""

import re
import unicodedata


def slug_of(title: str) -> str:
    """The title in small letters and digits, with single dashes for all else."""
    plain = unicodedata.normalize("NFKD", title).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")
