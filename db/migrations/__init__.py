"""The migrations, and `upgrade()`, which applies them; tests create their databases with it too."""

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

_UPGRADE_LOCK = 0x64616F74  # PostgreSQL: only one of several servers that start at the same time upgrades


class UnknownVersion(Exception):
    """The database has a version that no release of daos has; this server would misread it."""


class Unavailable(Exception):
    """The database cannot be reached, read, or written."""


async def upgrade(db: Database) -> None:
    """Upgrade the tables to the newest version, in one transaction; tables of a newer daos are left as they are.

    A migration keeps what the previous release needs, so that its nodes keep working while they are upgraded one by
    one.  Raises: UnknownVersion, Unavailable.
    """
    async with upgraded(db):
        pass


@asynccontextmanager
async def upgraded(db: Database) -> AsyncIterator[AsyncConnection]:
    """Upgrade the tables and yield the connection; its transaction is committed at the end of the block.

    On PostgreSQL a server that starts in the meantime waits for the commit.  Raises: UnknownVersion, Unavailable.
    """
    with available():
        await db.probe()
        async with db.altering() as connection:
            await connection.run_sync(_upgrade)
            yield connection


@contextmanager
def available() -> Iterator[None]:
    """Convert errors of the database that the block uses to Unavailable, with a message of one line."""
    try:
        yield
    except sqlite3.Error as error:
        raise Unavailable(str(error)) from error
    except DBAPIError as error:
        raise Unavailable(str(error.orig).strip().partition("\n")[0]) from error


async def is_current(db: Database) -> bool:
    """Return whether the tables have the version of this server."""
    async with db.read() as session:
        return await has_current(await session.connection())


async def has_current(connection: AsyncConnection) -> bool:
    """Return whether the tables have the version of this server, as the connection's transaction sees them."""
    return await connection.run_sync(_revision) == _head()


async def is_usable(db: Database) -> bool:
    """Return whether the tables exist and have the version of this server or a newer one."""
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
    """Return whether `version` is higher than this server's newest; versions are consecutive numbers of four digits."""
    head = _head()
    return version is not None and head is not None and version.isdecimal() and int(version) > int(head)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    return config


@cache  # /readyz is polled
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
        raise UnknownVersion(f"the database has version {current}, which is not a version of daos")
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
