"""The account of the credentials, and full references (``user/slug``) to what it owns."""

from kaggle_nerve.kaggle_api import failures
from kaggle_nerve.kaggle_api.client import Client
from kaggle_nerve.kaggle_api.failures import KaggleError


def username(client: Client) -> str:
    """Return the account's user name. For an access token the client asks Kaggle, otherwise it reads
    kaggle.json."""
    name = client.ask("username", {}, "asking whose credentials these are", client.limits.call)
    if not name:
        raise KaggleError(
            failures.UNAUTHORIZED,
            "Kaggle did not say whose account this is: make a new token at https://www.kaggle.com/settings, or add "
            '"username" to kaggle.json, and run the same command again.',
        )
    return name


def full_ref(name: str, client: Client) -> str:
    """Return ``user/slug`` for ``name``, which is either that already or a slug of this account."""
    return name if "/" in name else f"{username(client)}/{name}"
