"""The queue that workers share, where its database goes away."""

import asyncio
from uuid import UUID

from sqlalchemy import make_url, text

from db.database import Database
from db.models import RunStatus
from runner.engine.jobs import Queue
from tests import factories
from tests.support.relay import relay


async def test_work_ends_when_it_is_cancelled_while_the_database_is_away(postgresql_db: Database) -> None:
    async def play(_run_id: UUID) -> None: ...

    url = make_url(postgresql_db.url)
    assert url.port is not None
    async with relay("127.0.0.1", url.port) as between:
        there = url.set(port=between.port).render_as_string(hide_password=False)
        async with factories.database(there, postgresql_db.keyring) as db, asyncio.timeout(40):
            working = asyncio.create_task(Queue(db, 1).work(1, play))
            while not await _workers(postgresql_db):  # noqa: ASYNC110 - it is procrastinate that begins
                await asyncio.sleep(0.02)
            between.refuse()
            between.close()
            working.cancel()
            await asyncio.wait({working}, timeout=20)
            assert working.cancelled()


async def _workers(db: Database) -> int:
    async with db.read() as session:
        return await session.scalar(text("SELECT count(*) FROM procrastinate_workers")) or 0


async def test_a_run_whose_job_still_waits_can_be_queued_again(postgresql_db: Database) -> None:
    run = await factories.run(postgresql_db, to=RunStatus.QUEUED)
    queue = Queue(postgresql_db, 1)
    for put in (queue.put, queue.put_again, queue.put_again):
        async with postgresql_db.write() as session:
            await put(session, run)
    async with postgresql_db.read() as session:
        jobs = (await session.execute(text("SELECT queueing_lock, status FROM procrastinate_jobs"))).all()
    assert [tuple(job) for job in jobs] == [(str(run.id), "todo")]
