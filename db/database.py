"""Connections and transactions.  All access to the tables is through `Database.read()` and `Database.write()`."""

import asyncio
import fcntl
import logging
import os
import sqlite3
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager, nullcontext
from copy import copy
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import anyio
from psycopg.conninfo import make_conninfo
from sqlalchemy import URL, make_url, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_sessionmaker, create_async_engine

from db import sqlite
from db.encryption import Keyring, Secret
from db.models import Installation
from db.patience import UNAVAILABLE
from db.session import LABELS, OurSession
from db.storage import Storage

POOL = 20  # connections to PostgreSQL
# libpq's defaults are minutes and more.  Parameters in the URL take precedence over these.
LINK = {
    "connect_timeout": "10",  # seconds
    "tcp_user_timeout": "15000",  # milliseconds
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "2",
}

LOCKED_BYTE = 1 << 62  # offset in a SQLite file; SQLite's own locks are at 2**30, and no file is this long

logger = logging.getLogger(__name__)

T = TypeVar("T")
Witness = Callable[[AsyncSession], Awaitable[None]]


class BrokenReferences(Exception):
    """A migration left rows that refer to missing rows; it was rolled back."""


class Reserved(Exception):
    """Another server already plays the runs of this database."""


class UnsupportedDatabase(ValueError):
    """The database URL is neither sqlite:///… nor postgresql://…"""


class Database:
    """One database: its connections, its transactions, and the keyring of its secrets.

    SQLite has a pool of read-only connections and a pool of one writing connection.  Writers wait for it in order and
    begin with BEGIN IMMEDIATE, so that "database is locked" cannot occur between them.
    """

    def __init__(self, url: str, keyring: Keyring) -> None:
        self.url = _with_driver(url)
        self.keyring = keyring
        if self.is_sqlite:
            self._writer = sqlite.engine(self.url, writes=True)
            self._reader = sqlite.engine(self.url, writes=False)
        else:
            self._writer = create_async_engine(self.url, pool_size=10, max_overflow=POOL - 10, pool_pre_ping=True)
            # One snapshot for all statements of a reader, as SQLite always has.
            self._reader = self._writer.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        options: dict[str, Any] = {"expire_on_commit": False, "sync_session_class": OurSession}
        self._write_session = async_sessionmaker(self._writer, **options)
        self._read_session = async_sessionmaker(self._reader, **options)
        self.storage = Storage(self._path)
        self._lock_descriptors: list[int] = []
        self._slots = None if self.is_sqlite else asyncio.Semaphore(POOL)
        self._labels: frozenset[str] | None = None
        self._witness: Witness | None = None

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    def limited_to(self, labels: frozenset[str] | None) -> "Database":
        """Return this database, limited to hosts that have one of these labels and what is on them; None: no limit."""
        if labels == self._labels:
            return self
        limited = copy(self)
        limited._labels = labels
        return limited

    @property
    def is_limited(self) -> bool:
        return self._labels is not None

    def witnessed(self, witness: "Witness") -> "Database":
        """Return this database with `witness` called at the end of each write transaction, to write in it too."""
        witnessed = copy(self)
        witnessed._witness = witness
        return witnessed

    @property
    def conninfo(self) -> Secret:
        """The connection string of a PostgreSQL database, for a psycopg connection outside the pool."""
        _, parameters = self._writer.dialect.create_connect_args(self.url)
        parameters.pop("context", None)  # SQLAlchemy's own types, not a parameter of libpq
        return Secret(make_conninfo(**parameters))

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """Open a session in one read-only transaction: all its statements see the same snapshot."""
        async with self._read_session(info=self._info) as session, _transaction(session, self._slots):
            yield session

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """Open a session in one transaction, committed at the end of the block, rolled back when the block raises."""
        try:
            async with self._write_session(info=self._info) as session, _transaction(session, self._slots):
                yield session
                if self._witness is not None:
                    await self._witness(session)
        except DBAPIError as error:
            self.storage.note(error)
            raise

    @property
    def _path(self) -> Path | None:
        """The file of a SQLite database; None for PostgreSQL and for a database in memory."""
        database = self.url.database
        if not self.is_sqlite or not database:
            return None
        if "uri" in self.url.query:
            database = unquote(urlsplit(database).path)
        return Path(database)

    @property
    def _info(self) -> dict[str, Any]:
        return {LABELS: self._labels}

    async def has_room(self) -> bool:
        """Return whether the storage has room for changes, as far as known; after a full storage, try a write again."""
        if self.storage.is_due:
            try:
                async with self.write() as session:
                    await session.execute(update(Installation).values(id=Installation.id))
            except UNAVAILABLE:
                return False
            self.storage.note_room()
        return self.storage.has_room

    async def probe(self) -> None:
        """Check that the file of a SQLite database can be opened.  Raises: sqlite3.Error.

        An aiosqlite connection (0.22) that cannot open the file leaves a thread behind, which prints an error when the
        event loop closes before the thread has ended.
        """
        if self._path is not None and "uri" not in self.url.query:
            (await asyncio.to_thread(sqlite3.connect, self._path, check_same_thread=False)).close()

    @asynccontextmanager
    async def altering(self) -> AsyncIterator[AsyncConnection]:
        """Open a connection in one transaction that may alter tables, committed at the end of the block.

        SQLite alters a table by recreating it.  With foreign keys enforced, dropping the old table would delete every
        row that refers to it, so they are checked once before the commit instead.  Raises: BrokenReferences.
        """
        async with self._writer.connect() as connection:
            if self.is_sqlite:
                await _set_foreign_keys(connection, "OFF")  # has no effect inside a transaction
            try:
                async with connection.begin():
                    yield connection
                    if self.is_sqlite and (
                        broken := (await connection.execute(text("PRAGMA foreign_key_check"))).all()
                    ):
                        raise BrokenReferences(f"{len(broken)} rows refer to rows that are not there")
            finally:
                if self.is_sqlite:
                    await _set_foreign_keys(connection, "ON")

    @contextmanager
    def reserved(self) -> Iterator[None]:
        """Lock a SQLite database for the one server that plays its runs.  Raises: Reserved.

        A second server would treat the runs of the first as those of a killed server.  The lock is on the file itself,
        so it holds whatever path another server uses, also a hard link, a symbolic link, or a bind mount.
        """
        assert self._path is not None  # only SQLite is locked
        descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        # Closed after SQLite's connections: closing any descriptor of a file releases all locks of the process on it.
        self._lock_descriptors.append(descriptor)
        _set_lock(descriptor, fcntl.F_WRLCK)
        try:
            yield
        finally:
            _set_lock(descriptor, fcntl.F_UNLCK)

    async def close(self) -> None:
        """Close all connections."""
        await self._writer.dispose()
        await self._reader.dispose()
        while self._lock_descriptors:
            os.close(self._lock_descriptors.pop())


