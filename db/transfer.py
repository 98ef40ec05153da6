"""Copies a SQLite database to an empty PostgreSQL database, completely or not at all."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from sqlalchemy import Integer, Table, delete, func, insert, literal, literal_column, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from db import migrations
from db.database import Database, Reserved
from db.models import Base, Installation

BATCH = 100  # rows in memory at a time; a row with a file of a package can have megabytes


class CannotCopy(Exception):
    """Nothing was copied; the message is one line for the person who asked for it."""


async def copy(source: Database, target: Database, report: Callable[[str, int], None]) -> None:
    """Copy every row of `source`, which is only read, and call `report` with each table's name and number of rows.

    The target's tables are created, filled, and counted in one transaction, and a server that starts on the target in
    the meantime waits for its end: a partial copy is never visible.  The source must have the newest version and is not
    upgraded: that would change the database to return to.  Raises: CannotCopy.
    """
    if not source.is_sqlite:
        raise CannotCopy("the database of DAOS_DATABASE_URL is already PostgreSQL; only SQLite can be copied")
    if target.is_sqlite:
        raise CannotCopy("--to must be postgresql://…")
    await asyncio.to_thread(_check_file, source)
    try:
        with migrations.available(), _reserved(source):
            if not await migrations.is_current(source):
                raise CannotCopy("the SQLite database does not have the version of this daos; run `daos migrate` first")
            async with source.read() as reading, migrations.upgraded(target) as writing:
                if not await migrations.has_current(writing):
                    raise CannotCopy("the PostgreSQL database is of a newer daos; copy with that release")
                await _copy_tables(reading, writing, report)
    except (migrations.UnknownVersion, migrations.Unavailable) as error:
        raise CannotCopy(f"nothing was copied: {error}") from error


def _check_file(source: Database) -> None:
    path = source.url.database
    if not path or not Path(path).is_file():  # opening it would create it
        raise CannotCopy(f"there is no database at {path}")


@contextmanager
def _reserved(db: Database) -> Iterator[None]:
    with ExitStack() as stack:
        try:
            stack.enter_context(db.reserved())
        except Reserved as error:
            raise CannotCopy("a daos serves the SQLite database; stop it first") from error
        yield


async def _copy_tables(source: AsyncSession, target: AsyncConnection, report: Callable[[str, int], None]) -> None:
    tables = Base.metadata.sorted_tables  # tables that others refer to come first
    for table in tables:
        if table is Installation.__table__:
            # Hosts know the source's id; the id that the migrations have just created for the target is used nowhere.
            await target.execute(delete(table))
        elif await target.scalar(select(literal(1)).select_from(table).limit(1)):
            raise CannotCopy(f"the PostgreSQL database has rows in '{table.name}'; it must be empty")
    for table in tables:
        await _copy_rows(table, source, target)
        await _copy_counter(table, source, target)
        counting = select(func.count()).select_from(table)
        count, arrived = await source.scalar(counting), await target.scalar(counting)
        if count is None or count != arrived:
            raise CannotCopy(f"nothing was copied: '{table.name}' has {count} rows, and {arrived} arrived")
        report(table.name, count)


async def _copy_rows(table: Table, source: AsyncSession, target: AsyncConnection) -> None:
    rowid = literal_column("rowid", Integer)  # every table has it in SQLite, and it is the order on disk
    names = table.columns.keys()
    batch = select(rowid, *table.columns).order_by(rowid).limit(BATCH)
    last = 0
    while rows := (await source.execute(batch.where(rowid > last))).all():
        await target.execute(insert(table), [dict(zip(names, row[1:], strict=True)) for row in rows])
        last = rows[-1][0]


async def _copy_counter(table: Table, source: AsyncSession, target: AsyncConnection) -> None:
    """Continue automatic numbers after the last one used, even if its row is deleted: cursors may be beyond it."""
    column = table.autoincrement_column
    if column is None:
        return
    given = text("SELECT seq FROM sqlite_sequence WHERE name = :name").bindparams(name=table.name)
    last = await source.scalar(given)
    if last is not None:
        counter = func.pg_get_serial_sequence(table.name, column.name)
        await target.execute(select(func.setval(counter, last)))
