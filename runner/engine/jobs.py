"""The queue that several workers share: procrastinate's, in tables that our migrations create.

It delivers each queued run to one worker at a time, soon, and at least once.  It does not record who holds a run or how
the run ended: see `db.status`.  A run's job is created in the transaction that queues the run, with the run's id as
`queueing_lock`.  Its `lock` is one of a fixed number per host, which limits how many runs are played there at once.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import procrastinate
from procrastinate.exceptions import ConnectorException, ProcrastinateException
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    DateTime,
    Enum,
    Select,
    Text,
    and_,
    cast,
    column,
    delete,
    exists,
    func,
    not_,
    or_,
    select,
    table,
)
from sqlalchemy.ext.asyncio import AsyncSession

from db import status
from db.database import Database
from db.models import Deployment, Run, RunStatus
from db.patience import RETRY_INTERVAL, Unavailable

logger = logging.getLogger(__name__)

TASK, QUEUE = "daos.play", "runs"
POLL_INTERVAL = 5.0  # seconds; a lost notification delays a job by at most this long
BEAT_INTERVAL, SILENCE = 5.0, 15.0  # seconds between a worker's heartbeats, and without one until its jobs are lost

_STATUS = Enum("todo", "doing", name="procrastinate_job_status")
_job = table(
    "procrastinate_jobs",
    column("id", BigInteger),
    column("queue_name", Text),
    column("lock", Text),
    column("queueing_lock", Text),
    column("status", _STATUS),
    column("worker_id", BigInteger),
)
_worker = table("procrastinate_workers", column("id", BigInteger), column("last_heartbeat", DateTime(timezone=True)))


class Queue:
    """The queue in one PostgreSQL database."""

    def __init__(self, db: Database, per_host: int) -> None:
        """Create the queue; at most `per_host` runs are played at the same time on one host."""
        self._per_host = per_host
        self._conninfo = db.conninfo.reveal()
        self._app = self._make_app()
        self.is_open = False  # whether jobs are being fetched from it

    async def put(self, session: AsyncSession, run: Run) -> None:
        """Queue the run, in the transaction that moves it to QUEUED.  Raises: Unavailable."""
        host = str(await session.scalar(select(Deployment.host_id).where(Deployment.id == run.deployment_id)))
        at_host = _job.c.lock.startswith(f"{host}/"), _job.c.status.in_(["todo", "doing"])
        counts = select(_job.c.lock, func.count()).where(*at_host).group_by(_job.c.lock)
        taken: dict[str, int] = {lock: count for lock, count in await session.execute(counts)}  # noqa: C416 - typed
        places = [f"{host}/{number}" for number in range(self._per_host)]
        connection = (await (await session.connection()).get_raw_connection()).driver_connection
        job = self._app.configure_task(
            TASK,
            allow_unknown=True,
            queue=QUEUE,
            lock=min(places, key=lambda place: taken.get(place, 0)),
            queueing_lock=str(run.id),
            priority=run.priority,
            connection=connection,
        )
        try:
            await job.defer_async(run_id=str(run.id))
        except ConnectorException as error:
            raise Unavailable from error

    async def put_again(self, session: AsyncSession, run: Run) -> None:
        """Queue a run that was queued before, and delete a job of it that still waits and would block the new one."""
        waiting = _job.c.queueing_lock == str(run.id), _job.c.status == "todo"
        await session.execute(delete(_job).where(*waiting))
        await self.put(session, run)

    async def forget(self, session: AsyncSession, run_ids: Iterable[UUID]) -> None:
        """Delete the jobs of runs that no longer belong in this queue, so that others can have their places."""
        if names := [str(run_id) for run_id in run_ids]:
            await session.execute(delete(_job).where(_job.c.queueing_lock.in_(names)))

    @property
    def needs_repair(self) -> ColumnElement[bool]:
        """An expression that is true if there is something to `repair`."""
        return or_(_unqueued().exists(), _lost().exists())

    async def repair(self, session: AsyncSession) -> list[UUID]:
        """Delete the jobs of lost workers, and return the queued runs that have no job."""
        await session.execute(delete(_job).where(_job.c.id.in_(_lost())))
        return list(await session.scalars(_unqueued()))

    async def work(self, concurrency: int, play: Callable[[UUID], Awaitable[None]]) -> None:
        """Play at most `concurrency` runs at a time; when canceled, it ends after those that are being played."""

        async def do(run_id: str) -> None:
            await play(UUID(run_id))

        app = self._make_app()
        app.task(name=TASK, queue=QUEUE)(do)
        while True:
            try:
                async with _opened(app), self._open():
                    await app.run_worker_async(
                        queues=[QUEUE],
                        concurrency=concurrency,
                        install_signal_handlers=False,
                        delete_jobs="always",
                        fetch_job_polling_interval=POLL_INTERVAL,
                        abort_job_polling_interval=3600.0,  # cancels do not use procrastinate
                        update_heartbeat_interval=BEAT_INTERVAL,
                        stalled_worker_timeout=SILENCE,
                    )
            except (ProcrastinateException, OSError) as error:
                working = asyncio.current_task()
                if working is not None and working.cancelling():  # procrastinate's shutdown failed, which hides that
                    raise asyncio.CancelledError from error
                logger.warning("the queue cannot be reached, trying again: %s", error)
            await asyncio.sleep(RETRY_INTERVAL)

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[None]:
        self.is_open = True
        try:
            yield
        finally:
            self.is_open = False

    def _make_app(self) -> procrastinate.App:
        connector = procrastinate.PsycopgConnector(conninfo=self._conninfo, min_size=1, max_size=4, timeout=5.0)
        return procrastinate.App(connector=connector)


@asynccontextmanager
async def _opened(app: procrastinate.App) -> AsyncIterator[None]:
    try:
        await app.open_async()  # leaves a pool behind if it fails
        yield
    finally:
        await app.close_async()


def _living() -> ColumnElement[bool]:
    """Return a condition: a job waits, or belongs to a worker that is alive."""
    since = status.clock() - timedelta(seconds=SILENCE)
    living = exists().where(_worker.c.id == _job.c.worker_id, _worker.c.last_heartbeat > since)
    return or_(_job.c.status == "todo", and_(_job.c.status == "doing", living))


def _lost() -> Select[Any]:
    """Select the jobs without a live worker, except those of RUNNING runs: their lost holders are found otherwise."""
    playing = exists().where(cast(Run.id, Text) == _job.c.queueing_lock, Run.status == RunStatus.RUNNING)
    return select(_job.c.id).where(_job.c.queue_name == QUEUE, not_(_living()), not_(playing))


def _unqueued() -> Select[UUID]:
    """Select the queued runs that have no job."""
    # One subquery, which PostgreSQL hashes whatever its statistics are; a correlated one may scan all jobs for each run
    # if many runs were queued since the last ANALYZE.
    queued = select(_job.c.queueing_lock).where(_job.c.queueing_lock.is_not(None), _living())
    return select(Run.id).where(Run.status == RunStatus.QUEUED, cast(Run.id, Text).not_in(queued))
