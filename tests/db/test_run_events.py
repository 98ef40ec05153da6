"""Every change of a run's status or phase has one event, numbered without gaps."""

import asyncio
from datetime import datetime
from uuid import UUID

from sqlalchemy import select

from db import run_events, run_phases, status
from db.database import Database
from db.models import Run, RunEvent, RunStatus, now
from db.phase import Phase, PhaseOutcome
from db.run_phases import PhaseChange
from tests import factories
from tests.factories import LONG_AGO


async def _events(db: Database, run_id: UUID) -> list[tuple[int, datetime]]:
    async with db.read() as session:
        events = select(RunEvent).where(RunEvent.run_id == run_id).order_by(RunEvent.sequence)
        return [(event.sequence, event.at) for event in await session.scalars(events)]


async def _count(db: Database, run: Run) -> int:
    events = await _events(db, run.id)
    assert [sequence for sequence, _ in events] == list(range(1, len(events) + 1))
    return len(events)


async def test_each_change_of_a_status_has_one_event(db: Database) -> None:
    run = await factories.run(db)
    assert await _events(db, run.id) == [(1, run.queued_at)]
    counts = []
    async with db.write() as session:
        claimed = await status.claim(session, run.id, "worker")
        assert await status.claim(session, run.id, "late") is None
    assert claimed is not None
    counts.append(await _count(db, run))
    async with db.write() as session:
        assert await status.hand_back(session, run.id, claimed.epoch)
        assert not await status.hand_back(session, run.id, claimed.epoch)
        assert not await status.request_cancel(session, run.id)
    counts.append(await _count(db, run))
    async with db.write() as session:
        assert await status.claim(session, run.id, "worker")
        taken = await status.take_over(session, run.id, "another")  # it was RUNNING before
    assert taken is not None
    counts.append(await _count(db, run))
    for _ in range(2):  # the first request counts
        async with db.write() as session:
            assert await status.request_cancel(session, run.id)
        counts.append(await _count(db, run))
    async with db.write() as session:
        assert await status.finish(session, run.id, taken.epoch, factories.end(RunStatus.CANCELED))
        assert not await status.finish(session, run.id, taken.epoch, factories.end(RunStatus.CANCELED))
    counts.append(await _count(db, run))
    assert counts == [2, 3, 4, 5, 5, 6]


async def test_a_queued_run_that_is_canceled_has_its_end(db: Database) -> None:
    run = await factories.run(db)
    async with db.write() as session:
        assert await status.cancel_queued(session, run.id)
    assert await _count(db, run) == 2


async def test_each_change_of_a_phase_has_an_event_with_its_own_time(db: Database) -> None:
    run = await factories.run(db, to=RunStatus.RUNNING)
    changes = [PhaseChange(Phase.UP, LONG_AGO), PhaseChange(Phase.UP, LONG_AGO, PhaseOutcome.OK)]
    async with db.write() as session:
        assert await status.advance(session, run.id, run.epoch, 0.5)
        await run_phases.record(session, run.id, run.action, changes)
    assert await _count(db, run) == 4
    assert (await _events(db, run.id))[2:] == [(3, LONG_AGO), (4, LONG_AGO)]


async def test_writers_at_once_number_without_gaps(db: Database) -> None:
    run = await factories.run(db, to=RunStatus.RUNNING)

    async def write() -> None:
        async with db.write() as session:
            assert await status.advance(session, run.id, run.epoch, 0.5)
            await run_events.add(session, run.id, [now(), now()])

    await asyncio.gather(*(write() for _ in range(10)))
    assert await _count(db, run) == 22
