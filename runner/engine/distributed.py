"""The engine of several nodes that share a PostgreSQL: workers share a queue and take over the runs of lost workers."""

import asyncio
import logging
import random
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from db import models, status
from db.broadcast import Broadcast, Everything
from db.database import Database
from db.models import LogLevel, Run, RunStatus
from db.patience import RETRY_INTERVAL, UNAVAILABLE
from runner import record, store
from runner.engine.jobs import Queue
from runner.lease import SILENCE, Lease, LeaseLost, boottime
from runner.store import Capacity
from runner.tenure import Tenure
from runner.worker import Worker

logger = logging.getLogger(__name__)

SWEEP_INTERVAL = 5.0  # seconds between checks for lost workers and runs without a job
CANCEL_INTERVAL = 10.0  # seconds; a lost notification delays a cancel by at most this long
COMMIT_TIMEOUT = 3.0  # seconds until a worker knows that the database has committed its claim
LOST = "The worker of this run was lost."
UNKNOWN = "The worker lost its database connection while it was claiming this run."
_SWEEP_LOCK = 0x64616F77  # PostgreSQL's advisory locks are numbers


@dataclass(frozen=True)
class _Shift:
    """What a worker uses during one lease."""

    worker: Worker
    lease: Lease
    tenure: Tenure
    recovering: asyncio.TaskGroup  # recovers runs of lost workers


