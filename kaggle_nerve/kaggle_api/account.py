"""Whose account the credentials belong to, and the full names of what is in it."""

import re

from kaggle_nerve.kaggle_api import failures
from kaggle_nerve.kaggle_api.client import Client
from kaggle_nerve.kaggle_api.failures import KaggleError

USER = re.compile(r"^- username: (\S+)$", re.MULTILINE)


def username(client: Client) -> str:
    """The account's own name. For an access token the client asks Kaggle, for others it reads kaggle.json."""
    found = USER.search(
        client.run(["config", "view"], "asking whose credentials these are", client.limits.call)
    )
    if found is None or found[1] == "None":
        raise KaggleError(
            failures.UNAUTHORIZED,
            "Kaggle did not say whose account this is: make a new token at https://www.kaggle.com/settings, or add "
            '"username" to kaggle.json, and run the same command again.',
        )
    return found[1]


def full_ref(name: str, client: Client) -> str:
    """``user/slug`` of ``name``, which is that already or a slug of this account."""
    return name if "/" in name else f"{username(client)}/{name}"
