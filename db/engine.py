"""Connections and transactions: `Database.read()` and `Database.write()` are the only ways to the tables."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import URL, event, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from db.encryption import Keyring

BUSY_TIMEOUT = 10_000  # milliseconds; only other processes (the `daos` commands) are ever waited for
WRITER_TIMEOUT = 60.0  # seconds in the queue for the one writer


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
            self._writer = _sqlite_engine(self.url, writes=True)
            self._reader = _sqlite_engine(self.url, writes=False)
        else:
            self._writer = create_async_engine(self.url, pool_size=10, max_overflow=10, pool_pre_ping=True)
            # One snapshot for all statements of a reader, as SQLite gives it anyway.
            self._reader = self._writer.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self._write_session = async_sessionmaker(self._writer, expire_on_commit=False)
        self._read_session = async_sessionmaker(self._reader, expire_on_commit=False)

    @property
    def is_sqlite(self) -> bool:
        return self.url.get_backend_name() == "sqlite"

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncSession]:
        """A session in one read-only transaction: all its statements see the same state."""
        async with self._read_session() as session, session.begin():
            yield session

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncSession]:
        """A session in one transaction, committed at the end of the block, rolled back when the block raises."""
        async with self._write_session() as session, session.begin():
            yield session

    async def close(self) -> None:
        """Close all connections."""
        await self._writer.dispose()
        await self._reader.dispose()


def sqlite_url(path: Path) -> str:
    """The URL of the SQLite file at `path`."""
    return URL.create("sqlite", database=str(path)).render_as_string(hide_password=False)


def _with_driver(url: str) -> URL:
    """`url` with the driver that the server uses.  Raises: UnsupportedDatabase."""
    try:
        parsed = make_url(url)
    except Exception as error:
        raise UnsupportedDatabase("the database URL cannot be read") from error
    drivers = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
    backend = parsed.drivername.partition("+")[0]
    if backend not in drivers:
        raise UnsupportedDatabase(f"the database must be sqlite:///… or postgresql://…, not {backend}")
    return parsed.set(drivername=drivers[backend])


def _sqlite_engine(url: URL, *, writes: bool) -> AsyncEngine:
    engine = create_async_engine(
        url,
        pool_size=1 if writes else 8,
        max_overflow=0,
        pool_timeout=WRITER_TIMEOUT,
        # The pool is what queues: a connection is not given back to the loop's threads in between.
        connect_args={"timeout": BUSY_TIMEOUT / 1000},
    )

    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # BEGIN is ours, below; the driver's own comes too late
        cursor = connection.cursor()
        pragmas = ["journal_mode=WAL", "foreign_keys=ON", f"busy_timeout={BUSY_TIMEOUT}"]
        # FULL: a run that was accepted is still there after a power cut.
        pragmas.append("synchronous=FULL" if writes else "query_only=ON")
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine
