"""What one server says the others hear, also after the connection between them was lost."""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from uuid import uuid4

import pytest
from sqlalchemy import text

from db.broadcast import Broadcast, Everything, Listener, Topic
from db.database import Database
from db.notify import CHANNEL, Wire, read, written
from tests import factories
from tests.support.relay import relay

LONG = 60.0  # seconds; a test that waits that long has failed
SOON = 1.0  # seconds that news take at most
AGAIN = 10.0  # seconds until a lost connection is there again


@asynccontextmanager
async def joined(db: Database, broadcast: Broadcast, **settings: float) -> AsyncIterator[asyncio.Task[None]]:
    """A wire of the broadcast that hears."""
    with broadcast.listen(uuid4()) as listener:
        serving = asyncio.create_task(Wire(db, broadcast, **settings).serve())
        await woken(AGAIN, listener)
        try:
            yield serving
        finally:
            serving.cancel()
            await asyncio.wait({serving})
            assert serving.cancelled()


@pytest.fixture
async def servers(postgresql_db: Database) -> AsyncIterator[tuple[Broadcast, Broadcast]]:
    """The broadcasts of two servers of one database."""
    one, other, topic = Broadcast(), Broadcast(), uuid4()
    async with joined(postgresql_db, one), joined(postgresql_db, other):
        for speaker, hearer in ((one, other), (other, one)):
            with hearer.listen(topic) as listener:
                speaker.notify(topic)
                await woken(AGAIN, listener)
        yield one, other


@pytest.fixture
def levels() -> Iterator[asyncio.Queue[str]]:
    """The levels of what wires log."""
    queue = asyncio.Queue[str]()
    handler = logging.Handler()
    handler.emit = lambda record: queue.put_nowait(record.levelname)  # type: ignore[method-assign]
    logger = logging.getLogger("db.notify")
    level = logger.level
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)
    yield queue
    logger.removeHandler(handler)
    logger.setLevel(level)


async def woken(within: float, *listeners: Listener) -> None:
    async with asyncio.timeout(within):
        for listener in listeners:
            await listener.wait(LONG)


async def is_woken(listener: Listener) -> bool:
    waiting = asyncio.create_task(listener.wait(LONG))
    await asyncio.sleep(0)
    is_done = waiting.done()
    waiting.cancel()
    return is_done


async def say(db: Database, *payloads: str) -> None:
    """Notify the channel as somebody else."""
    async with db.write() as session:
        for payload in payloads:
            await session.execute(text("SELECT pg_notify(:channel, :said)"), {"channel": CHANNEL, "said": payload})


async def kill(db: Database, query: str) -> int:
    """End the connections of wires whose last statement was like `query`; gives how many there were."""
    statement = text(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name = 'daos notifications' AND query LIKE :query"
    )
    async with db.write() as session:
        return await session.scalar(statement, {"query": query}) or 0


@pytest.mark.parametrize("topic", list(Everything))
async def test_what_one_server_says_the_other_hears(servers: tuple[Broadcast, Broadcast], topic: Topic) -> None:
    for one, other in (servers, servers[::-1]):
        with other.listen(topic) as listener, other.listen(uuid4()) as of_something_else:
            one.notify(topic)
            await woken(SOON, listener)
            assert not await is_woken(of_something_else)


async def test_a_server_does_not_hear_itself(servers: tuple[Broadcast, Broadcast]) -> None:
    one, other = servers
    topic, answer = uuid4(), uuid4()
    with one.listen(topic) as own, other.listen(topic) as heard, one.listen(answer) as answered:
        one.notify(topic)
        await woken(SOON, own, heard)
        other.notify(answer)  # comes after everything that was said before
        await woken(SOON, answered)
        assert not await is_woken(own)


async def test_a_thousand_topics_at_once_all_arrive(servers: tuple[Broadcast, Broadcast]) -> None:
    one, other = servers
    topics = [uuid4() for _ in range(1000)]
    with ExitStack() as stack:
        listeners = [stack.enter_context(other.listen(topic)) for topic in topics]
        one.notify(*topics)
        await woken(SOON, *listeners)


@pytest.mark.parametrize("query", ["LISTEN%", "SELECT pg_notify%", "%"], ids=["who hears", "who says", "both"])
async def test_killed_connections_come_again_and_nothing_is_missed(
    servers: tuple[Broadcast, Broadcast], postgresql_db: Database, query: str
) -> None:
    one, other = servers
    topic, unheard = uuid4(), uuid4()
    with other.listen(topic) as listener, other.listen(unheard) as further, one.listen(topic) as on_one:
        assert await kill(postgresql_db, query) == (4 if query == "%" else 2)
        one.notify(topic)
        await woken(AGAIN, listener)
        if query != "SELECT pg_notify%":  # only who was deaf may have missed something
            await woken(AGAIN, further)
        await woken(AGAIN, on_one)
        one.notify(topic)
        await woken(SOON, listener)
        assert not await is_woken(further)


