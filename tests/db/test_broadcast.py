"""News wakes those who wait for it, and is never lost between reading and waiting."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

from db.broadcast import Broadcast, Everything, Topic

LONG = 60.0  # seconds; a test that waits that long has failed


async def test_news_before_the_wait_is_not_lost() -> None:
    broadcast, topic = Broadcast(), uuid4()
    with broadcast.listen(topic) as listener:
        broadcast.notify(topic)
        async with asyncio.timeout(1):
            await listener.wait(LONG)


async def test_many_news_are_one_wake() -> None:
    broadcast, topic = Broadcast(), uuid4()
    with broadcast.listen(topic) as listener:
        for _ in range(1000):
            broadcast.notify(topic)
        await listener.wait(LONG)
        waiting = asyncio.create_task(listener.wait(LONG))
        await asyncio.sleep(0)
        assert not waiting.done()
        broadcast.notify(topic)
        await waiting


async def test_news_reaches_all_listeners_of_its_topics_and_no_others() -> None:
    broadcast, one, other = Broadcast(), uuid4(), uuid4()
    everything = broadcast.listen(Everything.DEPLOYMENTS)
    with broadcast.listen(one) as first, everything as second, broadcast.listen(other) as third:
        broadcast.notify(one, Everything.DEPLOYMENTS)
        async with asyncio.timeout(1):
            await first.wait(LONG)
            await second.wait(LONG)
        waiting = asyncio.create_task(third.wait(LONG))
        await asyncio.sleep(0)
        assert not waiting.done()
        waiting.cancel()


async def test_who_listens_no_longer_is_forgotten() -> None:
    broadcast, topic = Broadcast(), uuid4()
    with broadcast.listen(topic):
        pass
    broadcast.notify(topic)
    assert broadcast._listeners == {}


async def test_news_of_here_is_passed_on_and_news_of_elsewhere_is_not() -> None:
    broadcast, topic = Broadcast(), uuid4()
    passed_on: list[tuple[Topic, ...]] = []
    broadcast.join(passed_on.append)
    with broadcast.listen(topic) as listener:
        broadcast.notify_here(topic)
        async with asyncio.timeout(1):
            await listener.wait(LONG)
        assert passed_on == []
        broadcast.notify(topic, Everything.DEPLOYMENTS)
        async with asyncio.timeout(1):
            await listener.wait(LONG)
    assert passed_on == [(topic, Everything.DEPLOYMENTS)]


async def test_everybody_can_be_woken() -> None:
    broadcast = Broadcast()
    with broadcast.listen(uuid4()) as one, broadcast.listen(Everything.DEPLOYMENTS) as other:
        broadcast.wake_all()
        async with asyncio.timeout(1):
            await one.wait(LONG)
            await other.wait(LONG)


def test_what_is_shared_is_opened_for_the_first_and_closed_after_the_last() -> None:
    broadcast, topic = Broadcast(), uuid4()
    happened = []

    @contextmanager
    def opened() -> Iterator[object]:
        happened.append("opened")
        yield object()
        happened.append("closed")

    for _ in range(2):
        with broadcast.share(topic, opened) as first:
            with broadcast.share(topic, opened) as second, broadcast.share(uuid4(), opened) as other:
                assert first is second
                assert first is not other
            assert happened == ["opened", "opened", "closed"]
        assert happened == ["opened", "opened", "closed", "closed"]
        happened.clear()
