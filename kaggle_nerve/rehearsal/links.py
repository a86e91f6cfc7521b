"""Signed addresses, like those of Kaggle's storage: they need no token, and expire."""

import hashlib
import hmac
import secrets
import time
from urllib.parse import quote

from kaggle_nerve.rehearsal.wire import RefusedError

LIFETIME = 3600
"""Seconds until an address expires."""

DOWNLOADS, UPLOADS = "/storage/", "/uploads/"
BLOBS = f"{UPLOADS}blobs/"


class Links:
    """Makes and checks the signed addresses of one server; all others, also from earlier runs, count as
    expired."""

    def __init__(self, base: str) -> None:
        self._base = base
        self._secret = secrets.token_bytes(32)

    def download(self, name: str) -> str:
        """Return the download address of ``name`` (with folders)."""
        expires = str(int(time.time()) + LIFETIME)
        path = DOWNLOADS + name
        return f"{self._base}{quote(path)}?Expires={expires}&Signature={self._sign(path, expires)}"

    def upload(self, token: str) -> str:
        """Return the address to PUT a submission to."""
        return f"{self._base}{UPLOADS}{token}"

    def blob(self, token: str) -> str:
        """Return the address to PUT a dataset's file to."""
        return f"{self._base}{BLOBS}{token}"

    def check(self, path: str, query: dict[str, str]) -> None:
        """Raise RefusedError 403 unless this server signed ``path`` and the address has not expired."""
        expires = query.get("Expires", "")
        is_signed = hmac.compare_digest(
            self._sign(path, expires).encode(), query.get("Signature", "").encode()
        )
        if not is_signed or int(expires) < time.time():
            raise RefusedError(403, "This download address has expired.")

    def _sign(self, path: str, expires: str) -> str:
        return hmac.new(self._secret, f"{path}\n{expires}".encode(), hashlib.sha256).hexdigest()
