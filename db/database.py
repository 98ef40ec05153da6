"""Connections and transactions: `Database.read()` and `Database.write()` are the only ways to the tables."""

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
# libpq's own values are minutes and more; what the URL says counts before these.
LINK = {
    "connect_timeout": "10",  # seconds
    "tcp_user_timeout": "15000",  # milliseconds
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "2",
}

LOCKED_BYTE = 1 << 62  # of a SQLite file; SQLite's own are at 2**30, and no file is as long

logger = logging.getLogger(__name__)

T = TypeVar("T")
Witness = Callable[[AsyncSession], Awaitable[None]]


class BrokenReferences(Exception):
    """A migration left rows that refer to rows which are not there; it was undone."""


class Reserved(Exception):
    """Another server plays the runs of this database."""


class UnsupportedDatabase(ValueError):
    """The database URL is neither sqlite:///… nor postgresql://…"""


class Database:
    """One database: its connections, its transactions and the keyring of its secrets.

    On SQLite there is a pool of readers that cannot write and a pool of one writer.  Writers queue for it in order and
    begin with BEGIN IMMEDIATE, so that "database is locked" cannot happen between them.
    """

    def __init__(self, url: str, keyring: Keyring) -> None:
        self.url = _with_driver(url)
        self.keyring = keyring
        if self.is_sqlite:
            self._writer = sqlite.engine(self.url, writes=True)
            self._reader = sqlite.engine(self.url, writes=False)
        else:
            self._writer = create_async_engine(self.url, pool_size=10, max_overflow=POOL - 10, pool_pre_ping=True)
            # One snapshot for all statements of a reader, as SQLite gives it anyway.
            self._reader = self._writer.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        options: dict[str, Any] = {"expire_on_commit": False, "sync_session_class": OurSession}
        self._write_session = async_sessionmaker(self._writer, **options)
        self._read_session = async_sessionmaker(self._reader, **options)
        self.storage = Storage(self._path)
        self._held: list[int] = []  # descriptors
        self._room = None if self.is_sqlite else asyncio.Semaphore(POOL)
        self._labels: frozenset[str] | None = None
        self._witness: Witness | None = None

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    def limited_to(self, labels: frozenset[str] | None) -> "Database":
        """The same database, where only what is on hosts with one of these labels is there; None: everything is."""
        if labels == self._labels:
            return self
        limited = copy(self)
        limited._labels = labels
        return limited

    @property
    def is_limited(self) -> bool:
        return self._labels is not None

    def witnessed(self, witness: "Witness") -> "Database":
        """The same database, each of whose writing transactions lets `witness` write too, at its end."""
        witnessed = copy(self)
        witnessed._witness = witness
        return witnessed

    @property
    def conninfo(self) -> Secret:
        """How psycopg connects to a PostgreSQL database, for a connection that is not of the pool."""
        _, parameters = self._writer.dialect.create_connect_args(self.url)
        parameters.pop("context", None)  # SQLAlchemy's own types, no parameter of libpq
        return Secret(make_conninfo(**parameters))

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """A session in one read-only transaction: all its statements see the same state."""
        async with self._read_session(info=self._info) as session, _transaction(session, self._room):
            yield session

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """A session in one transaction, committed at the end of the block, rolled back when the block raises."""
        try:
            async with self._write_session(info=self._info) as session, _transaction(session, self._room):
                yield session
                if self._witness is not None:
                    await self._witness(session)
        except DBAPIError as error:
            self.storage.note(error)
            raise

    @property
    def _path(self) -> Path | None:
        """The file of a SQLite database; None where there is none."""
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
        """Whether changes can be written, as far as it is known; what failed for want of room is tried again."""
        if self.storage.is_due:
            try:
                async with self.write() as session:
                    await session.execute(update(Installation).values(id=Installation.id))
            except UNAVAILABLE:
                return False
            self.storage.note_room()
        return self.storage.has_room

    async def probe(self) -> None:
        """See whether the file of a SQLite database can be opened.  Raises: sqlite3.Error.

        A connection of aiosqlite that cannot open it leaves a thread behind, which fails aloud when the loop has closed
        before it has ended (0.22).
        """
        if self._path is not None and "uri" not in self.url.query:
            (await asyncio.to_thread(sqlite3.connect, self._path, check_same_thread=False)).close()

    @asynccontextmanager
    async def altering(self) -> AsyncIterator[AsyncConnection]:
        """A connection in one transaction that may alter tables, committed at the end of the block.

        SQLite alters a table by making it anew, and with foreign keys in force dropping the old one would delete every
        row that refers to it.  They are checked as a whole before the commit instead.  Raises: BrokenReferences.
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
        """Hold a SQLite database as the one server that plays its runs.  Raises: Reserved.

        A second one would take the first one's runs for those of a server that was killed.  The lock is the file's own:
        it holds by whatever path another server has come there, a link of either kind and a bind mount too.
        """
        assert self._path is not None  # it is SQLite
        descriptor = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        # Closed after SQLite's connections: closing any descriptor of a file ends all locks that the process has there.
        self._held.append(descriptor)
        _set_lock(descriptor, fcntl.F_WRLCK)
        try:
            yield
        finally:
            _set_lock(descriptor, fcntl.F_UNLCK)

    async def close(self) -> None:
        """Close all connections."""
        await self._writer.dispose()
        await self._reader.dispose()
        while self._held:
            os.close(self._held.pop())


@asynccontextmanager
async def _transaction(session: AsyncSession, room: asyncio.Semaphore | None) -> AsyncIterator[None]:
    """As SQLAlchemy's own `begin()`, but for its end, which is never cut off.

    A task of anyio that is cancelled is cancelled again and again until it has ended.  SQLAlchemy bears that once: the
    second time it lets go of the connection that it is closing.  So cancelling waits here until the transaction has
    ended; asyncio's own, which comes once, does not.

    On PostgreSQL it does not bear one while a connection is set up either (2.0): the turn is waited for in `room`, and
    what comes then is seen through.
    """
    async with room or nullcontext():
        try:
            await _see_through(session.connection(), leave=room is None)
            with anyio.CancelScope(shield=True):
                yield
        except BaseException:
            await _see_through(session.rollback())
            raise
        await _see_through(session.commit())


async def _see_through(part: Coroutine[Any, Any, object], *, leave: bool = False) -> None:
    """Wait for a part of a transaction to end, also when cancelled meanwhile: cut off, it would break its connection.

    With `leave` it is cancelled too, once.
    """
    going = asyncio.ensure_future(part)
    try:
        await asyncio.shield(going)
    except asyncio.CancelledError:
        if leave:
            going.cancel()
        with anyio.CancelScope(shield=True):
            await asyncio.wait({going})
        if not going.cancelled():
            going.exception()  # which nobody will ask for: the loop would complain
        raise


async def _set_foreign_keys(connection: AsyncConnection, state: str) -> None:
    """Switch SQLite's foreign keys on or off, past SQLAlchemy, which would begin a transaction first."""
    raw: Any = (await connection.get_raw_connection()).driver_connection
    await raw.execute(f"PRAGMA foreign_keys={state}")


