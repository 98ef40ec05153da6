"""The engine of many nodes over one PostgreSQL: workers share a queue, and what one leaves, another goes on with."""

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

SWEEP_INTERVAL = 5.0  # seconds between looks for lost workers and runs without a job
LOOK_INTERVAL = 10.0  # seconds; news of a cancel that is lost costs no more than this
NEWS_TIMEOUT = 3.0  # seconds until a worker knows that the database has taken its claim
LOST = "The worker of this run was lost."
UNKNOWN = "The worker of this run had lost the database as it took it."
_SWEEP_LOCK = 0x64616F77  # PostgreSQL's advisory locks are numbers


@dataclass(frozen=True)
class _Shift:
    """What a worker works with as long as one lease lasts."""

    worker: Worker
    lease: Lease
    tenure: Tenure
    recovering: asyncio.TaskGroup  # of runs that lost workers have left


class DistributedEngine:
    """Queues runs for the workers of all nodes; with a `worker` it plays some of them itself."""

    def __init__(
        self, db: Database, broadcast: Broadcast, worker: Worker | None, *, node: str, capacity: Capacity, lease: float
    ) -> None:
        """`node` and `lease`, in seconds: see `runner.lease`; `capacity` is this node's own."""
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
        self._lease: Lease | None = None  # the last one that has begun
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
        """Nothing to do: the queue's own notification comes with the commit."""

    def cancel(self, run_id: UUID) -> None:
        if self._worker is not None:
            self._worker.cancel(run_id)
        self._broadcast.notify(Everything.CANCELS)

    async def serve(self) -> None:
        """Play runs of the queue, one lease after the other; returns after `drain`."""
        try:
            if self._worker is None:
                await self._draining.wait()
                return
            await self._worker.clean()
            while not self._draining.is_set():
                try:
                    await self._work(self._worker)
                except* (LeaseLost, *UNAVAILABLE) as errors:
                    logger.warning("this worker starts again: %s", "; ".join(map(str, errors.exceptions)))
                    await asyncio.sleep(RETRY_INTERVAL)
            await self._worker.leave()
        finally:
            self._ended.set()

    async def drain(self, grace: float) -> None:
        """Take no more runs; those being played get `grace` seconds, and are then queued for other workers."""
        self._grace = grace
        self._is_taking = False
        self._draining.set()
        await self._ended.wait()

    async def _work(self, worker: Worker) -> None:
        """Hold a lease, and play runs while it lasts.  Raises: LeaseLost, errors of `UNAVAILABLE`."""
        lease = Lease(self._db, self._node, self._capacity.runs, self._lease_seconds)
        await lease.begin()
        self._lease = lease
        tenure = Tenure(lease.worker, lease, self._queue.put_again)
        keeping = asyncio.create_task(lease.keep(worker.extend), name="lease")
        try:
            async with asyncio.TaskGroup() as recovering:
                await self._work_under(_Shift(worker, lease, tenure, recovering), keeping)
        finally:  # all that was held has ended, or is queued
            if not keeping.cancel() and not keeping.cancelled():
                keeping.exception()  # or asyncio complains, where another error goes on from here
        await lease.end()
        await asyncio.wait({keeping})
        if not keeping.cancelled():
            keeping.result()

    async def _work_under(self, shift: _Shift, keeping: asyncio.Task[None]) -> None:
        """Play runs until the lease is lost, or until this is drained; returns when none is played any more."""
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
            playing.cancel()  # takes no more
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
        """Look again and again for what lost workers have left, and take it over."""
        lease = shift.lease
        await self._take(shift, self._node)  # whoever had this node before is dead
        since: dict[UUID, float] = {}
        while True:
            try:
                async with self._db.read() as session:
                    look = await store.look(session, lease.silence, self._queue.astray)
                    held = await store.held(session, lease.worker)
                # Claims whose commit was the last thing that a connection did.
                since = {run_id: since.get(run_id, boottime()) for run_id in held - shift.worker.runs}
                unknown = {run_id for run_id, beginning in since.items() if boottime() > beginning + NEWS_TIMEOUT}
                if look.lost or unknown:
                    await self._take(shift, unknown=unknown)
                if look.astray:
                    await self._repair()
            except UNAVAILABLE as error:
                logger.warning("the queue cannot be looked through, trying again: %s", error)
            # Not all nodes at the same moment.
            await asyncio.sleep(SWEEP_INTERVAL * random.uniform(0.8, 1.2))  # noqa: S311

    async def _take(self, shift: _Shift, node: str | None = None, unknown: Collection[UUID] = ()) -> None:
        """Take the runs of lost workers, and those that this one does not know of, and find out how they ended."""
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
            logger.warning("run %s was left by a worker that was lost", run.id)
            recovery = shift.worker.recover_taken(run, sequence, shift.tenure)
            shift.recovering.create_task(recovery, name=f"run {run.id}")

    async def _repair(self) -> None:
        """Queue the runs that are to be played and are not in the queue, as those of lost workers."""
        async with self._db.write() as session:
            if not await session.scalar(text("SELECT pg_try_advisory_xact_lock(:key)"), {"key": _SWEEP_LOCK}):
                return  # another node does it
            for run_id in await self._queue.repair(session):
                await self._queue.put(session, await session.get_one(Run, run_id))

    async def _watch_cancels(self, shift: _Shift) -> None:
        """End runs of this worker that somebody has canceled, at whichever node."""
        wanted = select(Run.id).where(
            Run.status == RunStatus.RUNNING, Run.worker == shift.lease.worker, Run.cancel_requested_at.is_not(None)
        )
        with self._broadcast.listen(Everything.CANCELS) as listener:
            while True:
                await listener.wait(LOOK_INTERVAL)
                try:
                    async with self._db.read() as session:
                        canceled = list(await session.scalars(wanted))
                except UNAVAILABLE as error:
                    logger.warning("cancels cannot be looked for, trying again: %s", error)
                    await asyncio.sleep(RETRY_INTERVAL)
                    listener.notify()
                    continue
                for run_id in canceled:
                    shift.worker.cancel(run_id)


async def _ended(*tasks: asyncio.Task[Any]) -> list[asyncio.Task[Any]]:
    """The tasks, which were cancelled, without those that have ended by that."""
    await asyncio.wait(tasks)
    return [task for task in tasks if not task.cancelled()]
