"""The engine of a single server: it plays runs in its own process, and the table of runs is the queue."""

import asyncio
import logging
import secrets
import socket
import time
from collections.abc import Coroutine
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from db.database import Database
from db.models import Run
from db.patience import RETRY_INTERVAL, UNAVAILABLE
from runner import store
from runner.store import Capacity
from runner.tenure import Tenure
from runner.worker import Worker

logger = logging.getLogger(__name__)

POLL_INTERVAL = 5.0  # seconds; a missed wake delays a run by at most this long


class EmbeddedEngine:
    """Plays runs in this process; the table of runs is the queue."""

    def __init__(self, db: Database, worker: Worker, concurrency: int, per_host: int = 4) -> None:
        """Play at most `concurrency` runs at the same time, `per_host` of them on one host."""
        self._db = db
        self._worker = worker
        self._tenure = Tenure(f"{socket.gethostname()}/{secrets.token_hex(4)}")
        self._capacity = Capacity(concurrency, per_host)  # fewer per host, so that one that hangs does not block others
        self._plays: dict[UUID, asyncio.Task[None]] = {}
        self._hosts: dict[UUID, UUID] = {}  # of the runs in _plays
        self._woken = asyncio.Event()
        self._draining = False
        self._polled = time.monotonic()
        self.ready = False  # whether runs are being claimed from the queue

    async def capacity(self, session: AsyncSession) -> Capacity:
        return self._capacity

    async def enqueue(self, session: AsyncSession, run: Run) -> None:
        """Do nothing: the row of the queued run is its entry in the queue."""

    def wake(self) -> None:
        self._woken.set()

    def cancel(self, run_id: UUID) -> None:
        self._worker.cancel(run_id)

    @property
    def lag(self) -> float:
        return time.monotonic() - self._polled

    @property
    def active(self) -> int:
        """The number of runs that are being played."""
        return len(self._plays)

    async def serve(self) -> None:
        """Recover what a killed server left, then play the queue; returns after `drain`."""
        await self._worker.clean()
        async with asyncio.TaskGroup() as group:
            async with self._db.read() as session:
                orphans = await store.running(session)
            for run_id, host_id in orphans.items():
                self._begin(group, run_id, host_id, self._recover(run_id))
            self.ready = True
            while not self._draining:
                self._woken.clear()
                await self._fill(group)
                await self._wait(POLL_INTERVAL)
        await self._worker.leave()

    async def drain(self, grace: float) -> None:
        """Begin no more runs; give those being played `grace` seconds, then interrupt them and wait for their end."""
        self._draining = True
        self.ready = False
        self._woken.set()
        plays = list(self._plays.values())
        if plays:
            runs = "1 run" if len(plays) == 1 else f"{len(plays)} runs"
            logger.info("waiting up to %g s for %s to end before interrupting", grace, runs)
            await asyncio.wait(plays, timeout=grace)
        self._worker.stop()
        if self._plays:
            await asyncio.wait(list(self._plays.values()))

    async def _fill(self, group: asyncio.TaskGroup) -> None:
        """Begin as many queued runs as the capacity allows."""
        room = self._capacity.runs - len(self._plays)
        if room <= 0:
            self._polled = time.monotonic()
            return
        try:
            async with self._db.read() as session:
                queued = await store.queued(session, self._hosts, room, self._capacity.per_host)
        except UNAVAILABLE as error:
            logger.warning("the queue cannot be read, trying again: %s", error)
            return
        self._polled = time.monotonic()
        # If `drain` was called while the queue was read, the runs stay queued.
        for run_id, host_id in queued.items() if not self._draining else ():
            self._begin(group, run_id, host_id, self._play(run_id))

    def _begin(self, group: asyncio.TaskGroup, run_id: UUID, host_id: UUID, play: Coroutine[None, None, None]) -> None:
        task = group.create_task(play, name=f"run {run_id}")
        self._plays[run_id] = task
        self._hosts[run_id] = host_id
        task.add_done_callback(lambda _: self._end(run_id))

    def _end(self, run_id: UUID) -> None:
        del self._plays[run_id], self._hosts[run_id]
        self._woken.set()

    async def _play(self, run_id: UUID) -> None:
        try:
            await self._worker.play(run_id, self._tenure)
        except Exception:  # a failure of one run must not end the others
            logger.exception("run %s could not be claimed, trying again", run_id)
            await asyncio.sleep(RETRY_INTERVAL)

    async def _recover(self, run_id: UUID) -> None:
        while True:
            try:
                return await self._worker.recover(run_id, self._tenure)
            except Exception:  # a run that is not recovered would be shown as running forever
                logger.exception("run %s could not be recovered, trying again", run_id)
                await asyncio.sleep(RETRY_INTERVAL)

    async def _wait(self, timeout: float) -> None:  # noqa: ASYNC109 - the queue is read again either way
        try:
            async with asyncio.timeout(timeout):
                await self._woken.wait()
        except TimeoutError:
            pass
