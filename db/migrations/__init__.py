"""The database's history, and `upgrade()`, which brings a database up to date; tests make theirs with it too."""

import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from db.engine import Database

_UPGRADE_LOCK = 0x64616F74  # PostgreSQL: only one of many starting servers upgrades


class NewerDatabase(Exception):
    """The database was made by a newer daos; this one would misread it."""


class Unavailable(Exception):
    """The database cannot be reached, read or written."""


async def upgrade(db: Database) -> None:
    """Bring the tables to the newest version, in one transaction.  Raises: NewerDatabase, Unavailable."""
    async with upgraded(db):
        pass


@asynccontextmanager
async def upgraded(db: Database) -> AsyncIterator[AsyncConnection]:
    """A connection in the transaction that brings the tables to the newest version, committed at the end of the block.

    On PostgreSQL a server that starts meanwhile waits for that.  Raises: NewerDatabase, Unavailable.
    """
    with available():
        await db.probe()
        async with db.altering() as connection:
            await connection.run_sync(_upgrade)
            yield connection


@contextmanager
def available() -> Iterator[None]:
    """Say in one line what is wrong with a database that the block uses.  Raises: Unavailable."""
    try:
        yield
    except sqlite3.Error as error:
        raise Unavailable(str(error)) from error
    except DBAPIError as error:
        raise Unavailable(str(error.orig).strip().partition("\n")[0]) from error


async def is_current(db: Database) -> bool:
    """Whether the tables are what this version of the server needs."""
    async with db.read() as session:
        connection = await session.connection()
        return await connection.run_sync(lambda c: MigrationContext.configure(c).get_current_revision()) == _head()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    return config


def _head() -> str | None:
    return ScriptDirectory.from_config(_config()).get_current_head()


def _upgrade(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
    current = MigrationContext.configure(connection).get_current_revision()
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if current is not None and current not in known:
        raise NewerDatabase(f"the database has version {current}, which this daos does not know")
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
