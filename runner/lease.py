"""A worker's lease, by which it may hold runs when several workers share a database.

At every heartbeat, a worker stores the time of the database's clock.  It may hold runs for `seconds` after a heartbeat
that reached the database, counted from before the heartbeat was sent, on a clock that includes suspension.  When that
time is over, its plays end by themselves, even if the worker itself is frozen.  Other workers consider it lost only
after `silence`, which leaves a play the time to end: no run is ever played twice at the same time.
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable
from uuid import uuid4

from sqlalchemy import delete, insert, update

from db import status
from db.database import Database
from db.models import Worker
from db.patience import UNAVAILABLE

logger = logging.getLogger(__name__)

BEATS = 4  # heartbeats per lease: a single one that is lost or late ends nothing
SILENCE = 1.5  # lease durations; the additional half gives plays the time to end


class LeaseLost(Exception):
    """The worker has not renewed its lease in time; it no longer holds any run."""


def boottime() -> float:
    """Return the seconds since boot, on a clock that cannot be set and that includes suspension."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Lease:
    """The lease of one incarnation of a worker; once lost, it cannot be renewed."""

    def __init__(self, db: Database, node: str, max_runs: int, seconds: float) -> None:
        """Prepare a lease; `node` names a locked data directory, which only one process can hold at a time."""
        self._db = db
        self._node = node
        self._max_runs = max_runs
        self.seconds = seconds
        self.silence = SILENCE * seconds
        self.worker = str(uuid4())
        self.deadline = 0.0  # on `boottime`
        self._beaten = boottime()

    @property
    def is_over(self) -> bool:
        return boottime() >= self.deadline

    @property
    def age(self) -> float:
        """Seconds since the last heartbeat that reached the database."""
        return boottime() - self._beaten

    async def begin(self) -> None:
        """Register the worker.  Raises: errors of `UNAVAILABLE`."""
        before = boottime()
        name = f"{socket.gethostname()}/{os.getpid()}"
        times = {"started_at": status.clock(), "seen_at": status.clock()}
        row = insert(Worker).values(id=self.worker, node=self._node, name=name, max_runs=self._max_runs, **times)
        async with self._db.write() as session:
            await session.execute(row)
        self._extend(before)

    async def keep(self, extend: Callable[[float], None]) -> None:
        """Renew the lease, and call `extend` with the new deadline each time.  Raises: LeaseLost."""
        watch = asyncio.create_task(self._watch(), name="end of the lease")
        beat = asyncio.create_task(self._beat(extend), name="beat of the lease")
        try:
            await asyncio.wait({watch, beat}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            watch.cancel()
            beat.cancel()
        if beat.done() and not beat.cancelled() and (error := beat.exception()) is not None:
            raise error
        raise LeaseLost("no heartbeat has reached the database in time")

    async def end(self) -> None:
        """Release the lease: other workers may take over its runs immediately.  Raises: errors of `UNAVAILABLE`."""
        self.deadline = 0.0
        async with self._db.write() as session:
            await session.execute(delete(Worker).where(Worker.id == self.worker))

    async def _watch(self) -> None:
        """Return when the lease is over, even if a statement hangs."""
        while (left := self.deadline - boottime()) > 0:  # noqa: ASYNC110 - a heartbeat moves it meanwhile
            await asyncio.sleep(left)

    async def _beat(self, extend: Callable[[float], None]) -> None:
        while True:
            await asyncio.sleep(self.seconds / BEATS)
            before = boottime()
            try:
                async with self._db.write() as session:
                    statement = update(Worker).where(Worker.id == self.worker).values(seen_at=status.clock())
                    seen = (await session.execute(statement.returning(Worker.id))).one_or_none()
            except UNAVAILABLE as error:
                logger.warning("the lease cannot be renewed: %s", error)
                continue
            if seen is None:
                raise LeaseLost("another worker has declared this one lost")
            self._extend(before)
            extend(self.deadline)

    def _extend(self, beaten: float) -> None:
        self._beaten = beaten
        self.deadline = beaten + self.seconds
