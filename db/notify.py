"""Joins the broadcasts of all servers of one PostgreSQL database: what one says, the others hear.

A notification on the channel `daos` is words with spaces between them.  The first is the name of the server that says
it, the others are topics, none where it only shows that it can be heard:

    0193b0c6d1a47c5e8f0a1b2c3d4e5f60    a deployment's id or a run's, as 32 hexadecimal digits
    DEPLOYMENTS                         a member of `Everything`, by its name

Who does not know a word skips it, so that a release can have words that the one before it has not.
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
MAX_PAYLOAD = 7999  # bytes; PostgreSQL takes no more
GATHER_INTERVAL = 0.01  # seconds; what is said meanwhile goes together: commits that notify wait for each other
MAX_SILENCE = 8.0  # seconds without a word of its own, and a server counts its connections as dead
RETRY_INTERVAL = 1.0  # seconds, when the database cannot be reached
LAST_WORDS = 1.0  # seconds that news have at the end

# A dead link must not hold up who speaks: libpq's own values are minutes and more.
LINK = {"connect_timeout": "5", "tcp_user_timeout": "5000", "application_name": "daos news"}


class Wire:
    """This server's end.  Where it could not hear for a while, everybody here looks again, and nothing is lost.

    It has two connections: psycopg's `notifies()` holds its own for as long as it waits, and those of the pool may all
    be taken by those who read.
    """

    def __init__(self, db: Database, broadcast: Broadcast, max_silence: float = MAX_SILENCE) -> None:
        self._conninfo = db.conninfo
        self._broadcast = broadcast
        self._name = secrets.token_hex(8)
        self._unsaid: set[Topic] = set()
        self._more = asyncio.Event()
        self._max_silence = max_silence
        self._is_lost = False
        self._heard = time.monotonic()
        self.hears = False  # whether news from other servers come: what was said here came back
        broadcast.join(self._note)

    @property
    def lag(self) -> float:
        """Seconds since it last heard its own words; it speaks every `max_silence / 3` seconds at least."""
        return time.monotonic() - self._heard

    async def serve(self) -> None:
        """Pass news on until cancelled, and connect again whenever, and however long, the database is away."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep(self._hear), name="news from other servers")
            group.create_task(self._keep(self._say), name="news for other servers")

    def _note(self, topics: tuple[Topic, ...]) -> None:
        self._unsaid.update(topics)
        self._more.set()

    async def _keep(self, use: Callable[[AsyncConnection], Awaitable[None]]) -> None:
        """Use a connection, and after it another one."""
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

    async def _hear(self, connection: AsyncConnection) -> None:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(self._max_silence) as silence:
            await connection.execute(f"LISTEN {CHANNEL}")
            self._broadcast.wake_all()  # nobody has heard what was said before
            try:
                async for notification in connection.notifies():
                    speaker, topics = read(notification.payload)
                    if speaker != self._name:
                        self._broadcast.hear(*topics)
                        continue
                    silence.reschedule(loop.time() + self._max_silence)
                    if self._is_lost:
                        logger.info("receiving notifications from other servers again")
                    self._is_lost = False
                    self._heard, self.hears = time.monotonic(), True
            finally:
                self.hears = False

    async def _say(self, connection: AsyncConnection) -> None:
        try:
            while True:
                await self._send(connection)
                with suppress(TimeoutError):
                    async with asyncio.timeout(self._max_silence / 3):  # who has no news says so
                        await self._more.wait()
                        await asyncio.sleep(GATHER_INTERVAL)
        except asyncio.CancelledError:  # the server stops, and some of its runs have just ended
            if self._unsaid:
                with suppress(psycopg.Error, OSError):
                    async with asyncio.timeout(LAST_WORDS):
                        await self._send(connection)
            raise

    async def _send(self, connection: AsyncConnection) -> None:
        topics, self._unsaid = self._unsaid, set()
        self._more.clear()
        payloads = list(written(self._name, topics))
        try:
            async with asyncio.timeout(self._max_silence):
                await connection.execute(
                    "SELECT pg_notify(%s, payload) FROM unnest(%s::text[]) AS payload", [CHANNEL, payloads]
                )
        except BaseException:
            self._unsaid |= topics  # the next connection says them, perhaps for the second time
            raise


def written(name: str, topics: Iterable[Topic]) -> Iterable[str]:
    """The payloads that say that `name` has news of `topics`; at least one."""
    payload = name
    for word in map(_word, topics):
        if len(payload) + 1 + len(word) > MAX_PAYLOAD:
            yield payload
            payload = name
        payload = f"{payload} {word}"
    yield payload


def read(payload: str) -> tuple[str, list[Topic]]:
    """Who speaks, and which topics it has news of; words that are not known are left out."""
    speaker, *words = payload.split(" ")
    return speaker, [topic for topic in map(_topic, words) if topic is not None]


def _word(topic: Topic) -> str:
    return topic.name if isinstance(topic, Everything) else topic.hex


def _topic(word: str) -> Topic | None:
    if word in Everything.__members__:
        return Everything[word]
    with suppress(ValueError):
        return UUID(hex=word)
    return None