class DistributedEngine:
    """Queues runs for the workers of all nodes; with a `worker`, it also plays runs."""

    def __init__(
        self, db: Database, broadcast: Broadcast, worker: Worker | None, *, node: str, capacity: Capacity, lease: float
    ) -> None:
        """Create the engine of one node with its `capacity`; for `node` and `lease` (seconds) see `runner.lease`."""
        self._db = db
        self._broadcast = broadcast
        self._worker = worker
        self._node = node
        self._capacity = capacity
        self._lease_seconds = lease
        self._queue = Queue(db, capacity.per_host)
        self._draining = asyncio.Event()
        self._grace = 0.0
        self._ended = asyncio.Event()
        self._lease: Lease | None = None  # the most recent one
        self._begun = boottime()
        self._is_taking = False

    @property
    def ready(self) -> bool:
        if self._worker is None:
            return True
        return self._is_taking and self._queue.is_open and self._lease is not None and not self._lease.is_over

    @property
    def lag(self) -> float | None:
        if self._worker is None:
            return None
        return boottime() - self._begun if self._lease is None else self._lease.age

    async def capacity(self, session: AsyncSession) -> Capacity:
        living = models.Worker.seen_at > status.clock() - timedelta(seconds=SILENCE * self._lease_seconds)
        runs = await session.scalar(select(func.sum(models.Worker.max_runs)).where(living))
        return Capacity(runs or 0, self._capacity.per_host)

    async def enqueue(self, session: AsyncSession, run: Run) -> None:
        await self._queue.put(session, run)

    def wake(self) -> None:
        """Do nothing: the queue sends its own notification with the commit."""

    def cancel(self, run_id: UUID) -> None:
        if self._worker is not None:
            self._worker.cancel(run_id)
        self._broadcast.notify(Everything.CANCELS)

    async def serve(self) -> None:
        """Play runs from the queue, one lease after another; returns after `drain`."""
        try:
            if self._worker is None:
                await self._draining.wait()
                return
            await self._worker.clean()
            while not self._draining.is_set():
                try:
                    await self._work(self._worker)
                except* (LeaseLost, *UNAVAILABLE) as errors:
                    logger.warning("this worker is restarting: %s", "; ".join(map(str, errors.exceptions)))
                    await asyncio.sleep(RETRY_INTERVAL)
            await self._worker.leave()
        finally:
            self._ended.set()

    async def drain(self, grace: float) -> None:
        """Claim no more runs; those being played get `grace` seconds, and are then queued for other workers."""
        self._grace = grace
        self._is_taking = False
        self._draining.set()
        await self._ended.wait()

    async def _work(self, worker: Worker) -> None:
        """Acquire a lease, and play runs while it lasts.  Raises: LeaseLost, errors of `UNAVAILABLE`."""
        lease = Lease(self._db, self._node, self._capacity.runs, self._lease_seconds)
        await lease.begin()
        self._lease = lease
        tenure = Tenure(lease.worker, lease, self._queue.put_again)
        keeping = asyncio.create_task(lease.keep(worker.extend), name="lease")
        try:
            async with asyncio.TaskGroup() as recovering:
                await self._work_under(_Shift(worker, lease, tenure, recovering), keeping)
        finally:  # all runs that were held have ended, or are queued
            if not keeping.cancel() and not keeping.cancelled():
                keeping.exception()  # otherwise asyncio warns about it if another error propagates from here
        await lease.end()
        await asyncio.wait({keeping})
        if not keeping.cancelled():
            keeping.result()

    async def _work_under(self, shift: _Shift, keeping: asyncio.Task[None]) -> None:
        """Play runs until the lease is lost or this is drained; returns when no run is being played."""
        worker = shift.worker

        async def play(run_id: UUID) -> None:
            await worker.play(run_id, shift.tenure)

        playing = asyncio.create_task(self._queue.work(self._capacity.runs, play), name="queue")
        others = {
            asyncio.create_task(self._sweep(shift), name="sweep"),
            asyncio.create_task(self._watch_cancels(shift), name="cancels"),
            asyncio.create_task(self._draining.wait(), name="drain"),
        }
        self._is_taking = not self._draining.is_set()
        try:
            await asyncio.wait({keeping, playing, *others}, return_when=asyncio.FIRST_COMPLETED)
            playing.cancel()  # it claims no more runs
            if self._draining.is_set() and not keeping.done():
                await asyncio.wait({keeping, playing}, timeout=self._grace, return_when=asyncio.FIRST_COMPLETED)
                worker.stop()
            else:
                worker.abandon()
            await asyncio.wait({playing})
        finally:
            self._is_taking = False
            for task in (playing, *others):
                task.cancel()
        for task in await _ended(playing, *others):
            task.result()

    async def _sweep(self, shift: _Shift) -> None:
        """Check periodically for the runs of lost workers, and take them over."""
        lease = shift.lease
        await self._take_over(shift, self._node)  # an earlier worker of this node is dead
        since: dict[UUID, float] = {}
        while True:
            try:
                async with self._db.read() as session:
                    backlog = await store.backlog(session, lease.silence, self._queue.needs_repair)
                    held = await store.held(session, lease.worker)
                # Claims whose connection broke after the commit, so that this worker does not know of them.
                since = {run_id: since.get(run_id, boottime()) for run_id in held - shift.worker.runs}
                unknown = {run_id for run_id, beginning in since.items() if boottime() > beginning + COMMIT_TIMEOUT}
                if backlog.lost or unknown:
                    await self._take_over(shift, unknown=unknown)
                if backlog.needs_repair:
                    await self._repair()
            except UNAVAILABLE as error:
                logger.warning("the queue cannot be checked, trying again: %s", error)
            # Random, so that the nodes do not check at the same time.
            await asyncio.sleep(SWEEP_INTERVAL * random.uniform(0.8, 1.2))  # noqa: S311

    async def _take_over(self, shift: _Shift, node: str | None = None, unknown: Collection[UUID] = ()) -> None:
        """Take over the runs of lost workers, and those that this one does not know of, and find out how they ended."""
        lease = shift.lease
        async with self._db.write() as session:
            runs = await status.take_lost(
                session, lease.worker, lease.seconds, lease.silence, node=node, unknown=unknown
            )
            taken = [
                (run, await record.begin(session, run, UNKNOWN if run.id in unknown else LOST, LogLevel.WARNING))
                for run in runs
            ]
            await self._queue.forget(session, [run.id for run in runs])
        for run, sequence in taken:
            logger.warning("run %s is taken over from a lost worker", run.id)
            recovery = shift.worker.recover_taken(run, sequence, shift.tenure)
            shift.recovering.create_task(recovery, name=f"run {run.id}")

    async def _repair(self) -> None:
        """Queue the runs that should be in the queue and are not, such as those of lost workers."""
        async with self._db.write() as session:
            if not await session.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _SWEEP_LOCK}):
                return  # another node does it
            for run_id in await self._queue.repair(session):
                await self._queue.put(session, await session.get_one(Run, run_id))

    async def _watch_cancels(self, shift: _Shift) -> None:
        """Interrupt runs of this worker that were canceled, on any node."""
        wanted = select(Run.id).where(
            Run.status == RunStatus.RUNNING, Run.worker == shift.lease.worker, Run.cancel_requested_at.is_not(None)
        )
        with self._broadcast.listen(Everything.CANCELS) as listener:
            while True:
                await listener.wait(CANCEL_INTERVAL)
                try:
                    async with self._db.read() as session:
                        canceled = list(await session.scalars(wanted))
                except UNAVAILABLE as error:
                    logger.warning("cancels cannot be read, trying again: %s", error)
                    await asyncio.sleep(RETRY_INTERVAL)
                    listener.notify()
                    continue
                for run_id in canceled:
                    shift.worker.cancel(run_id)


async def _ended(*tasks: asyncio.Task[Any]) -> list[asyncio.Task[Any]]:
    """Wait for the tasks, which were canceled, and return those that have ended otherwise."""
    await asyncio.wait(tasks)
    return [task for task in tasks if not task.cancelled()]
