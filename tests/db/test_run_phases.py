"""The phases of a run say what was played, when, and how it ended."""

from datetime import datetime, timedelta

import pytest
from sqlalchemy import select, text

from db import run_phases, status
from db.database import Database
from db.models import Run, RunAction, RunPhase, RunStatus
from db.phase import Phase, PhaseOutcome
from db.run_phases import PhaseChange
from tests import factories
from tests.factories import LONG_AGO

PREPARE, BUILD, PULL, UP, VERIFY, DOWN, HALT, RECOVER = Phase
OK, FAILED, SKIPPED = PhaseOutcome

Shown = tuple[Phase | None, int | None, int | None, PhaseOutcome | None]


@pytest.fixture
async def run(db: Database) -> Run:
    """A run that is being played."""
    return await factories.run(db, to=RunStatus.RUNNING)


def _at(second: int) -> datetime:
    return LONG_AGO + timedelta(seconds=second)


async def _record(db: Database, run: Run, *changes: tuple[Phase, int, PhaseOutcome | None]) -> None:
    async with db.write() as session:
        assert await status.advance(session, run.id, run.epoch, 0.5)
        await run_phases.record(session, run.id, run.action, [PhaseChange(*_timed(change)) for change in changes])


def _timed(change: tuple[Phase, int, PhaseOutcome | None]) -> tuple[Phase, datetime, PhaseOutcome | None]:
    return change[0], _at(change[1]), change[2]


async def _finish(db: Database, run: Run, to: RunStatus) -> None:
    async with db.write() as session:
        assert await status.finish(session, run.id, run.epoch, factories.end(to))


async def _shown(db: Database, run: Run) -> list[Shown]:
    """The phases with their times in seconds; -1 is the end of the run."""
    async with db.read() as session:
        finished_at = await session.scalar(select(Run.finished_at).where(Run.id == run.id))
        rows = list(await session.scalars(select(RunPhase).order_by(RunPhase.position)))

    def seconds(at: datetime | None) -> int | None:
        if at is None:
            return None
        return -1 if at == finished_at else int((at - LONG_AGO).total_seconds())

    return [(row.phase, seconds(row.started_at), seconds(row.finished_at), row.outcome) for row in rows]


async def test_a_queued_run_and_one_that_begins_have_no_phases(db: Database) -> None:
    run = await factories.run(db)
    assert await _shown(db, run) == []
    async with db.write() as session:
        assert await status.claim(session, run.id, "worker")
    assert await _shown(db, run) == []


async def test_phases_are_listed_when_they_begin_and_when_they_are_skipped(db: Database, run: Run) -> None:
    await _record(db, run, (PREPARE, 1, None))
    await _record(db, run, (PREPARE, 2, OK), (BUILD, 2, OK), (PULL, 3, None), (PULL, 5, OK), (UP, 6, None))
    assert await _shown(db, run) == [
        (PREPARE, 1, 2, OK), (BUILD, None, None, SKIPPED), (PULL, 3, 5, OK), (UP, 6, None, None),
    ]  # fmt: skip
    await _record(db, run, (UP, 7, OK), (VERIFY, 7, None), (VERIFY, 9, OK))
    await _finish(db, run, RunStatus.SUCCESS)
    assert (await _shown(db, run))[3:] == [(UP, 6, 7, OK), (VERIFY, 7, 9, OK)]


async def test_a_phase_that_fails_before_it_was_announced_has_one_time(db: Database, run: Run) -> None:
    await _record(db, run, (PREPARE, 1, FAILED))
    assert await _shown(db, run) == [(PREPARE, 1, 1, FAILED)]


@pytest.mark.parametrize(
    ("to", "outcome"), [(RunStatus.SUCCESS, OK), (RunStatus.FAILED, FAILED), (RunStatus.CANCELED, FAILED)]
)
async def test_the_end_of_a_run_ends_its_open_phase_and_skips_the_rest(
    db: Database, run: Run, to: RunStatus, outcome: PhaseOutcome
) -> None:
    await _record(db, run, (PREPARE, 1, None), (PREPARE, 2, OK), (UP, 3, None))
    await _record(db, run, (RECOVER, 4, None), (RECOVER, 5, OK))
    await _finish(db, run, to)
    assert await _shown(db, run) == [
        (PREPARE, 1, 2, OK), (BUILD, None, None, SKIPPED), (PULL, None, None, SKIPPED), (UP, 3, -1, outcome),
        (VERIFY, None, None, SKIPPED), (RECOVER, 4, 5, OK),
    ]  # fmt: skip


async def test_a_phase_whose_failure_was_none_has_not_failed_in_the_end(db: Database, run: Run) -> None:
    await _record(db, run, (UP, 1, None), (UP, 2, FAILED), (RECOVER, 4, None), (RECOVER, 5, OK))
    await _finish(db, run, RunStatus.SUCCESS)
    assert (UP, 1, 2, OK) in await _shown(db, run)


@pytest.mark.parametrize(("action", "skipped"), [(RunAction.UP, 5), (RunAction.DOWN, 1)])
async def test_a_run_that_is_canceled_before_it_began_has_skipped_all(
    db: Database, action: RunAction, skipped: int
) -> None:
    run = await factories.run(db, action=action)
    async with db.write() as session:
        assert await status.cancel_queued(session, run.id)
    assert [outcome for *_, outcome in await _shown(db, run)] == [SKIPPED] * skipped


async def test_a_run_that_is_queued_again_starts_its_phases_from_the_beginning(db: Database, run: Run) -> None:
    await _record(db, run, (PREPARE, 1, None), (RECOVER, 2, None))
    async with db.write() as session:
        assert await status.hand_back(session, run.id, run.epoch)
    assert await _shown(db, run) == []


async def test_a_hand_back_of_a_lost_claim_keeps_the_phases(db: Database, run: Run) -> None:
    await _record(db, run, (PREPARE, 1, None))
    async with db.write() as session:
        await status.take_over(session, run.id, "another")
        assert not await status.hand_back(session, run.id, run.epoch)
    assert await _shown(db, run) == [(PREPARE, 1, None, None)]


async def test_a_phase_that_is_played_again_has_its_last_times(db: Database, run: Run) -> None:
    await _record(db, run, (HALT, 1, None), (RECOVER, 2, None), (RECOVER, 3, FAILED))
    await _record(db, run, (RECOVER, 7, None))
    assert await _shown(db, run) == [(HALT, 1, None, None), (RECOVER, 7, None, None)]


async def test_phases_that_are_not_known_stay_as_they_are(db: Database, run: Run) -> None:
    await _record(db, run, (RECOVER, 1, None))
    async with db.write() as session:
        await session.execute(text("UPDATE run_phases SET phase = 'WASH', outcome = 'CLEAN'"))
    await _record(db, run, (RECOVER, 2, None), (RECOVER, 3, OK))
    assert await _shown(db, run) == [(None, 1, None, None), (RECOVER, 2, 3, OK)]
    async with db.read() as session:
        assert "WASH" in list(await session.scalars(text("SELECT phase FROM run_phases")))