async def test_a_wire_hears_from_when_it_has_heard_itself_until_its_connection_is_lost(
    postgresql_db: Database,
) -> None:
    wire = Wire(postgresql_db, Broadcast(), max_silence=0.9)
    assert not wire.hears
    serving = asyncio.create_task(wire.serve())
    async with asyncio.timeout(AGAIN):
        for hears in (True, False, True):
            while wire.hears != hears:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
            if hears:
                assert wire.lag < SOON
                await kill(postgresql_db, "LISTEN%")
    serving.cancel()
    await asyncio.wait({serving})
    assert not wire.hears


async def test_a_loss_is_logged_once_and_its_end_too(postgresql_db: Database, levels: asyncio.Queue[str]) -> None:
    async with joined(postgresql_db, Broadcast(), max_silence=0.9), asyncio.timeout(AGAIN):
        await kill(postgresql_db, "%")  # who says is perhaps still on its way, who hears is there
        assert [await levels.get(), await levels.get()] == ["WARNING", "INFO"]
        assert await kill(postgresql_db, "%") == 2  # both are lost, and it is logged once
        assert [await levels.get(), await levels.get()] == ["WARNING", "INFO"]
        assert levels.empty()


async def test_a_silent_link_is_noticed(postgresql_db: Database) -> None:
    url = postgresql_db.url
    one, other = Broadcast(), Broadcast()
    topic = uuid4()
    async with AsyncExitStack() as stack:
        between = await stack.enter_async_context(relay(url.host or "", url.port or 0))
        far = url.set(port=between.port).render_as_string(hide_password=False)
        db = await stack.enter_async_context(factories.database(far))
        await stack.enter_async_context(joined(db, other, max_silence=0.9))
        await stack.enter_async_context(joined(postgresql_db, one))
        with other.listen(uuid4()) as listener, other.listen(topic) as heard:
            between.freeze()
            await woken(AGAIN, listener)
            one.notify(topic)
            await woken(AGAIN, heard)


async def test_a_server_that_starts_before_its_database_joins_later(postgresql_db: Database) -> None:
    url = postgresql_db.url
    broadcast, other, topic = Broadcast(), Broadcast(), uuid4()
    async with AsyncExitStack() as stack:
        between = await stack.enter_async_context(relay(url.host or "", url.port or 0))
        between.refuse()
        far = url.set(port=between.port).render_as_string(hide_password=False)
        db = await stack.enter_async_context(factories.database(far))
        await stack.enter_async_context(joined(postgresql_db, other))
        serving = asyncio.create_task(Wire(db, broadcast).serve())
        with other.listen(topic) as listener:
            broadcast.notify(topic)
            await between.refused.wait()
            between.accept()
            await woken(AGAIN, listener)
        serving.cancel()
        await asyncio.wait({serving})


async def test_what_nobody_understands_does_no_harm(
    servers: tuple[Broadcast, Broadcast], postgresql_db: Database
) -> None:
    one, other = servers
    topic, known = uuid4(), uuid4()
    garbage = ["x" * 7999, "x \u20ac", "", " ", "x", "x ", "  x", "x CANCEL:", "x CANCEL:1", "x RUNS:1:2", "x 0x1"]
    with other.listen(topic) as listener, other.listen(known) as of_known, one.listen(uuid4()) as nobody:
        await say(postgresql_db, *garbage, f"x NEWS:{uuid4().hex} {known.hex} sequence=3")
        await woken(SOON, of_known)
        one.notify(topic)
        await woken(SOON, listener)
        assert not await is_woken(nobody)


async def test_the_last_words_of_a_server_that_stops_are_heard(postgresql_db: Database) -> None:
    one, other, topic = Broadcast(), Broadcast(), uuid4()
    async with joined(postgresql_db, other):
        with other.listen(topic) as listener:
            async with joined(postgresql_db, one):
                with other.listen(begun := uuid4()) as first:
                    one.notify(begun)
                    await woken(SOON, first)
                one.notify(topic)
            await woken(SOON, listener)


@pytest.mark.parametrize("count", [0, 1, 120, 121, 242, 1000])
def test_payloads_are_no_longer_than_postgresql_takes_and_say_all(count: int) -> None:
    keys = [uuid4() for _ in range(count)]
    topics: list[Topic] = [Everything.DEPLOYMENTS, *keys]
    payloads = list(written("me", topics))
    assert max(len(payload) for payload in payloads) < 8000
    said = [read(payload) for payload in payloads]
    assert {speaker for speaker, _ in said} == {"me"}
    assert [topic for _, heard in said for topic in heard] == topics


def test_who_only_shows_that_it_can_be_heard_has_no_topics() -> None:
    assert [read(payload) for payload in written("me", [])] == [("me", [])]
