"""The storage of a search's trials: an SQLite or journal file in its folder, or PostgreSQL."""

import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

import optuna
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from sqlalchemy.exc import SQLAlchemyError

from kaggle_nerve.errors import NerveError
from kaggle_nerve.search import require_package

SQLITE, JOURNAL = "sqlite", "journal"
FILES = {SQLITE: "trials.db", JOURNAL: "trials.journal"}
"""Names of the files in the search's folder."""

SERVERS = ("postgresql", "postgres", "postgresql+psycopg")
DRIVER = "postgresql+psycopg"
"""SQLAlchemy's name of psycopg 3; a plain ``postgresql`` means psycopg 2 to it."""

BUSY_SECONDS = 60.0
"""How long SQLite waits for another process."""

FAULTS = (optuna.exceptions.StorageInternalError, SQLAlchemyError, OSError)
"""What Optuna raises if a storage fails."""

WAITS = (0.5, 1, 2, 4, 8, 15, 30, 60)
"""Seconds between tries of `patiently`: a server may be started again meanwhile."""

Result = TypeVar("Result")


class StorageError(NerveError):
    """The storage cannot be used; the trial in work is not to blame."""


@dataclass(frozen=True)
class Place:
    """Where a search's trials are stored. ``url``: a server's, with its password; '' for a file in ``folder``.

    ``kind``: `SQLITE`, `JOURNAL`, or ``postgresql``.
    """

    kind: str
    folder: Path
    url: str = ""

    @property
    def name(self) -> str:
        """The kind of file, or the server's address and database without its password."""
        if not self.url:
            return self.kind
        parts = urlsplit(self.url)
        user = f"{unquote(parts.username)}@" if parts.username else ""
        port = f":{parts.port}" if parts.port else ""
        return f"postgresql://{user}{parts.hostname or ''}{port}{parts.path}"

    @property
    def is_shared(self) -> bool:
        """Whether all workers use the same folder."""
        return not self.url

    def open(self) -> BaseStorage:
        """Open the storage, new or not; raise StorageError, without any password, if it cannot be used."""
        _quieten()
        try:
            return self._open()
        except (*FAULTS, RuntimeError, ImportError, ValueError, AssertionError) as fault:
            raise StorageError(self.sentence(fault)) from fault

    def sentence(self, fault: BaseException) -> str:
        """Say that the storage cannot be used, and what to do."""
        advice = (
            "check that the server runs, and the address, user, password and database in --storage"
            if self.url
            else "if it is damaged or not Optuna's, move it away; the disk may also be full or read-only"
        )
        name = self.name if self.url else self.folder / FILES[self.kind]
        return f"The trials' storage {name} cannot be used ({self._reason(fault)}): {advice}."

    def _open(self) -> BaseStorage:
        if self.url:
            require_package("psycopg")
            url = DRIVER + self.url[self.url.index(":") :]
            return _create_tables(lambda: RDBStorage(url, engine_kwargs={"pool_pre_ping": True}))
        path = (self.folder / FILES[self.kind]).absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.kind == JOURNAL:
            return JournalStorage(JournalFileBackend(str(path), JournalFileOpenLock(str(path))))
        options = {"connect_args": {"timeout": BUSY_SECONDS}}
        return _create_tables(lambda: RDBStorage(f"sqlite:///{path}", engine_kwargs=options))

    def _reason(self, fault: BaseException) -> str:
        """Return the first line of the original error, without the password."""
        while fault.__cause__ is not None:
            fault = fault.__cause__
        original = getattr(fault, "orig", None) or fault
        text = (str(original).strip() or type(original).__name__).splitlines()[0].rstrip(". ")
        secret = urlsplit(self.url).password if self.url else None
        for shape in (secret, unquote(secret)) if secret else ():
            text = text.replace(shape, "***")
        return text


def parse_place(text: str, folder: Path) -> Place:
    """Parse the option ``--storage``: `SQLITE`, `JOURNAL`, or a URL of PostgreSQL; raise NerveError otherwise.

    ``folder``: the search's.
    """
    if text in FILES:
        return Place(text, folder)
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        parts = None
    if parts is None or parts.scheme not in SERVERS or not parts.path.strip("/"):
        # Not quoted: it may hold a password.
        raise NerveError(
            "--storage must be sqlite, journal, or postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with %40 for an @ in "
            "the password."
        )
    return Place("postgresql", folder, text)


def patiently(place: Place, call: Callable[[], Result]) -> Result:
    """Return ``call()``; try again for two minutes if the storage fails, then raise StorageError."""
    for seconds in WAITS:
        try:
            return call()
        except FAULTS:
            time.sleep(seconds)
    try:
        return call()
    except FAULTS as fault:
        raise StorageError(place.sentence(fault)) from fault


def _create_tables(create: Callable[[], RDBStorage]) -> RDBStorage:
    """Open a database; once more if another worker created the same tables at the same moment."""
    try:
        return create()
    except SQLAlchemyError as fault:
        if "already exists" not in str(fault) and "duplicate key" not in str(fault):
            raise
        time.sleep(1)
        return create()


def _quieten() -> None:
    """Silence Optuna's log lines and its remarks on interfaces that may change."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
