"""The queue that several workers share: procrastinate's, in the tables that the migrations make beside our own.

It says "play this run now", to one worker at a time, soon, and at least once.  Who holds a run, and how it ended, is
not its business: see `db.status`.  A run's job is made in the transaction that queues the run, and bears its id as
`queueing_lock`.  Its `lock` is one of a few of its host's, so that no more runs than that are played there at once.
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
POLL_INTERVAL = 5.0  # seconds; news of a job that is lost costs no more than this
BEAT_INTERVAL, SILENCE = 5.0, 15.0  # seconds between a worker's signs of life, and until its jobs count as lost

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
    """The queue of one database, a PostgreSQL."""

    def __init__(self, db: Database, per_host: int) -> None:
        """Let `per_host` runs be played at once on one host."""
        self._per_host = per_host
        self._conninfo = db.conninfo.reveal()
        self._app = self._make_app()
        self.is_open = False  # whether jobs are being taken from it

    async def put(self, session: AsyncSession, run: Run) -> None:
        """Queue the run, in the transaction that makes it one of those to be played.  Raises: Unavailable."""
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
        """Queue a run that was queued before: a second job of it may still wait, which would keep this one out."""
        waiting = _job.c.queueing_lock == str(run.id), _job.c.status == "todo"
        await session.execute(delete(_job).where(*waiting))
        await self.put(session, run)

    async def forget(self, session: AsyncSession, run_ids: Iterable[UUID]) -> None:
        """Drop the jobs of runs that are not this queue's business any more: others wait for their places."""
        if names := [str(run_id) for run_id in run_ids]:
            await session.execute(delete(_job).where(_job.c.queueing_lock.in_(names)))

    @property
    def astray(self) -> ColumnElement[bool]:
        """Whether there is something to `repair`."""
        return or_(_unqueued().exists(), _lost().exists())

    async def repair(self, session: AsyncSession) -> list[UUID]:
        """Drop jobs whose workers are lost, and give the runs that are to be played and have no job."""
        await session.execute(delete(_job).where(_job.c.id.in_(_lost())))
        return list(await session.scalars(_unqueued()))

    async def work(self, concurrency: int, play: Callable[[UUID], Awaitable[None]]) -> None:
        """Play so many runs at a time, until this is cancelled; then it ends with those that are being played."""

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
                        abort_job_polling_interval=3600.0,  # cancels do not go this way
                        update_heartbeat_interval=BEAT_INTERVAL,
                        stalled_worker_timeout=SILENCE,
                    )
            except (ProcrastinateException, OSError) as error:
                working = asyncio.current_task()
                if working is not None and working.cancelling():  # procrastinate's farewell has failed, and hides that
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
        await app.open_async()  # leaves a pool behind where it fails
        yield
    finally:
        await app.close_async()


def _living() -> ColumnElement[bool]:
    """Whether a job waits, or is a living worker's."""
    since = status.clock() - timedelta(seconds=SILENCE)
    living = exists().where(_worker.c.id == _job.c.worker_id, _worker.c.last_heartbeat > since)
    return or_(_job.c.status == "todo", and_(_job.c.status == "doing", living))


def _lost() -> Select[Any]:
    """The jobs that nobody works at, but for those of runs that are somebody's, who was not lost or will be found."""
    playing = exists().where(cast(Run.id, Text) == _job.c.queueing_lock, Run.status == RunStatus.RUNNING)
    return select(_job.c.id).where(_job.c.queue_name == QUEUE, not_(_living()), not_(playing))


def _unqueued() -> Select[UUID]:
    """The runs that are to be played and have no job."""
    # All at once, which PostgreSQL hashes whatever it thinks of the tables; asked for each run, it may go through all
    # jobs each time where many runs were queued since it has last counted.
    queued = select(_job.c.queueing_lock).where(_job.c.queueing_lock.is_not(None), _living())
    return select(Run.id).where(Run.status == RunStatus.QUEUED, cast(Run.id, Text).not_in(queued))