def _set_lock(descriptor: int, kind: int) -> None:
    """Set a lock of the open file, far behind the bytes that SQLite locks itself.  Raises: Reserved."""
    request = struct.pack("hhqqi", kind, os.SEEK_SET, LOCKED_BYTE, 1, 0)  # struct flock
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, request)
    except (BlockingIOError, PermissionError) as error:
        raise Reserved from error


def sqlite_url(path: Path) -> str:
    """The URL of the SQLite file at `path`."""
    return URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)


def _with_driver(url: str) -> URL:
    """`url` with the driver that the server uses.  Raises: UnsupportedDatabase."""
    try:
        parsed = make_url(url)
    except Exception as error:
        raise UnsupportedDatabase("the database URL cannot be read") from error
    if "@" in (parsed.host or ""):  # the rest of a password, which errors would show as the host's name
        raise UnsupportedDatabase("the database URL cannot be read: an @ in a password is written %40")
    drivers = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
    backend = parsed.drivername.partition("+")[0]
    if backend not in drivers:
        raise UnsupportedDatabase(f"the database must be sqlite:///… or postgresql://…, not {backend}")
    if backend == "sqlite" and (parsed.host or parsed.username):
        raise UnsupportedDatabase("the path of a SQLite database comes after three slashes: sqlite:///…")
    parsed = parsed.set(drivername=drivers[backend])
    return parsed if backend == "sqlite" else parsed.update_query_dict({**LINK, **parsed.query})
