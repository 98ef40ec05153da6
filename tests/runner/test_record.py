"""What a run says gets into its log: in order, without secrets, in batches, and only while the run is held."""

import asyncio
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, select, text

from db import patience, status
from db.broadcast import Broadcast
from db.database import Database
from db.encryption import Secret
from db.models import Deployment, LogEntry, LogLevel, Run, RunPhase, RunStatus, now
from db.phase import Phase, PhaseOutcome
from runner.mask import Mask
from runner.record import MAX_ENTRIES, MAX_MESSAGE, ClaimLost, Recorder, begin
from tests import factories


@pytest.fixture
async def run(db: Database) -> Run:
    """A run that is being played."""
    return await factories.run(db, to=RunStatus.RUNNING)


async def log_of(db: Database, run_id: UUID) -> list[LogEntry]:
    async with db.read() as session:
        statement = select(LogEntry).where(LogEntry.run_id == run_id).order_by(LogEntry.sequence)
        return list(await session.scalars(statement))


def make(db: Database, run: Run, *secrets: str) -> Recorder:
    return Recorder(db, Broadcast(), run, 0, Mask.of(Secret(secret) for secret in secrets))


async def test_entries_are_written_in_order_and_numbered_without_gaps(db: Database, run: Run) -> None:
    recorder = make(db, run)
    for number in range(250):
        recorder.log(f"line {number}", phase=Phase.UP)
    recorder.log("it broke", level=LogLevel.ERROR)
    recorder.close()
    await recorder.write()
    entries = await log_of(db, run.id)
    assert [entry.sequence for entry in entries] == list(range(1, 252))
    assert [entry.message for entry in entries[:3]] == ["line 0", "line 1", "line 2"]
    assert (entries[-1].level, entries[-1].phase, entries[-1].message) == (LogLevel.ERROR, None, "it broke")


async def test_a_run_that_begins_up_becomes_current_before_it_ends(db: Database, run: Run) -> None:
    recorder = make(db, run)
    recorder.begin_up()
    recorder.close()
    await recorder.write()
    async with db.read() as session:
        assert (await session.get_one(Deployment, run.deployment_id)).current_run_id == run.id


async def test_phases_are_written_with_the_log_and_with_their_own_times(db: Database, run: Run) -> None:
    recorder = make(db, run)
    before = now()
    recorder.begin_phase(Phase.PREPARE)
    recorder.end_phase(Phase.PREPARE, PhaseOutcome.OK)
    recorder.end_phase(Phase.BUILD, PhaseOutcome.OK)
    recorder.begin_phase(Phase.PULL)
    after = now()
    recorder.close()
    await recorder.write()
    async with db.read() as session:
        phases = list(await session.scalars(select(RunPhase).order_by(RunPhase.position)))
    assert [(phase.phase, phase.outcome) for phase in phases] == [
        (Phase.PREPARE, PhaseOutcome.OK), (Phase.BUILD, PhaseOutcome.SKIPPED), (Phase.PULL, None),
    ]  # fmt: skip
    prepare, build, pull = phases
    assert prepare.started_at is not None
    assert prepare.finished_at is not None
    assert pull.started_at is not None
    assert before <= prepare.started_at <= prepare.finished_at <= pull.started_at <= after
    assert (build.started_at, build.finished_at, pull.finished_at) == (None, None, None)


async def test_a_phase_of_a_lost_claim_is_not_written(db: Database, run: Run) -> None:
    async with db.write() as session:
        await status.take_over(session, run.id, "another worker")
    recorder = make(db, run)
    recorder.begin_phase(Phase.UP)
    recorder.close()
    with pytest.raises(ClaimLost):
        await recorder.write()
    async with db.read() as session:
        assert await session.scalar(select(RunPhase)) is None


async def test_what_is_said_while_writing_is_written_too(db: Database, run: Run) -> None:
    recorder = make(db, run)
    async with asyncio.TaskGroup() as group:
        group.create_task(recorder.write())
        for number in range(20):
            recorder.log(f"line {number}")
            await asyncio.sleep(0)
        recorder.close()
    assert [entry.message for entry in await log_of(db, run.id)] == [f"line {number}" for number in range(20)]


async def test_a_run_begins_with_an_entry_in_its_own_transaction(db: Database, run: Run) -> None:
    async with db.write() as session:
        assert await begin(session, run, "begun") == 1
    [entry] = await log_of(db, run.id)
    assert (entry.sequence, entry.level, entry.phase, entry.message) == (1, LogLevel.INFO, None, "begun")


