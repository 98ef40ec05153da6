"""What is done while the database is unavailable: wait, and try again."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy.exc import InterfaceError, InternalError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection


class Unavailable(Exception):
    """The database is unavailable, as something else than SQLAlchemy has found."""


# OperationalError: no connection, a full disk, a locked file, a conflict.  InterfaceError: a connection that was lost.
# InternalError: a PostgreSQL that has become a standby and takes no writes.  NoConnection: the pool has none free.
UNAVAILABLE = (OperationalError, InterfaceError, InternalError, NoConnection, Unavailable)
RETRY_INTERVAL = 1.0  # seconds

logger = logging.getLogger(__name__)

T = TypeVar("T")


async def patiently(attempt: Callable[[], Awaitable[T]], what: str) -> T:
    """The result of `attempt`, which is repeated while the database is unavailable.

    `attempt` is one transaction, or reads only.  `what` is the beginning of a log line: "the end of run 5 cannot be
    written".  Other errors pass through.
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
