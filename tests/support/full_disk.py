"""A database without room, on each of the two engines."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from db.database import Database
from db.models import Host, Installation, Package
from tests import factories

TABLES = tuple(entity.__tablename__ for entity in (Host, Installation, Package))
# Raises what PostgreSQL raises itself when it cannot write a file.
FULL = """
CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql
AS $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$
"""


@asynccontextmanager
async def full(db: Database) -> AsyncIterator[None]:
    """A database that cannot write into `TABLES` in the block, nor SQLite anything that takes 4 MB."""
    if db.is_sqlite:
        # First what deleted rows of other tests have left is taken; then there are as many pages as there are.
        left = "SELECT zeroblob(freelist_count * page_size) FROM pragma_freelist_count, pragma_page_size"
        begin = [f"CREATE TABLE filler AS {left}", "PRAGMA max_page_count = 1"]
        end = ["PRAGMA max_page_count = 4294967294", "DROP TABLE filler"]
    else:
        when = "BEFORE INSERT OR UPDATE ON {} EXECUTE FUNCTION full_disk()"
        begin = [FULL, *(f"CREATE TRIGGER full_disk {when.format(table)}" for table in TABLES)]
        end = ["DROP FUNCTION full_disk CASCADE"]
    await _execute(db, begin)
    try:
        yield
    finally:
        await _execute(db, end)


async def _execute(db: Database, statements: list[str]) -> None:
    async with db.write() as session:
        for statement in statements:
            await session.execute(text(statement))


async def fill(db: Database) -> BaseException:
    """The error of a change that finds no room."""
    with pytest.raises(DBAPIError) as raised:
        await factories.host(db, name="x" * 4_000_000)
    return raised.value
