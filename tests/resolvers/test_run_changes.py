"""What a subscriber to a run sees: its log and its changes, each once and in order, however slow it is."""

import asyncio
from contextlib import aclosing

import pytest

from db import run_phases, status
from db.broadcast import Broadcast
from db.database import Database
from db.models import Run, RunAction, RunStatus, now
from db.phase import Phase
from db.run_phases import PhaseChange
from resolvers import deployments, runs
from resolvers.deployment_changes import CHANGES
from resolvers.errors import InvalidInput, NotFound
from resolvers.run_changes import EVENTS, LogBatch, watch, watch_log
from resolvers.runs import LOG
from tests import factories
from tests.support.attacks import UNKNOWN
from tests.support.recording_engine import RecordingEngine
from tests.support.watching import take, take_rest


def _numbers(batches: list[LogBatch]) -> list[int]:
    return [entry.sequence for batch in batches for entry in batch.entries]


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 250])
async def test_the_log_of_a_run_that_has_ended_is_read_to_its_end(
    db: Database, broadcast: Broadcast, count: int
) -> None:
    run = await factories.run(db, to=RunStatus.SUCCESS)
    await factories.log(db, run, count)
    batches = await take_rest(watch_log(db, broadcast, str(run.id)))
    assert _numbers(batches) == list(range(1, count + 1))
    assert max(len(batch.entries) for batch in batches) <= 100
    assert [batch.complete for batch in batches] == [False] * (len(batches) - 1) + [True]
    assert batches[-1].end_cursor == (LOG.cursor([count]) if count else None)


async def test_the_log_goes_on_behind_a_cursor(db: Database, broadcast: Broadcast) -> None:
    run = await factories.run(db, to=RunStatus.FAILED)
    await factories.log(db, run, 150)
    [batch] = await take_rest(watch_log(db, broadcast, str(run.id), LOG.cursor([120])))
    assert _numbers([batch]) == list(range(121, 151))
    [end] = await take_rest(watch_log(db, broadcast, str(run.id), batch.end_cursor))
    assert (end.entries, end.end_cursor, end.complete) == ([], batch.end_cursor, True)


async def test_entries_come_as_they_are_written_and_the_end_with_the_run(db: Database, broadcast: Broadcast) -> None:
    run = await factories.run(db, to=RunStatus.RUNNING)
    await factories.log(db, run, 2)
    async with aclosing(watch_log(db, broadcast, str(run.id))) as watched:
        [first] = await take(watched, 1)
        coming = asyncio.create_task(take(watched, 1))
        await factories.log(db, run, 3, first=3)
        broadcast.notify(run.id)
        [second] = await coming
        end = asyncio.create_task(take_rest(watched))
        async with db.write() as session:
            assert await status.finish(session, run.id, run.epoch, factories.end())
        broadcast.notify(run.id)
        last = await end
    assert [_numbers([batch]) for batch in (first, second, *last)] == [[1, 2], [3, 4, 5], []]
    assert [batch.complete for batch in (first, second, *last)] == [False, False, True]


async def test_a_slow_reader_of_a_log_misses_nothing(db: Database, broadcast: Broadcast) -> None:
    run = await factories.run(db, to=RunStatus.RUNNING)
    await factories.log(db, run, 1)
    async with aclosing(watch_log(db, broadcast, str(run.id))) as watched:
        batches = await take(watched, 1)
        await factories.log(db, run, 500, first=2)
        async with db.write() as session:
            assert await status.finish(session, run.id, run.epoch, factories.end())
        broadcast.notify(run.id)
        batches += await take_rest(watched)
    assert _numbers(batches) == list(range(1, 502))
    assert batches[-1].complete


async def test_watching_a_log_ends_when_its_run_is_deleted(db: Database, broadcast: Broadcast) -> None:
    run = await factories.run(db, to=RunStatus.SUCCESS)
    await factories.log(db, run, 150)
    async with aclosing(watch_log(db, broadcast, str(run.id))) as watched:
        assert len(_numbers(await take(watched, 1))) == 100
        await deployments.remove(db, broadcast, str(run.deployment_id))
        assert await take_rest(watched) == []


async def test_a_queued_run_that_is_canceled_completes_its_empty_log(db: Database, broadcast: Broadcast) -> None:
    deployment = await factories.deployment(db)
    async with db.write() as session:
        run = await status.start(session, deployment.id, RunAction.UP)
    assert run is not None
    rest = asyncio.create_task(take_rest(watch_log(db, broadcast, str(run.id))))
    async with db.write() as session:
        assert await status.cancel_queued(session, run.id)
    broadcast.notify(run.id)
    assert [(batch.entries, batch.complete) for batch in await rest] == [([], True)]


async def _begin_phases(db: Database, run: Run, *phases: Phase) -> None:
    async with db.write() as session:
        assert await status.advance(session, run.id, run.epoch, 0.5)
        await run_phases.record(session, run.id, run.action, [PhaseChange(phase, now()) for phase in phases])


async def _end(db: Database, run: Run) -> None:
    async with db.write() as session:
        assert await status.finish(session, run.id, run.epoch, factories.end())


def _cursors(*sequences: int) -> list[str]:
    return [EVENTS.cursor([sequence]) for sequence in sequences]


