"""Numbers of the queue and of runs."""

from datetime import timedelta

import pytest
from sqlalchemy import update

from db.database import Database
from db.models import Run, RunStatus, now
from resolvers import queue_metrics
from runner.store import Capacity
from tests import factories
from tests.support.recording_engine import RecordingEngine

MINUTE = timedelta(minutes=1)


@pytest.fixture
def engine() -> RecordingEngine:
    """One that plays one run on a host."""
    engine = RecordingEngine()
    engine.room = Capacity(runs=7, per_host=1)
    return engine


async def accept(db: Database, run: Run, ago: timedelta) -> None:
    """Let the run be accepted that long ago."""
    async with db.write() as session:
        await session.execute(update(Run).where(Run.id == run.id).values(queued_at=now() - ago))


async def age(db: Database, engine: RecordingEngine) -> float:
    queue = await queue_metrics.of_queue(db, engine)
    assert queue is not None
    return queue.age


async def test_runs_are_counted_by_status(db: Database, engine: RecordingEngine) -> None:
    for to in (RunStatus.QUEUED, RunStatus.FAILED, RunStatus.FAILED):
        await factories.run(db, to=to)
    queue = await queue_metrics.of_queue(db, engine)
    assert queue is not None
    assert (queue.runs, queue.capacity) == ({RunStatus.QUEUED: 1, RunStatus.RUNNING: 0}, 7)
    ended = {RunStatus.SUCCESS: 0, RunStatus.FAILED: 2, RunStatus.CANCELED: 0}
    assert await queue_metrics.of_ended(db) == ended


async def test_an_empty_queue_has_no_age(db: Database, engine: RecordingEngine) -> None:
    await accept(db, await factories.run(db, to=RunStatus.RUNNING), 3 * MINUTE)
    assert await age(db, engine) == 0


async def test_the_age_of_the_queue_is_that_of_the_oldest_run(db: Database, engine: RecordingEngine) -> None:
    for minutes in (1, 3, 2):
        await accept(db, await factories.run(db), minutes * MINUTE)
    assert 180 <= await age(db, engine) < 200


async def test_a_run_whose_host_is_full_does_not_make_the_queue_older(db: Database, engine: RecordingEngine) -> None:
    host = await factories.host(db)
    await factories.run(db, await factories.deployment(db, on=host), RunStatus.RUNNING)
    await accept(db, await factories.run(db, await factories.deployment(db, on=host)), 3 * MINUTE)
    assert await age(db, engine) == 0
    engine.room = Capacity(runs=7, per_host=2)
    assert await age(db, engine) >= 180


async def test_there_are_none_where_the_database_is_away(engine: RecordingEngine) -> None:
    async with factories.database("postgresql://daos@127.0.0.1:1/daos") as db:
        assert await queue_metrics.of_queue(db, engine) is None
        assert await queue_metrics.of_ended(db) is None
