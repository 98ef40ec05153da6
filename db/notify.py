"""Connects the broadcasts of all servers that share a PostgreSQL database, with LISTEN and NOTIFY.

The payload of a notification on the channel `daos` is a list of fields separated by spaces.  The first field is the
name of the sending server.  The others are topics; a heartbeat has none:

    0193b0c6d1a47c5e8f0a1b2c3d4e5f60    the id of a deployment or a run, as 32 hexadecimal digits
    DEPLOYMENTS                         the name of a member of `Everything`

A receiver ignores fields that it does not know, so that a release can add some.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from uuid import UUID

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo

from db.broadcast import Broadcast, Everything, Topic
from db.database import Database

logger = logging.getLogger(__name__)

CHANNEL = "daos"
MAX_PAYLOAD = 7999  # bytes; PostgreSQL's limit
GATHER_INTERVAL = 0.01  # seconds; topics of this time are sent together, because commits that notify are serialized
MAX_SILENCE = 8.0  # seconds; a server that has not received its own notifications for so long reconnects
RETRY_INTERVAL = 1.0  # seconds, when the database cannot be reached
LAST_SEND = 1.0  # seconds; time limit for sending the remaining topics when the server stops

# A dead link must not delay the sender: libpq's defaults are minutes and more.
LINK = {"connect_timeout": "5", "tcp_user_timeout": "5000", "application_name": "daos notifications"}


class Wire:
    """This server's end.  After each reconnect it wakes all listeners, so that no notification is lost.

    It has two connections: psycopg's `notifies()` occupies one for as long as it waits.  Neither is from the pool, all
    of whose connections may be in use by readers.
    """

    def __init__(self, db: Database, broadcast: Broadcast, max_silence: float = MAX_SILENCE) -> None:
        self._conninfo = db.conninfo
        self._broadcast = broadcast
        self._name = secrets.token_hex(8)
        self._pending: set[Topic] = set()
        self._has_pending = asyncio.Event()
        self._max_silence = max_silence
        self._is_lost = False
        self._received_at = time.monotonic()
        self.hears = False  # whether notifications from other servers arrive: this server receives its own
        broadcast.join(self._add)

    @property
    def lag(self) -> float:
        """Seconds since it last received a notification of its own; it sends one at least every `max_silence / 3`."""
        return time.monotonic() - self._received_at

    async def serve(self) -> None:
        """Send and receive notifications until cancelled; reconnect for as long as the database is unavailable."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_connected(self._receive), name="notifications from other servers")
            group.create_task(self._keep_connected(self._send), name="notifications to other servers")

    def _add(self, topics: tuple[Topic, ...]) -> None:
        self._pending.update(topics)
        self._has_pending.set()

    async def _keep_connected(self, use: Callable[[AsyncConnection], Awaitable[None]]) -> None:
        """Call `use` with a connection, and again with a new one whenever that ends or fails."""
        while True:
            try:
                conninfo = make_conninfo(self._conninfo.reveal(), **LINK)
                async with await AsyncConnection.connect(conninfo, autocommit=True) as connection:
                    await use(connection)
            except (psycopg.Error, OSError) as error:
                if not self._is_lost:
                    logger.warning("cannot receive notifications from other servers, retrying: %r", error)
                self._is_lost = True
            await asyncio.sleep(RETRY_INTERVAL)

    async def _receive(self, connection: AsyncConnection) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._max_silence) as silence:
            await connection.execute(f"LISTEN {CHANNEL}")
            self._broadcast.wake_all()  # notifications sent before LISTEN were missed
            try:
                async for notification in connection.notifies():
                    sender, topics = read(notification.payload)
                    if sender != self._name:
                        self._broadcast.notify_here(*topics)
                        continue
                    silence.reschedule(loop.time() + self._max_silence)
                    if self._is_lost:
                        logger.info("receiving notifications from other servers again")
                    self._is_lost = False
                    self._received_at, self.hears = time.monotonic(), True
            finally:
                self.hears = False

    async def _send(self, connection: AsyncConnection) -> None:
        try:
            while True:
                await self._send_pending(connection)
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._max_silence / 3):  # then a heartbeat is sent
                        await self._has_pending.wait()
                        await asyncio.sleep(GATHER_INTERVAL)
        except asyncio.CancelledError:  # the server stops, and some of its runs have just ended
            if self._pending:
                with suppress(psycopg.Error, OSError):
                    async with asyncio.timeout(LAST_SEND):
                        await self._send_pending(connection)
            raise

    async def _send_pending(self, connection: AsyncConnection) -> None:
        topics, self._pending = self._pending, set()
        self._has_pending.clear()
        payloads = list(written(self._name, topics))
        try:
            async with asyncio.timeout(self._max_silence):
                await connection.execute(
                    "SELECT pg_notify(%s, payload) FROM unnest(%s::text[]) AS payload", [CHANNEL, payloads]
                )
        except BaseException:
            self._pending |= topics  # the next connection sends them, perhaps for the second time
            raise


def written(name: str, topics: Iterable[Topic]) -> Iterable[str]:
    """Return the payloads, at least one, with which the server `name` notifies others of `topics`."""
    payload = name
    for field in map(_field, topics):
        if len(payload) + 1 + len(field) > MAX_PAYLOAD:
            yield payload
            payload = name
        payload = f"{payload} {field}"
    yield payload


def read(payload: str) -> tuple[str, list[Topic]]:
    """Return the name of the sender and the topics of a payload, without the fields that are unknown."""
    sender, *fields = payload.split(" ")
    return sender, [topic for topic in map(_topic, fields) if topic is not None]


def _field(topic: Topic) -> str:
    return topic.name if isinstance(topic, Everything) else topic.hex


def _topic(field: str) -> Topic | None:
    if field in Everything.__members__:
        return Everything[field]
    with suppress(ValueError):
        return UUID(hex=field)
    return None
