"""SQLite, set up for a server: an engine that writes or reads, on a driver that leaves the loop once a statement."""

import sqlite3
from collections.abc import Iterable
from typing import Any

import aiosqlite
from sqlalchemy import URL, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

BUSY_TIMEOUT = 10_000  # milliseconds; only other processes (the `daos` commands) are ever waited for
WRITER_TIMEOUT = 60.0  # seconds in the queue for the one writer
READERS = 8  # connections


def engine(url: URL, *, writes: bool) -> AsyncEngine:
    """An engine whose one connection writes, or whose connections read and cannot write."""
    created = create_async_engine(
        url,
        pool_size=1 if writes else READERS,
        max_overflow=0,
        pool_timeout=WRITER_TIMEOUT,
        # The pool is what queues: a connection is not given back to the loop's threads in between.
        connect_args={"timeout": BUSY_TIMEOUT / 1000, "async_creator_fn": _connect},
    )

    @event.listens_for(created.sync_engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # BEGIN is ours, below; the driver's own comes too late
        cursor = connection.cursor()
        _switch_to_wal(cursor)
        pragmas = ["foreign_keys=ON", f"busy_timeout={BUSY_TIMEOUT}"]
        # FULL: a run that was accepted is still there after a power cut.
        pragmas.append("synchronous=FULL" if writes else "query_only=ON")
        for pragma in pragmas:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()
        # SQLite's own changes only A to Z; PostgreSQL's changes all letters, and a search has to find the same in both.
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
        # Another process is just doing it to a new file.  SQLite does not wait for that, but it waits for a writer.
        cursor.execute("BEGIN IMMEDIATE")
        cursor.execute("COMMIT")
        cursor.execute("PRAGMA journal_mode=WAL")


class _Cursor(aiosqlite.Cursor):
    """A cursor that has read what it found when `execute` returns."""

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
        self._cursor.close()  # at once: nothing is left of the statement that SQLite would have to end


class _Connection(aiosqlite.Connection):
    """A connection that asks its thread only for what may take time.

    With aiosqlite's own (0.22) SQLAlchemy goes to the thread and back four times a statement: to make a cursor, to
    execute, to fetch, and to close it.  On a busy machine each time waits for a processor twice, while the one writer
    holds up all transactions behind it.
    """

    def cursor(self) -> Any:
        return _Cursor(self, self._conn.cursor())

    async def rollback(self) -> None:
        if self._conn.in_transaction:  # it is not when the pool makes sure of it, after each commit
            await super().rollback()


def _connect(path: str, **arguments: Any) -> _Connection:
    connection = _Connection(lambda: sqlite3.connect(path, **arguments), iter_chunk_size=64)
    connection._thread.daemon = True  # as SQLAlchemy does: no connection keeps the process from ending
    return connection