async def test_a_run_comes_as_it_is_now_then_its_changes_to_its_end(db: Database, broadcast: Broadcast) -> None:
    run = await factories.run(db, to=RunStatus.RUNNING)  # its events are 1 and 2
    async with aclosing(watch(db, broadcast, str(run.id))) as watched:
        [first] = await take(watched, 1)
        assert (first.cursor, first.run.status, first.run.id) == (*_cursors(2), RunStatus.RUNNING, run.id)
        coming = asyncio.create_task(take(watched, 2))
        await _begin_phases(db, run, Phase.PREPARE, Phase.UP)
        broadcast.notify(run.id)
        assert [change.cursor for change in await coming] == _cursors(3, 4)
        rest = asyncio.create_task(take_rest(watched))
        await _end(db, run)
        broadcast.notify(run.id)
        [last] = await rest
    assert (last.cursor, last.run.status, last.at) == (*_cursors(5), RunStatus.SUCCESS, last.run.finished_at)


async def test_a_run_that_has_ended_comes_once(db: Database, broadcast: Broadcast) -> None:
    run = await factories.run(db, to=RunStatus.FAILED)
    [only] = await take_rest(watch(db, broadcast, str(run.id)))
    assert (only.run.status, only.cursor) == (RunStatus.FAILED, *_cursors(3))
    assert await take_rest(watch(db, broadcast, str(run.id), only.cursor)) == []


async def test_a_slow_subscriber_of_a_run_misses_nothing_and_sees_nothing_twice(
    db: Database, broadcast: Broadcast
) -> None:
    run = await factories.run(db, to=RunStatus.RUNNING)
    async with aclosing(watch(db, broadcast, str(run.id))) as watched:
        seen = await take(watched, 1)
        for _ in range(11):
            await _begin_phases(db, run, *[Phase.UP] * 10)  # more changes than are read at once
        await _end(db, run)
        broadcast.notify(run.id)
        seen += await take_rest(watched)
    assert [change.cursor for change in seen] == _cursors(*range(2, 114))
    assert {change.run.status for change in seen[1:]} == {RunStatus.SUCCESS}  # as it was when they were emitted


async def test_a_subscriber_of_a_run_that_reconnects_again_and_again_misses_nothing(
    db: Database, broadcast: Broadcast
) -> None:
    run = await factories.run(db, to=RunStatus.RUNNING)
    cursor, seen = EVENTS.cursor([0]), []
    for _ in range(10):
        await _begin_phases(db, run, Phase.PREPARE, Phase.UP)
        async with aclosing(watch(db, broadcast, str(run.id), cursor)) as watched:
            seen += await take(watched, 2)
            cursor = seen[-1].cursor
    await _end(db, run)
    seen += await take_rest(watch(db, broadcast, str(run.id), cursor))
    assert [change.cursor for change in seen] == _cursors(*range(1, 24))


async def test_subscribers_of_a_run_beside_its_writer_see_the_same(db: Database, broadcast: Broadcast) -> None:
    run = await factories.run(db, to=RunStatus.RUNNING)
    begin = EVENTS.cursor([0])
    rests = [asyncio.create_task(take_rest(watch(db, broadcast, str(run.id), begin))) for _ in range(3)]
    log = asyncio.create_task(take_rest(watch_log(db, broadcast, str(run.id))))  # has a tail of its own
    for _ in range(10):
        await _begin_phases(db, run, Phase.PREPARE, Phase.UP)
        broadcast.notify(run.id)
    await _end(db, run)
    broadcast.notify(run.id)
    for rest in rests:
        assert [change.cursor for change in await rest] == _cursors(*range(1, 24))
    assert [batch.complete for batch in await log] == [True]


async def test_watching_a_run_ends_when_it_is_deleted(db: Database, broadcast: Broadcast) -> None:
    run = await factories.run(db, to=RunStatus.SUCCESS)
    async with aclosing(watch(db, broadcast, str(run.id), EVENTS.cursor([0]))) as watched:
        await take(watched, 1)
        await deployments.remove(db, broadcast, str(run.deployment_id))
        assert await take_rest(watched) == []


async def test_a_cancel_is_a_change_of_a_run(db: Database, broadcast: Broadcast, engine: RecordingEngine) -> None:
    run = await factories.run(db, to=RunStatus.RUNNING)
    async with aclosing(watch(db, broadcast, str(run.id))) as watched:
        [first] = await take(watched, 1)
        coming = asyncio.create_task(take(watched, 1))
        await runs.cancel(db, engine, broadcast, str(run.id))
        [canceled] = await coming
    assert (first.run.cancel_requested_at, canceled.run.cancel_requested_at) == (None, canceled.at)


async def test_what_is_not_there_is_not_watched(db: Database, broadcast: Broadcast) -> None:
    for unknown in UNKNOWN:
        with pytest.raises(NotFound):
            await anext(watch_log(db, broadcast, unknown))
        with pytest.raises(NotFound):
            await anext(watch(db, broadcast, unknown))


async def test_a_cursor_of_something_else_is_refused(db: Database, broadcast: Broadcast) -> None:
    run = await factories.run(db)
    with pytest.raises(InvalidInput, match="after is not a cursor of this list"):
        await anext(watch_log(db, broadcast, str(run.id), CHANGES.cursor([1])))
    with pytest.raises(InvalidInput, match="after is not a cursor of this list"):
        await anext(watch(db, broadcast, str(run.id), LOG.cursor([1])))


async def test_nobody_listens_after_watching(db: Database, broadcast: Broadcast) -> None:
    run = await factories.run(db)
    changes, log = watch(db, broadcast, str(run.id)), watch_log(db, broadcast, str(run.id))
    await factories.log(db, run, 1)
    async with aclosing(changes), aclosing(log):
        await take(changes, 1)
        await take(log, 1)
    assert vars(broadcast)["_listeners"] == {}
