"""Retries while the database is unavailable."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy.exc import InterfaceError, InternalError, NotSupportedError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as NoConnection


class Unavailable(Exception):
    """The database is unavailable, as detected by something other than SQLAlchemy."""


# OperationalError: no connection, a full disk, a locked file, a conflict.  InterfaceError: a lost connection.
# InternalError: a PostgreSQL server that became a standby and rejects writes.  NoConnection: the pool has none free.
# ProgrammingError, NotSupportedError: another node is migrating the schema, or has, and a prepared statement is stale.
UNAVAILABLE = (
    OperationalError,
    InterfaceError,
    InternalError,
    ProgrammingError,
    NotSupportedError,
    NoConnection,
    Unavailable,
)
RETRY_INTERVAL = 1.0  # seconds

logger = logging.getLogger(__name__)

T = TypeVar("T")


async def patiently(attempt: Callable[[], Awaitable[T]], what: str) -> T:
    """Call `attempt` until the database is available, and return its result.

    `attempt` is one transaction, or only reads.  `what` is the beginning of the log message: "the end of run 5 cannot
    be written".  Other errors are raised.
    """
    is_logged = False
    while True:
        try:
            return await attempt()
        except UNAVAILABLE as error:
            if not is_logged:
                logger.warning("%s, trying again: %s", what, getattr(error, "orig", None) or error)
            is_logged = True
        await asyncio.sleep(RETRY_INTERVAL)
