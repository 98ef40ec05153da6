"""The database's history, and `upgrade()`, which brings a database up to date; tests make theirs with it too."""

import logging
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from db.database import Database

logger = logging.getLogger(__name__)

_UPGRADE_LOCK = 0x64616F74  # PostgreSQL: only one of many starting servers upgrades


class UnknownVersion(Exception):
    """The database has a version that is none of daos'; this one would misread it."""


class Unavailable(Exception):
    """The database cannot be reached, read or written."""


async def upgrade(db: Database) -> None:
    """Bring the tables to the newest version, in one transaction; those of a newer daos stay as they are.

    A migration leaves what the last release needs, so that it can go on while its nodes are upgraded one by one.
    Raises: UnknownVersion, Unavailable.
    """
    async with upgraded(db):
        pass


@asynccontextmanager
async def upgraded(db: Database) -> AsyncIterator[AsyncConnection]:
    """A connection in the transaction that brings the tables to the newest version, committed at the end of the block.

    On PostgreSQL a server that starts meanwhile waits for that.  Raises: UnknownVersion, Unavailable.
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
    """Whether the tables are of this version of the server."""
    async with db.read() as session:
        return await has_current(await session.connection())


async def has_current(connection: AsyncConnection) -> bool:
    """The same, as the transaction of a connection sees it."""
    return await connection.run_sync(_revision) == _head()


async def is_usable(db: Database) -> bool:
    """Whether the tables are there, and of this version of the server or of a newer one."""
    try:
        version = await _version(db)
    except SQLAlchemyError:
        return False
    return version == _head() or _is_newer(version)


async def _version(db: Database) -> str | None:
    async with db.read() as session:
        return await (await session.connection()).run_sync(_revision)


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _is_newer(version: str | None) -> bool:
    """Whether it is a later number than all that this server knows; they are counted up, with four digits."""
    head = _head()
    return version is not None and head is not None and version.isdecimal() and int(version) > int(head)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    return config


@cache  # /readyz is asked again and again
def _head() -> str | None:
    return ScriptDirectory.from_config(_config()).get_current_head()


def _upgrade(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _UPGRADE_LOCK})
    current = _revision(connection)
    if _is_newer(current):
        logger.warning("the database has version %s, of a newer daos: upgrade this one too", current)
        return
    known = {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}
    if current is not None and current not in known:
        raise UnknownVersion(f"the database has version {current}, which no daos has made")
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