@asynccontextmanager
async def _transaction(session: AsyncSession, slots: asyncio.Semaphore | None) -> AsyncIterator[None]:
    """Run the block in a transaction, as SQLAlchemy's `begin()` does, but never interrupt its end.

    anyio cancels a task again and again until it has ended.  SQLAlchemy survives only the first cancellation: at the
    second one it abandons the connection that it is closing.  Therefore a cancellation by anyio waits here until the
    transaction has ended; one by asyncio, which is delivered once, does not wait.

    On PostgreSQL, SQLAlchemy (2.0) survives no cancellation while it sets up a connection either.  Therefore a task
    waits for its turn at `slots`, where it can be cancelled, and the setup after that always completes.
    """
    async with slots or nullcontext():
        try:
            await _complete(session.connection(), cancels=slots is None)
            with anyio.CancelScope(shield=True):
                yield
        except BaseException:
            await _complete(session.rollback())
            raise
        await _complete(session.commit())


async def _complete(part: Coroutine[Any, Any, object], *, cancels: bool = False) -> None:
    """Wait until a part of a transaction has ended, also when cancelled: an interrupted part breaks its connection.

    With `cancels` a cancellation is delivered to the part too, once.
    """
    task = asyncio.ensure_future(part)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        if cancels:
            task.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # retrieved only so that the event loop does not log it as never retrieved
        raise


async def _set_foreign_keys(connection: AsyncConnection, state: str) -> None:
    """Turn SQLite's foreign keys on or off on the driver's connection: SQLAlchemy would begin a transaction first."""
    raw: Any = (await connection.get_raw_connection()).driver_connection
    await raw.execute(f"PRAGMA foreign_keys={state}")


def _set_lock(descriptor: int, kind: int) -> None:
    """Set a lock on the open file, far beyond the bytes that SQLite itself locks.  Raises: Reserved."""
    request = struct.pack("hhqqi", kind, os.SEEK_SET, LOCKED_BYTE, 1, 0)  # struct flock
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, request)
    except (BlockingIOError, PermissionError) as error:
        raise Reserved from error


def sqlite_url(path: Path) -> str:
    """Return the URL of the SQLite file at `path`."""
    return URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)


def _with_driver(url: str) -> URL:
    """Return `url` with the driver that the server uses.  Raises: UnsupportedDatabase."""
    try:
        parsed = make_url(url)
    except Exception as error:
        raise UnsupportedDatabase("the database URL cannot be read") from error
    if "@" in (parsed.host or ""):  # the rest of a password, which error messages would show as the host name
        raise UnsupportedDatabase("the database URL cannot be read: an @ in a password is written %40")
    drivers = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
    backend = parsed.drivername.partition("+")[0]
    if backend not in drivers:
        raise UnsupportedDatabase(f"the database must be sqlite:///… or postgresql://…, not {backend}")
    if backend == "sqlite" and (parsed.host or parsed.username):
        raise UnsupportedDatabase("the path of a SQLite database comes after three slashes: sqlite:///…")
    parsed = parsed.set(drivername=drivers[backend])
    return parsed if backend == "sqlite" else parsed.update_query_dict({**LINK, **parsed.query})
