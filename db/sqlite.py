"""SQLite for a server: an engine that writes or reads, with a driver that uses its thread once per statement."""

import sqlite3
from collections.abc import Iterable
from typing import Any

import aiosqlite
from sqlalchemy import URL, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

BUSY_TIMEOUT = 10_000  # milliseconds; only for other processes, the `daos` commands
WRITER_TIMEOUT = 60.0  # seconds in the queue for the one writer
READERS = 8  # connections


def engine(url: URL, *, writes: bool) -> AsyncEngine:
    """Return an engine with one connection that writes, or with several that can only read."""
    created = create_async_engine(
        url,
        pool_size=1 if writes else READERS,
        max_overflow=0,
        pool_timeout=WRITER_TIMEOUT,
        # Writers queue in the pool, so that none of them waits for SQLite's lock in a thread.
        connect_args={"timeout": BUSY_TIMEOUT / 1000, "async_creator_fn": _connect},
    )

    @event.listens_for(created.sync_engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # BEGIN is issued below; the driver would issue it too late
        cursor = connection.cursor()
        _switch_to_wal(cursor)
        pragmas = ["foreign_keys=ON", f"busy_timeout={BUSY_TIMEOUT}"]
        # FULL: an accepted run survives a power failure.
        pragmas.append("synchronous=FULL" if writes else "query_only=ON")
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()
        # SQLite's own changes only A to Z, PostgreSQL's all letters; a search has to find the same in both.
        connection.create_function("lower", 1, _lower, deterministic=True)

    @event.listens_for(created.sync_engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return created


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _switch_to_wal(cursor: Any) -> None:
    try:
        cursor.execute("PRAGMA journal_mode=WAL")
    except sqlite3.OperationalError:
        # Another process is switching a new file to WAL.  SQLite does not wait for that, but it waits for a writer.
        cursor.execute("BEGIN IMMEDIATE")
        cursor.execute("COMMIT")
        cursor.execute("PRAGMA journal_mode=WAL")


class _Cursor(aiosqlite.Cursor):
    """A cursor whose `execute` also fetches all rows."""

    _rows: Iterable[sqlite3.Row] = ()

    async def execute(self, sql: str, parameters: Iterable[Any] | None = None) -> aiosqlite.Cursor:
        found = self._execute(self._find, sql, () if parameters is None else parameters)  # type: ignore[no-untyped-call]
        self._rows = await found
        return self

    def _find(self, sql: str, parameters: Any) -> Iterable[sqlite3.Row]:
        return self._cursor.execute(sql, parameters).fetchall()

    async def fetchall(self) -> Iterable[sqlite3.Row]:
        rows, self._rows = self._rows, ()
        return rows

    async def close(self) -> None:
        self._cursor.close()  # in this thread: all rows are fetched, and SQLite has nothing left to do


class _Connection(aiosqlite.Connection):
    """A connection that uses its thread only for calls that may block.

    With aiosqlite's own connection (0.22), SQLAlchemy switches to the thread and back four times per statement: to
    create a cursor, to execute, to fetch, and to close it.  On a busy machine each switch waits for a processor twice,
    while the one writer delays all transactions behind it.
    """

    def cursor(self) -> Any:
        return _Cursor(self, self._conn.cursor())

    async def rollback(self) -> None:
        if self._conn.in_transaction:  # not so when the pool rolls back as a precaution, after each commit
            await super().rollback()


def _connect(path: str, **arguments: Any) -> _Connection:
    connection = _Connection(lambda: sqlite3.connect(path, **arguments), iter_chunk_size=64)
    connection._thread.daemon = True  # as SQLAlchemy does: no connection prevents the process from exiting
    return connection
