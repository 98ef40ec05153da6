"""The right to hold runs."""

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from db.database import Database
from db.models import Run, RunStatus
from runner.lease import Lease
from runner.tenure import MAX_CLAIMS, Tenure
from tests import factories


async def nothing(session: AsyncSession, run: Run) -> None:
    """Queue a run nowhere."""


async def test_without_a_lease_it_lasts_and_claims(sqlite_db: Database) -> None:
    tenure = Tenure("worker-1")
    run = await factories.run(sqlite_db)
    assert (tenure.deadline, tenure.is_over) == (None, False)
    async with sqlite_db.write() as session:
        claimed = await tenure.claim(session, run.id)
        assert claimed is not None
        assert (claimed.worker, claimed.status) == ("worker-1", RunStatus.RUNNING)
        assert await tenure.claim(session, run.id) is None


async def test_with_a_lease_it_is_over_with_that(postgresql_db: Database) -> None:
    lease = Lease(postgresql_db, "node", 1, 10.0)
    tenure = Tenure(lease.worker, lease)
    run = await factories.run(postgresql_db)
    assert tenure.is_over
    async with postgresql_db.write() as session:
        assert await tenure.claim(session, run.id) is None  # the database does not know the worker
    await lease.begin()
    assert not tenure.is_over
    assert tenure.deadline == lease.deadline
    async with postgresql_db.write() as session:
        assert await tenure.claim(session, run.id) is not None
    await lease.end()
    assert tenure.is_over


@pytest.mark.parametrize(("epoch", "may"), [(1, True), (MAX_CLAIMS - 1, True), (MAX_CLAIMS, False)])
async def test_a_run_may_be_queued_again_until_it_was_claimed_too_often(epoch: int, may: bool) -> None:
    run = Run(epoch=epoch)
    assert Tenure("worker-1", requeue=nothing).may_requeue(run) is may
    assert not Tenure("worker-1").may_requeue(run)


async def test_a_run_is_queued_again_where_it_is_still_held(sqlite_db: Database) -> None:
    tenure = Tenure("worker-1", requeue=nothing)
    run = await factories.run(sqlite_db)
    async with sqlite_db.write() as session:
        claimed = await tenure.claim(session, run.id)
        assert claimed is not None
        assert await tenure.requeue(session, claimed)
        assert not await tenure.requeue(session, claimed)
    async with sqlite_db.read() as session:
        assert (await session.get_one(Run, run.id)).status is RunStatus.QUEUED
