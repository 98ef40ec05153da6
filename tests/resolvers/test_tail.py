"""Many who follow one run's log read it once, and each gets every entry, in order, at its own pace."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import pytest
from sqlalchemy import delete
from sqlalchemy.exc import OperationalError

from db import patience, status
from db.broadcast import Broadcast, Everything
from db.database import Database
from db.models import Deployment, LogEntry, Run, RunStatus
from db.notify import Wire
from resolvers import run_changes, tail
from resolvers.run_changes import Log, LogBatch
from resolvers.runs import LOG
from resolvers.tail import Piece
from runner.mask import Mask
from runner.record import Recorder
from tests import factories
from tests.support.statements import selects

FOLLOWERS = 50
PATIENCE = tail.POLL_INTERVAL / 2  # seconds; sooner than the look that needs no news


@pytest.fixture
async def run(db: Database) -> Run:
    """A run that is being played."""
    return await factories.run(db, to=RunStatus.RUNNING)


async def _write(db: Database, broadcast: Broadcast, run: Run, count: int, first: int) -> None:
    await factories.log(db, run, count, first)
    broadcast.notify(run.id)


async def _finish(db: Database, broadcast: Broadcast, run: Run) -> None:
    async with db.write() as session:
        assert await status.finish(session, run.id, run.epoch, factories.end())
    broadcast.notify(run.id)


def _numbers(batches: list[LogBatch]) -> list[int]:
    return [entry.sequence for batch in batches for entry in batch.entries]


class Follower:
    """Follows a log to its end."""

    def __init__(self, db: Database, broadcast: Broadcast, run: Run, after: str | None = None) -> None:
        self.batches: list[LogBatch] = []
        self._log = run_changes.watch_log(db, broadcast, str(run.id), after)
        self._got = asyncio.Event()
        self.following = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        async for batch in self._log:
            self.batches.append(batch)
            self._got.set()

    async def until(self, sequence: int) -> None:
        """Return when it has the entry."""
        async with asyncio.timeout(PATIENCE):
            while sequence not in _numbers(self.batches[-1:]):
                self._got.clear()
                await self._got.wait()

    async def leave(self) -> None:
        self.following.cancel()
        await asyncio.wait({self.following})
        await self._log.aclose()


@asynccontextmanager
async def following(db: Database, broadcast: Broadcast, run: Run, count: int) -> AsyncIterator[list[Follower]]:
    followers = [Follower(db, broadcast, run) for _ in range(count)]
    try:
        yield followers
    finally:
        for follower in followers:
            await follower.leave()


def _reads(seen: list[str]) -> int:
    return sum("FROM log_entries" in statement for statement in seen)


async def test_fifty_read_as_often_as_one(db: Database, broadcast: Broadcast, run: Run) -> None:
    await factories.log(db, run, 10)
    with selects() as seen:
        async with following(db, broadcast, run, FOLLOWERS) as followers:
            for follower in followers:
                await follower.until(10)
            assert _reads(seen) == 1
            for number in range(1, 6):
                seen.clear()
                await _write(db, broadcast, run, 10, 10 * number + 1)
                for follower in followers:
                    await follower.until(10 * number + 10)
                assert _reads(seen) == 1
            seen.clear()
            await _finish(db, broadcast, run)
            async with asyncio.timeout(PATIENCE):
                await asyncio.wait({follower.following for follower in followers})
            assert _reads(seen) == 1
    for follower in followers:
        assert _numbers(follower.batches) == list(range(1, 61))
        assert [batch.complete for batch in follower.batches[-2:]] == [False, True]


async def test_who_comes_later_reads_nothing_that_is_in_memory(db: Database, broadcast: Broadcast, run: Run) -> None:
    await factories.log(db, run, 30)
    async with following(db, broadcast, run, 1) as [first]:
        await first.until(30)
        with selects() as seen:
            async with following(db, broadcast, run, 1) as [second]:
                await second.until(30)
            assert seen == []
        assert _numbers(second.batches) == list(range(1, 31))


async def test_who_is_far_behind_reads_for_itself_and_joins_the_others(
    db: Database, broadcast: Broadcast, run: Run
) -> None:
    await factories.log(db, run, 350)
    async with following(db, broadcast, run, FOLLOWERS) as followers:
        for follower in followers:
            await follower.until(350)
        with selects() as seen:
            await _write(db, broadcast, run, 1, 351)
            for follower in followers:
                await follower.until(351)
        assert _reads(seen) == 1
        assert [_numbers(follower.batches) for follower in followers] == [list(range(1, 352))] * FOLLOWERS


async def test_a_cursor_joins_where_it_stands(db: Database, broadcast: Broadcast, run: Run) -> None:
    await factories.log(db, run, 200)
    async with following(db, broadcast, run, 1) as [first]:
        await first.until(200)
        for position in (0, 50, 99, 100, 101, 150, 199, 200):
            follower = Follower(db, broadcast, run, LOG.cursor([position]) if position else None)
            if position < 200:
                await follower.until(200)
            await follower.leave()
            assert _numbers(follower.batches) == list(range(position + 1, 201))


async def test_slow_and_fast_ones_get_every_entry_in_order(db: Database, broadcast: Broadcast, run: Run) -> None:
    count = 3 * tail.KEPT

    async def follow(pace: int) -> list[int]:
        """Sequences as one gets them who does nothing for a while with each `pace`-th batch."""
        batches: list[LogBatch] = []
        async for batch in run_changes.watch_log(db, broadcast, str(run.id)):
            batches.append(batch)
            if pace and len(batches) % pace == 0:
                await resting.wait()
        assert [batch.complete for batch in batches] == [False] * (len(batches) - 1) + [True]
        return _numbers(batches)

    resting = asyncio.Event()
    following = [asyncio.create_task(follow(pace)) for pace in (0, 0, 1, 2, 5)]
    for first in range(1, count + 1, 25):
        await _write(db, broadcast, run, 25, first)
    await _finish(db, broadcast, run)
    async with asyncio.timeout(60):
        fast = await asyncio.gather(*following[:2])  # the slow ones, who rest, hold up nobody
        assert not any(slow.done() for slow in following[2:])
        resting.set()
        assert [*fast, *await asyncio.gather(*following[2:])] == [list(range(1, count + 1))] * 5


async def test_memory_is_bounded(db: Database, broadcast: Broadcast, run: Run) -> None:
    async with following(db, broadcast, run, 1) as [follower]:
        for first in range(1, 3 * tail.KEPT, 100):
            await _write(db, broadcast, run, 100, first)
            await follower.until(first + 99)
        with tail.of(broadcast, run.id, Log(db, run.id)) as shared:
            assert len(vars(shared)["_entries"]) == tail.KEPT


async def test_news_while_a_look_is_under_way_are_read(db: Database, broadcast: Broadcast, run: Run) -> None:
    """Each entry is announced by its own news, some while the read for the last one goes on."""
    async with following(db, broadcast, run, 3) as followers:
        for number in range(1, 101):
            await _write(db, broadcast, run, 1, number)
        for follower in followers:
            await follower.until(100)
        assert [_numbers(follower.batches) for follower in followers] == [list(range(1, 101))] * 3


async def test_who_leaves_takes_nothing_from_the_others(db: Database, broadcast: Broadcast, run: Run) -> None:
    async with following(db, broadcast, run, 10) as followers:
        await _write(db, broadcast, run, 1, 1)
        for number, follower in enumerate(followers, start=2):
            await follower.until(number - 1)
            broadcast.notify(run.id)
            await asyncio.sleep(0)  # the look has begun
            await follower.leave()
            await _write(db, broadcast, run, 1, number)
        last = Follower(db, broadcast, run)
        await last.until(11)
        await last.leave()


async def test_a_run_that_vanishes_ends_all(db: Database, broadcast: Broadcast, run: Run) -> None:
    await factories.log(db, run, 10)
    async with following(db, broadcast, run, 3) as followers:
        for follower in followers:
            await follower.until(10)
        async with db.write() as session:
            await session.execute(delete(Deployment).where(Deployment.id == run.deployment_id))
        broadcast.notify(run.id)
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(follower.following for follower in followers))
        assert [batch.complete for follower in followers for batch in follower.batches] == [False] * 3


async def test_nothing_is_left_after_the_last(db: Database, broadcast: Broadcast, run: Run) -> None:
    tasks = asyncio.all_tasks()
    await factories.log(db, run, 10)
    async with following(db, broadcast, run, 5) as followers:
        for follower in followers:
            await follower.until(10)
        assert vars(broadcast)["_shared"]
    assert vars(broadcast)["_shared"] == {}
    assert vars(broadcast)["_listeners"] == {}
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(
            *(asyncio.all_tasks() - tasks), return_exceptions=True
        )  # a look ends when it was cancelled


async def test_who_follows_waits_for_a_database_that_is_away_and_misses_nothing(
    db: Database, broadcast: Broadcast, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "RETRY_INTERVAL", 0.05)
    await factories.log(db, run, 10)
    async with following(db, broadcast, run, 3) as followers:
        for follower in followers:
            await follower.until(10)
        with _failing(db, monkeypatch):
            broadcast.notify(run.id)
            await asyncio.sleep(0.3)
            with pytest.raises(OperationalError):
                await anext(run_changes.watch_log(db, Broadcast(), str(run.id)))  # nobody has promised it anything yet
        await _write(db, broadcast, run, 5, first=11)
        for follower in followers:
            await follower.until(15)
        for follower in followers:
            assert _numbers(follower.batches) == list(range(1, 16))


@contextmanager
def _failing(db: Database, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def read() -> AsyncGenerator[None]:
        raise OperationalError("SELECT", {}, OSError("the database is away"))

    with monkeypatch.context() as patch:
        patch.setattr(db, "read", read)
        yield


async def test_a_server_follows_what_another_one_records(postgresql_db: Database) -> None:
    run = await factories.run(postgresql_db, to=RunStatus.RUNNING)
    here, there = Broadcast(), Broadcast()
    async with AsyncExitStack() as stack:
        group = await stack.enter_async_context(asyncio.TaskGroup())
        wires = [group.create_task(Wire(postgresql_db, broadcast).serve()) for broadcast in (here, there)]
        [follower] = await stack.enter_async_context(following(postgresql_db, there, run, 1))
        recorder = Recorder(postgresql_db, here, run, 0, Mask())
        recording = group.create_task(recorder.write())
        for number in range(1, 401):
            recorder.log(f"line {number}")
            if number % 40 == 0:
                await follower.until(number)
        recorder.close()
        await recording
        await _finish(postgresql_db, here, run)
        async with asyncio.timeout(PATIENCE):
            await follower.following
        for wire in wires:
            wire.cancel()
    assert [entry.message for entry in _entries(follower)] == [f"line {number}" for number in range(1, 401)]
    assert _numbers(follower.batches) == list(range(1, 401))


def _entries(follower: Follower) -> list[LogEntry]:
    return [entry for batch in follower.batches for entry in batch.entries]


class Numbers:
    """A source of the numbers 10 and 11; what came before them is gone."""

    async def read(self, position: int) -> Piece[int] | None:
        return Piece([])

    async def read_end(self) -> Piece[int] | None:
        return Piece([10, 11])

    def position(self, entry: int) -> int:
        return entry


async def test_who_is_behind_what_is_gone_goes_on_with_what_is_in_memory(broadcast: Broadcast) -> None:
    with tail.own(broadcast, Everything.DEPLOYMENTS, Numbers()) as shared:
        async with asyncio.timeout(PATIENCE):
            piece = await shared.after(3)
    assert piece is not None
    assert piece.entries == [10, 11]
