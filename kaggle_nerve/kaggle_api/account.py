"""Whose account the credentials belong to, and the full names of what is in it."""

from kaggle_nerve.kaggle_api import failures
from kaggle_nerve.kaggle_api.client import Client
from kaggle_nerve.kaggle_api.failures import KaggleError


def username(client: Client) -> str:
    """The account's own name. For an access token the client asks Kaggle, for others it reads kaggle.json."""
    name = client.ask("username", {}, "asking whose credentials these are", client.limits.call)
    if not name:
        raise KaggleError(
            failures.UNAUTHORIZED,
            "Kaggle did not say whose account this is: make a new token at https://www.kaggle.com/settings, or add "
            '"username" to kaggle.json, and run the same command again.',
        )
    return name


def full_ref(name: str, client: Client) -> str:
    """``user/slug`` of ``name``, which is that already or a slug of this account."""
    return name if "/" in name else f"{username(client)}/{name}"
