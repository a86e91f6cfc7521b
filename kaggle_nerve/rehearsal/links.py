"""Signed addresses, as Kaggle's storage hands them out: whoever has one needs no token, until it expires."""

import hashlib
import hmac
import secrets
import time
from urllib.parse import quote

from kaggle_nerve.rehearsal.wire import RefusedError

LIFETIME = 3600
"""Seconds that an address is good for."""

DOWNLOADS, UPLOADS = "/storage/", "/uploads/"
BLOBS = f"{UPLOADS}blobs/"


class Links:
    """Makes and checks the addresses of one server; others, of an earlier run too, are refused as expired."""

    def __init__(self, base: str) -> None:
        self._base = base
        self._secret = secrets.token_bytes(32)

    def download(self, name: str) -> str:
        """The address under which ``name`` (with folders) can be fetched."""
        expires = str(int(time.time()) + LIFETIME)
        path = DOWNLOADS + name
        return f"{self._base}{quote(path)}?Expires={expires}&Signature={self._sign(path, expires)}"

    def upload(self, token: str) -> str:
        """The address to which the submission that goes by ``token`` is PUT."""
        return f"{self._base}{UPLOADS}{token}"

    def blob(self, token: str) -> str:
        """The address to which the file of a dataset that goes by ``token`` is PUT."""
        return f"{self._base}{BLOBS}{token}"

    def check(self, path: str, query: dict[str, str]) -> None:
        """Raise RefusedError 403 unless this server signed ``path`` and the time has not run out."""
        expires = query.get("Expires", "")
        signed = hmac.compare_digest(self._sign(path, expires).encode(), query.get("Signature", "").encode())
        if not signed or int(expires) < time.time():
            raise RefusedError(403, "This download address has expired.")

    def _sign(self, path: str, expires: str) -> str:
        return hmac.new(self._secret, f"{path}\n{expires}".encode(), hashlib.sha256).hexdigest()
