"""A worker's lease, on PostgreSQL only: extended by each beat that is stored, and lost for good without one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from sqlalchemy import delete, select, text

from db.database import Database
from db.models import Worker
from runner.lease import BEATS, Lease, LeaseLost, boottime

PATIENCE = 20.0  # seconds
SHORT = 0.4  # seconds of a lease that is to end
LONG = 60.0  # seconds of one that is not


async def begun(db: Database, seconds: float) -> Lease:
    held = Lease(db, "node", 4, seconds)
    await held.begin()
    return held


@asynccontextmanager
async def kept(held: Lease) -> AsyncIterator[asyncio.Queue[float]]:
    """The deadlines of a lease that is kept in the block."""
    deadlines: asyncio.Queue[float] = asyncio.Queue()
    keeping = asyncio.create_task(held.keep(deadlines.put_nowait), name="lease")
    try:
        async with asyncio.timeout(PATIENCE):
            yield deadlines
    finally:
        keeping.cancel()
        await asyncio.wait({keeping})


async def workers(db: Database) -> list[Worker]:
    async with db.read() as session:
        return list(await session.scalars(select(Worker)))


@asynccontextmanager
async def full(db: Database) -> AsyncIterator[None]:
    """The database while there is no room for changes of workers."""
    raising = "$$BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full'; END$$"
    await _execute(db, f"CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS {raising}")
    await _execute(db, "CREATE TRIGGER fail BEFORE UPDATE ON workers EXECUTE FUNCTION fail()")
    try:
        yield
    finally:
        await _execute(db, "DROP FUNCTION fail CASCADE")


async def _execute(db: Database, statement: str) -> None:
    async with db.write() as session:
        await session.execute(text(statement))


async def test_a_worker_is_registered_with_what_it_can_do(postgresql_db: Database) -> None:
    before = boottime()
    held = await begun(postgresql_db, LONG)
    [row] = await workers(postgresql_db)
    assert (row.id, row.node, row.max_runs) == (held.worker, "node", 4)
    assert before + LONG <= held.deadline <= boottime() + LONG
    assert not held.is_over
    assert held.age < PATIENCE


async def test_each_incarnation_is_another_worker(postgresql_db: Database) -> None:
    one, other = await begun(postgresql_db, LONG), await begun(postgresql_db, LONG)
    assert {row.id for row in await workers(postgresql_db)} == {one.worker, other.worker}


async def test_before_its_first_beat_it_holds_nothing(postgresql_db: Database) -> None:
    assert Lease(postgresql_db, "node", 4, LONG).is_over


async def test_others_give_it_up_later_than_it_gives_up_itself(postgresql_db: Database) -> None:
    held = Lease(postgresql_db, "node", 4, LONG)
    assert held.silence > held.seconds


async def test_each_beat_moves_the_deadline_and_is_seen_in_the_database(postgresql_db: Database) -> None:
    held = await begun(postgresql_db, BEATS * 0.05)
    held.seconds = BEATS * 0.05
    [first] = await workers(postgresql_db)
    began = held.deadline
    async with kept(held) as deadlines:
        moved = [await deadlines.get() for _ in range(3)]
    assert began < moved[0] < moved[1] < moved[2]
    [row] = await workers(postgresql_db)
    assert row.seen_at > first.seen_at


async def test_without_a_beat_in_time_it_is_lost(postgresql_db: Database, caplog: pytest.LogCaptureFixture) -> None:
    held = await begun(postgresql_db, SHORT)
    async with full(postgresql_db), asyncio.timeout(PATIENCE):
        with pytest.raises(LeaseLost, match="no heartbeat has reached the database in time"):
            await held.keep(lambda _: None)
    assert held.is_over
    assert "the lease cannot be renewed" in caplog.text


async def test_a_statement_that_hangs_does_not_keep_it_from_its_end(postgresql_db: Database) -> None:
    held = await begun(postgresql_db, SHORT)
    async with postgresql_db.write() as session, asyncio.timeout(PATIENCE):
        await session.execute(text("LOCK TABLE workers IN EXCLUSIVE MODE"))
        with pytest.raises(LeaseLost):
            await held.keep(lambda _: None)


async def test_whom_the_others_have_given_up_learns_it_at_the_next_beat(postgresql_db: Database) -> None:
    held = await begun(postgresql_db, BEATS * 0.05)
    held.deadline = boottime() + LONG
    async with postgresql_db.write() as session:
        await session.execute(delete(Worker))
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(LeaseLost, match="has declared this one lost"):
            await held.keep(lambda _: None)


async def test_a_lease_that_is_given_back_is_over_and_its_row_is_gone(postgresql_db: Database) -> None:
    held = await begun(postgresql_db, LONG)
    await held.end()
    assert held.is_over
    assert await workers(postgresql_db) == []