async def test_a_run_that_was_taken_over_goes_on_behind_its_last_entry(db: Database, run: Run) -> None:
    await factories.log(db, run, 3)
    async with db.write() as session:
        taken = await status.take_over(session, run.id, "another worker")
        assert taken is not None
        sequence = await begin(session, taken, "taken over", LogLevel.WARNING)
    recorder = Recorder(db, Broadcast(), taken, sequence, Mask())
    recorder.log("more")
    recorder.close()
    await recorder.write()
    assert [entry.sequence for entry in await log_of(db, run.id)] == [1, 2, 3, 4, 5]


async def test_progress_is_written_with_the_log(db: Database, run: Run) -> None:
    recorder = make(db, run)
    recorder.advance(0.5)
    recorder.close()
    await recorder.write()
    async with db.read() as session:
        assert (await session.get_one(Run, run.id)).progress == 0.5


async def test_nothing_is_written_once_somebody_else_holds_the_run(db: Database, run: Run) -> None:
    async with db.write() as session:
        await status.take_over(session, run.id, "another worker")
    recorder = make(db, run)
    recorder.log("from the dead")
    recorder.close()
    with pytest.raises(ClaimLost):
        await recorder.write()
    assert await log_of(db, run.id) == []


async def test_listeners_are_told_after_the_commit(db: Database, run: Run) -> None:
    broadcast = Broadcast()
    recorder = Recorder(db, broadcast, run, 0, Mask())
    with broadcast.listen(run.id) as listener:
        recorder.log("news")
        async with asyncio.TaskGroup() as group:
            group.create_task(recorder.write())
            async with asyncio.timeout(10):
                await listener.wait(60)
            assert len(await log_of(db, run.id)) == 1
            recorder.close()


# What makes writing entries fail as in a database that is unavailable, and what ends that.
UNAVAILABLE_SQLITE: dict[str, Any] = {
    "broken": ["ALTER TABLE log_entries RENAME TO gone"],
    "mended": "ALTER TABLE gone RENAME TO log_entries",
}
UNAVAILABLE_POSTGRESQL: dict[str, Any] = {
    "broken": [
        "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS "
        "$$BEGIN RAISE EXCEPTION 'no space left' USING ERRCODE = 'disk_full'; END$$",
        "CREATE TRIGGER fail BEFORE INSERT ON log_entries EXECUTE FUNCTION fail()",
    ],
    "mended": "DROP FUNCTION fail CASCADE",
}


async def test_a_database_that_fails_for_a_while_loses_no_entry(
    db: Database, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "RETRY_INTERVAL", 0.01)
    broken, mended = (UNAVAILABLE_SQLITE if db.is_sqlite else UNAVAILABLE_POSTGRESQL).values()
    async with db.write() as session:
        for statement in broken:
            await session.execute(text(statement))
    recorder = make(db, run)
    recorder.log("still here")
    async with asyncio.TaskGroup() as group:
        writing = group.create_task(recorder.write())
        recorder.close()
        failed = asyncio.Event()
        event.listen(db._writer.sync_engine, "handle_error", lambda _: failed.set())
        await failed.wait()
        assert not writing.done()
        async with db.write() as session:
            await session.execute(text(mended))
    assert [entry.message for entry in await log_of(db, run.id)] == ["still here"]


async def test_a_run_that_says_too_much_is_cut_short_but_its_errors_are_kept(db: Database, run: Run) -> None:
    recorder = make(db, run)
    for _ in range(MAX_ENTRIES + 5):
        recorder.log("chatter")
    recorder.log("x" * (MAX_MESSAGE + 1), level=LogLevel.ERROR)
    recorder.close()
    await recorder.write()
    entries = await log_of(db, run.id)
    assert len(entries) == MAX_ENTRIES + 2
    assert len(entries[-2].message) == MAX_MESSAGE
    assert entries[-1].message == "6 more lines were left out."


async def test_secrets_are_masked_before_they_are_stored(db: Database, run: Run) -> None:
    recorder = make(db, run, "hunter2-hunter2", "first line\nsecond line")
    recorder.log("password=hunter2-hunter2 and second line")
    recorder.close()
    await recorder.write()
    [entry] = await log_of(db, run.id)
    assert entry.message == "password=******** and ********"
